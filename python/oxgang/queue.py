"""`queue`: the standard module, its queues in Rust.

`Queue`, `LifoQueue` and `PriorityQueue` are oxgang's, with `shutdown` on every Python;
`SimpleQueue` is the interpreter's, and the exceptions are the standard ones. In an interpreter
other than the main one, where the extension cannot be, all are the standard ones.
"""

import queue as _standard
from queue import Empty, Full, LifoQueue, PriorityQueue, Queue, SimpleQueue

from oxgang import _interpreters

if _interpreters.is_main():
    from oxgang import _queues as _ours
    from oxgang._plain_queue import ShutDown

    LifoQueue = _ours.LifoQueue
    PriorityQueue = _ours.PriorityQueue
    Queue = _ours.Queue
else:
    ShutDown = getattr(_standard, "ShutDown", None)

__all__ = ["Empty", "Full", "LifoQueue", "PriorityQueue", "Queue", "ShutDown", "SimpleQueue"]
