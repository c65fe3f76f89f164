"""`multiprocessing.resource_tracker`: the standard library's own, which is one for a whole tree of
processes, whichever of the two packages they use."""

from multiprocessing.resource_tracker import (
    ResourceTracker,
    ensure_running,
    getfd,
    register,
    unregister,
)

__all__ = ["ResourceTracker", "ensure_running", "getfd", "register", "unregister"]
