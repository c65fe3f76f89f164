"""A drop-in for `multiprocessing`, in the making.

Ours: `Lock`, `RLock`, `Semaphore`, `BoundedSemaphore`, `Condition`, `Event`, `Barrier`, `Queue`,
`JoinableQueue`, `SimpleQueue`, `Pipe`, and the contexts that make them. `Process`, `Pool` and the
rest are the standard library's, which take our primitives; they are exchanged for ours one by one. What cannot be had yet says so.
"""

from oxgang.multiprocessing import context

_default = context._default_context

# as the standard module does it: what the default context has is what the module has
__all__ = [name for name in dir(_default) if not name.startswith("_")]
globals().update((name, getattr(_default, name)) for name in __all__)


def __getattr__(name):
    import multiprocessing

    if not name.startswith("_") and hasattr(multiprocessing, name):
        raise AttributeError(
            f"oxgang.multiprocessing has no {name} yet; use multiprocessing.{name}"
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
