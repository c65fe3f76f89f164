"""The queues of `oxgang.queue`: signatures and the methods that classes may have of their own."""

import types
from heapq import heappop, heappush

from oxgang import _core, _plain_queue


class Queue(_core.LocalQueue):
    """First in, first out; as `queue.Queue`.

    A class may have an `_init`, `_qsize`, `_put` or `_get` of its own; they are called with `mutex`
    held. Such a queue, and one whose `mutex`, `queue` or conditions somebody asks for, goes on in
    Python from then on.

    Args:
        maxsize: Items at most; 0 or less: no limit.
    """

    def __init__(self, maxsize=0):
        self.maxsize = maxsize
        kind = _KINDS.get(_hooks(type(self)), _CUSTOM)
        self._open(kind)
        if kind >= _PRIORITY:
            _plain_queue.open_up(self)
            self._init(maxsize)

    def _init(self, maxsize):
        self.queue = _plain_queue.deque()

    def _qsize(self):
        return len(self.queue)

    def _put(self, item):
        self.queue.append(item)

    def _get(self):
        return self.queue.popleft()

    __class_getitem__ = classmethod(types.GenericAlias)


class PriorityQueue(Queue):
    """Smallest first; as `queue.PriorityQueue`.

    Args:
        maxsize: Items at most; 0 or less: no limit.
    """

    def _init(self, maxsize):
        self.queue = []

    def _put(self, item):
        heappush(self.queue, item)

    def _get(self):
        return heappop(self.queue)


class LifoQueue(Queue):
    """Last in, first out; as `queue.LifoQueue`.

    Args:
        maxsize: Items at most; 0 or less: no limit.
    """

    def _init(self, maxsize):
        self.queue = []

    def _get(self):
        return self.queue.pop()


def _hooks(cls):
    return (cls._init, cls._qsize, cls._put, cls._get)


_FIFO, _LIFO, _PRIORITY, _CUSTOM = range(4)
_KINDS = {_hooks(Queue): _FIFO, _hooks(LifoQueue): _LIFO, _hooks(PriorityQueue): _PRIORITY}
