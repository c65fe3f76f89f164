"""Small scenarios, oxgang beside the standard library in one run. README.md says which."""
