"""`threading`: the standard module, its primitives in Rust.

`Thread`, `Timer`, `local`, `excepthook`, `settrace` and whatever else keeps the books of threads
are the standard library's own objects: a thread that either module starts is seen by both. So is
`Lock`, which is the interpreter's. `RLock`, `Condition`, `Semaphore`, `BoundedSemaphore`, `Event`
and `Barrier` are oxgang's, with the standard signatures.

In an interpreter other than the main one, where the extension cannot be, all are the standard ones.
"""

import threading as _standard
from threading import *  # noqa: F403
from threading import activeCount, currentThread  # noqa: F401 - deprecated, but there

from oxgang import _interpreters

if _interpreters.is_main():
    from oxgang import _thread_primitives as _ours

    Barrier = _ours.Barrier
    BoundedSemaphore = _ours.BoundedSemaphore
    Condition = _ours.Condition
    Event = _ours.Event
    RLock = _ours.RLock
    Semaphore = _ours.Semaphore

__all__ = list(_standard.__all__)
