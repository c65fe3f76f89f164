"""Drop-ins for the standard package `concurrent`."""
