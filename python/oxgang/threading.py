"""`threading`: the standard module, its primitives in Rust.

`Thread`, `Timer`, `local`, `excepthook`, `settrace` and whatever else keeps the books of threads
are the standard library's own objects: a thread that either module starts is seen by both, and what
is assigned here (`threading.excepthook = ...`) is assigned there. So is `Lock`, which is the
interpreter's. `RLock`, `Condition`, `Semaphore`, `BoundedSemaphore`, `Event` and `Barrier` are
oxgang's, with the standard signatures.

In an interpreter other than the main one, where the extension cannot be, all are the standard ones.
"""

import sys as _sys
import threading as _standard
import types as _types
from importlib import import_module as _import_module
from threading import *  # noqa: F403

from oxgang import _interpreters, _telling

del excepthook  # noqa: F821 - it changes, so it is looked up

__all__ = list(_standard.__all__)

_OURS = ()
if _interpreters.is_main():
    from oxgang import _thread_primitives as _ours

    _OURS = tuple(_ours.__all__)
    Barrier = _ours.Barrier
    BoundedSemaphore = _ours.BoundedSemaphore
    Condition = _ours.Condition
    Event = _ours.Event
    RLock = _ours.RLock
    Semaphore = _ours.Semaphore

    if _telling.wanted():
        from oxgang import _thread_debug

        _OURS += ("Lock",)
        Lock = _thread_debug.Lock
        RLock = _ours.RLock = _thread_debug.RLock


_before = {}  # what the standard module had in place of what was assigned here


class _Module(_types.ModuleType):
    """This module: what it has not, the standard one has, and keeps."""

    def __getattr__(self, name):
        return getattr(_standard, name)

    def __reduce__(self):
        # cloudpickle sends modules by name, but only those that are of no class of their own
        return _import_module, (self.__name__,)

    def __setattr__(self, name, value):
        if name in self.__dict__:
            super().__setattr__(name, value)
        if name not in _OURS and not _is_modules_own(name):
            if hasattr(_standard, name):
                _before.setdefault(name, getattr(_standard, name))
            setattr(_standard, name, value)

    def __delattr__(self, name):
        # a patch is undone by deleting what was not here before
        if name in self.__dict__:
            super().__delattr__(name)
        elif name in _before:
            setattr(_standard, name, _before.pop(name))
        else:
            delattr(_standard, name)

    def __dir__(self):
        return sorted({*self.__dict__, *dir(_standard)})


def _is_modules_own(name):
    return name.startswith("__") and name.endswith("__") and name != "__excepthook__"


_sys.modules[__name__].__class__ = _Module
