"""Drop-in for `concurrent.futures`: both executors on the Rust engine.

Exceptions, `wait` and `as_completed` are the standard library's own objects, and futures and
executors are instances of its classes: code that looks at types goes on working.
"""

from importlib import import_module

from oxgang.concurrent.futures._base import (
    ALL_COMPLETED,
    FIRST_COMPLETED,
    FIRST_EXCEPTION,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    InvalidStateError,
    TimeoutError,
    as_completed,
    wait,
)

_LAZY = {"ProcessPoolExecutor": "process", "ThreadPoolExecutor": "thread"}

__all__ = [
    "ALL_COMPLETED",
    "FIRST_COMPLETED",
    "FIRST_EXCEPTION",
    "BrokenExecutor",
    "CancelledError",
    "Executor",
    "Future",
    "InvalidStateError",
    "ProcessPoolExecutor",
    "ThreadPoolExecutor",
    "TimeoutError",
    "as_completed",
    "wait",
]


def __dir__():
    return [*__all__, "__doc__", "process", "thread"]


def __getattr__(name):
    if name in _LAZY:
        value = getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    elif name in ("process", "thread"):
        value = import_module(f"{__name__}.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value
