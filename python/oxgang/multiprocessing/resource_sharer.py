"""`multiprocessing.resource_sharer`: the standard library's own, which hands descriptors to
processes that run already."""

from multiprocessing.resource_sharer import DupFd, stop

__all__ = ["DupFd", "stop"]
