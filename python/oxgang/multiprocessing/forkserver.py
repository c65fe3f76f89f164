"""`multiprocessing.forkserver`: the standard library's fork server, which children of this package
come from too."""

from multiprocessing import forkserver as _standard
from multiprocessing.forkserver import (
    connect_to_new_process,
    ensure_running,
    get_inherited_fds,
    main,
    set_forkserver_preload,
)

__all__ = [
    "connect_to_new_process",
    "ensure_running",
    "get_inherited_fds",
    "main",
    "set_forkserver_preload",
]


def __getattr__(name):
    # what the standard module keeps for itself; looked up each time, since it may change
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_standard, name)
