"""`multiprocessing.heap`: blocks of memory that forks share, the standard module's own."""

from multiprocessing import heap as _standard
from multiprocessing.heap import Arena, BufferWrapper, Heap

__all__ = ["Arena", "BufferWrapper", "Heap"]


def __getattr__(name):
    # what the standard module keeps for itself; looked up each time, since it may change
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_standard, name)
