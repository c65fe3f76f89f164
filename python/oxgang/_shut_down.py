"""`queue.ShutDown`, on every Python."""

try:
    from queue import ShutDown
except ImportError:  # before Python 3.13

    class ShutDown(Exception):
        """A queue was shut down: nothing can be put in, or nothing is left to take out."""

        __module__ = "oxgang.errors"


__all__ = ["ShutDown"]
