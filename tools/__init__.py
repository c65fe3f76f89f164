"""What dev.py is made of: setting up, running steps, the demo. Not part of the package."""
