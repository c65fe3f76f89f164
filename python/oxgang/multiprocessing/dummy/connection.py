"""`multiprocessing.dummy.connection`: pipes between threads, the standard module's own."""

from multiprocessing.dummy import connection as _standard
from multiprocessing.dummy.connection import Client, Connection, Listener, Pipe, families

__all__ = ["Client", "Connection", "Listener", "Pipe", "families"]


def __getattr__(name):
    # what the standard module keeps for itself; looked up each time, since it may change
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_standard, name)
