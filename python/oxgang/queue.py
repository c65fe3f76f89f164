"""`queue`: the standard module, its queues in Rust.

`Queue`, `LifoQueue` and `PriorityQueue` are oxgang's, with `shutdown` on every Python;
`SimpleQueue` is the interpreter's, and the exceptions are the standard ones. In an interpreter
other than the main one, where the extension cannot be, all are the standard ones.
"""

from queue import Empty, Full, LifoQueue, PriorityQueue, Queue, SimpleQueue

from oxgang import _interpreters
from oxgang._shut_down import ShutDown

if _interpreters.is_main():
    from oxgang import _queues as _ours

    LifoQueue = _ours.LifoQueue
    PriorityQueue = _ours.PriorityQueue
    Queue = _ours.Queue

__all__ = ["Empty", "Full", "LifoQueue", "PriorityQueue", "Queue", "ShutDown", "SimpleQueue"]
