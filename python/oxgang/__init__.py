"""oxgang: the standard concurrency modules on a Rust core.

Nothing heavy is imported here: a worker process imports this package too, and each of
its milliseconds is paid by every fresh pool. Public names load on first touch.
"""

from importlib import import_module

_HOMES = {
    "Channel": "oxgang._queue",
    "Executor": "oxgang._executor",
    "Queue": "oxgang._queue",
    "TaskGroup": "oxgang._group",
    "TaskOptions": "oxgang._options",
    "__version__": "oxgang._core",
    "install": "oxgang._install",
    "map": "oxgang._map",
    "pipeline": "oxgang._pipeline",
    "stage": "oxgang._pipeline",
    "task_seed": "oxgang._seeds",
    "uninstall": "oxgang._install",
}

# attributes too: a function of a script that says `oxgang.shared` goes to a worker by value, where
# nobody has imported that
_MODULES = ("asyncio", "concurrent", "errors", "multiprocessing", "queue", "shared", "threading")

__all__ = [
    "Channel",
    "Executor",
    "Queue",
    "TaskGroup",
    "TaskOptions",
    "__version__",
    "errors",
    "install",
    "map",
    "pipeline",
    "stage",
    "task_seed",
    "uninstall",
]


def __getattr__(name):
    if name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    elif name in _MODULES:
        value = import_module(f"oxgang.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__():
    return sorted(__all__)
