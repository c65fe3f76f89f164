"""`multiprocessing.dummy`: the face of `multiprocessing` with threads behind it.

The standard module's own, but for `Pool`, which is `oxgang.multiprocessing.pool.ThreadPool`.
"""

from multiprocessing import dummy as _standard
from multiprocessing.dummy import (
    Array,
    Barrier,
    BoundedSemaphore,
    Condition,
    DummyProcess,
    Event,
    JoinableQueue,
    Lock,
    Manager,
    Namespace,
    Pipe,
    Process,
    Queue,
    RLock,
    Semaphore,
    Value,
    active_children,
    current_process,
    dict,
    freeze_support,
    list,
    shutdown,
)

__all__ = [
    "Array",
    "Barrier",
    "BoundedSemaphore",
    "Condition",
    "DummyProcess",
    "Event",
    "JoinableQueue",
    "Lock",
    "Manager",
    "Namespace",
    "Pipe",
    "Pool",
    "Process",
    "Queue",
    "RLock",
    "Semaphore",
    "Value",
    "active_children",
    "current_process",
    "dict",
    "freeze_support",
    "list",
    "shutdown",
]


def Pool(processes=None, initializer=None, initargs=()):
    """A pool of threads; see `oxgang.multiprocessing.pool.ThreadPool`."""
    from oxgang.multiprocessing.pool import ThreadPool

    return ThreadPool(processes, initializer, initargs)


def __getattr__(name):
    # what the standard module keeps for itself; looked up each time, since it may change
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_standard, name)
