"""`multiprocessing.queues`: queues between processes, in shared memory.

The classes have the standard signatures. What they add:

* `put` returns when the item is stored. There is no thread that feeds it: what was put is not lost
  when the process ends, however it does, and a process may be joined before its items are taken.
* What cannot be pickled raises at `put`.
* A process may die at any moment; the others go on, and no item is torn.
* `qsize`, `empty` and `full` are exact.
* They pass to children of any start method, whatever context made them, and as arguments of tasks
  to the workers of pools.
* `shutdown`, as the queues of Python 3.13 have it.
"""

import types
import weakref
from multiprocessing import util
from queue import Empty, Full  # noqa: F401 - users import them from here, as from the standard one

from oxgang import _core
from oxgang.multiprocessing import _passing

__all__ = ["JoinableQueue", "Queue", "SimpleQueue"]


class _Seam:
    """What the standard queues have in `_reader` and `_writer`: for who waits for a queue beside
    other things. It holds the queue only loosely, as the queue holds it."""

    def __init__(self, queue):
        self._queue = weakref.ref(queue)

    def _of(self):
        queue = self._queue()
        if queue is None or queue._closed:
            raise OSError("handle is closed")
        return queue

    def fileno(self):
        """A descriptor that is readable while there is an item. Only to be looked at."""
        return self._of()._watch_fd()

    def poll(self, timeout=0.0):
        """Whether there is an item, or comes one within `timeout` seconds."""
        return self._of()._poll(timeout)

    @property
    def closed(self):
        """Whether the queue is closed in this process."""
        queue = self._queue()
        return queue is None or queue._closed

    def close(self):
        """Closes the queue in this process."""
        self._of().close()


class _Base(_core.SharedQueue):
    """What the queues have in common."""

    def __getstate__(self):
        return _passing.parts(self._address, _inherited)

    def __setstate__(self, state):
        address, duplicates = state
        with _passing.inherited(duplicates) as fds:
            self._attach(address, fds)

    @property
    def _reader(self):
        return _Seam(self)

    _writer = _reader

    __class_getitem__ = classmethod(types.GenericAlias)


def _inherited(address):
    """The descriptors that an address names."""
    (_, fd, _), doorbell = address
    return fd, doorbell


class Queue(_Base):
    """A queue of objects; as `multiprocessing.Queue`.

    Args:
        maxsize: The most items at a time; 0 or less: as many as fit into memory.

    Raises:
        queue.Full: by `put`, if there is no room (in time).
        queue.Empty: by `get`, if there is no item (in time).
        oxgang.errors.ShutDown: by both, after `shutdown`.
        ValueError: by both, after `close`.
    """

    def __init__(self, maxsize=0, *, ctx=None):
        self._open(max(maxsize, 0))

    def put_nowait(self, obj):
        """`put` without waiting."""
        self.put(obj, False)

    def get_nowait(self):
        """`get` without waiting."""
        return self.get(False)

    def join_thread(self):
        """Nothing: what was put is stored. To be called after `close`, as in the standard module.

        Raises:
            AssertionError: the queue is not closed.
        """
        util.debug("Queue.join_thread()")
        if not self._closed:
            raise AssertionError(f"Queue {self!r} not closed")

    @staticmethod
    def _on_queue_feeder_error(e, obj):
        """Called by `put` with what pickling `obj` raised. A subclass may swallow it, as where the
        standard queue's thread calls this."""
        raise e

    def cancel_join_thread(self):
        """Nothing: nobody waits for a thread when the process ends."""
        util.debug("Queue.cancel_join_thread()")


class JoinableQueue(Queue):
    """A queue whose items are reported done; as `multiprocessing.JoinableQueue`.

    Raises:
        ValueError: by `task_done`, if all items were reported done.
    """

    def task_done(self):
        """Reports that an item that was taken is done."""
        self._task_done()

    def join(self):
        """Waits until all items that were put are done."""
        self._join()


class SimpleQueue(_Base):
    """A queue of objects without limits; as `multiprocessing.SimpleQueue`.

    Raises:
        OSError: after `close`.
        oxgang.errors.ShutDown: by `put` and `get`, after `shutdown`.
    """

    def __init__(self, *, ctx=None):
        self._open(0)

    def _check_closed(self):
        if self._closed:
            raise OSError("handle is closed")

    def put(self, obj):
        """Puts an item in."""
        self._check_closed()
        _core.SharedQueue.put(self, obj)

    def get(self):
        """Takes an item out, waiting for one."""
        self._check_closed()
        return _core.SharedQueue.get(self)

    def empty(self):
        """Whether there is no item."""
        self._check_closed()
        return _core.SharedQueue.empty(self)
