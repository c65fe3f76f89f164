"""`oxgang.Queue` and `oxgang.Channel`: for threads, processes and coroutines at once.

A queue is *local* as long as only this process knows it: it keeps objects as they are
(`oxgang._core.LocalQueue`). It becomes *shared*, for good, when it is sent to another process or
this one forks: then its items are encoded, in memory that processes share
(`oxgang.multiprocessing.queues`). There is no server, and no thread that feeds.

A coroutine that waits for an item has its loop watch a descriptor: a bell of a local queue, or one
that is readable while a shared queue has an item. Then it looks again, and takes what it takes at
once: a coroutine that is cancelled has taken nothing. There is no such descriptor for room. A
coroutine that waits for it looks again after a while, at first soon and then every
`LONGEST_PAUSE_S`.
"""

import asyncio
import os
import weakref
from collections import deque
from queue import Empty, Full

from oxgang import _core
from oxgang._plain_queue import NOTHING
from oxgang._shut_down import ShutDown
from oxgang.multiprocessing.queues import _Base
from oxgang.threading import RLock

__all__ = ["Channel", "Queue"]

FIRST_PAUSE_S = 0.0005
LONGEST_PAUSE_S = 0.02

_SHARED = 4  # the kind of queue, for the engine
_NOT_FORKED = (
    "this queue was not passed to this process by the fork: it had items that cannot be pickled "
    "(%s)"
)

_all = weakref.WeakSet()  # queues that may be local
_sharing = RLock()  # held while a queue becomes shared
_left_behind = []  # queues that could not be shared before a fork, and why


class _Shared(_Base):
    """A queue between processes, as a local one looks at it."""

    def __init__(self, maxsize):
        self._open(max(maxsize, 0))

    def task_done(self):
        self._task_done()

    def join(self):
        self._join()


class _LeftBehind:
    """What a child has in place of a queue that could not be shared before the fork."""

    def __init__(self, why):
        self._why = why

    def __getattr__(self, name):
        raise RuntimeError(_NOT_FORKED % self._why)


class _Port:
    """A queue's place in an event loop: coroutines that wait for items, the first first."""

    def __init__(self, queue, loop):
        self._queue = queue
        self._loop = loop
        self._waiting = deque()
        self.there = queue._there
        if self.there is None:
            self._bell, self._fd = queue._new_bell()
        else:
            self._bell, self._fd = None, self.there._watch_fd()

    async def wait(self, first):
        """Waits until there may be an item; `first`: before the others."""
        if self._bell is not None and not self._queue._ask(self._bell):
            return
        waiter = self._loop.create_future()
        if not self._waiting:
            self._loop.add_reader(self._fd, self._look)
        (self._waiting.appendleft if first else self._waiting.append)(waiter)
        try:
            await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled():
                self._look()  # it was called in vain: the next is
            self._quit(waiter)
            raise

    def _look(self):
        """There is an item: calls the first who waits, and sees to it that the next are called."""
        if self._bell is not None:
            self._queue._hush(self._bell)
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                break
        if self._bell is not None and self._waiting:
            # one ring may have been for many items
            self._loop.call_soon(self._look_on)
        self._rest()

    def _look_on(self):
        if self._waiting and not self._queue._ask(self._bell):
            self._look()

    def _quit(self, waiter):
        if waiter in self._waiting:
            self._waiting.remove(waiter)
            self._rest()

    def _rest(self):
        if not self._waiting:
            self._loop.remove_reader(self._fd)

    def is_idle(self):
        """Whether nobody waits here."""
        return not self._waiting

    def close(self):
        """Nobody waits here any more."""
        if self._bell is not None:
            self._queue._drop_bell(self._bell)


class Queue(_core.LocalQueue):
    """A queue for threads, processes and coroutines, all at once.

    `put`, `get` and the rest are as those of `queue.Queue`; `aput` and `aget` are for coroutines.
    It goes to other processes as an argument of a process or of a task; from then on what is put is
    copied, also between threads, and must be something that can be pickled (long buffers, such as
    arrays, cross without being pickled). Iterating, also with ``async for``, takes items until the
    queue is shut down and empty.

    A process or thread that dies harms nobody else; what was put stays.

    Args:
        maxsize: The most items at a time; 0 or less: as many as fit into memory.

    Raises:
        queue.Full: by `put`, if there is no room (in time).
        queue.Empty: by `get`, if there is no item (in time).
        oxgang.errors.ShutDown: by both, after `shutdown`.
        ValueError: by `task_done`, if all items were reported done.
    """

    def __init__(self, maxsize=0):
        self.maxsize = maxsize
        self._open(_SHARED)
        _all.add(self)

    def __reduce__(self):
        return _arrived, (self.maxsize, self._share())

    async def aget(self, timeout=None):
        """`get` for coroutines."""
        item = self._take()
        return await self._aget_slowly(timeout) if item is NOTHING else item

    async def aput(self, item, timeout=None):
        """`put` for coroutines."""
        try:
            return self.put(item, False)
        except Full:
            pass
        try:
            async with asyncio.timeout(timeout):
                pause = FIRST_PAUSE_S
                while True:
                    await asyncio.sleep(pause)
                    try:
                        return self.put(item, False)
                    except Full:
                        pause = min(2 * pause, LONGEST_PAUSE_S)
        except TimeoutError:
            raise Full from None

    async def _aget_slowly(self, timeout):
        if timeout is None:
            return await self._wait_and_get()
        try:
            async with asyncio.timeout(timeout):
                return await self._wait_and_get()
        except TimeoutError:
            raise Empty from None

    async def _wait_and_get(self):
        first = False
        while True:
            await self._port().wait(first)
            item = self._take()
            if item is not NOTHING:
                return item
            first = True  # somebody was quicker

    def _port(self):
        loop = asyncio.get_running_loop()
        ports = self.__dict__.setdefault("_ports", {})
        for other in [other for other in list(ports) if other.is_closed()]:
            gone = ports.pop(other, None)
            if gone is not None:
                gone.close()
        port = ports.get(loop)
        if port is None or port.there is not self._there:
            if port is not None and port.is_idle():
                port.close()
            port = ports[loop] = _Port(self, loop)
        return port

    @property
    def is_shutdown(self):
        """Whether it was shut down."""
        there = self._there
        return _core.LocalQueue.is_shutdown.__get__(self) if there is None else there.is_shutdown

    def _share(self):
        """Makes it a shared queue; that."""
        with _sharing:
            there = self._there
            if there is None:
                there = _Shared(self.maxsize)
                self._move(there, *self._begin_move(there))
            return there

    def _move(self, there, items, unfinished, shut):
        try:
            for _ in range(unfinished - len(items)):  # taken, and not yet done with
                there.put(None)
                there.get()
            for item in items:
                there.put(item)
            if shut:
                there.shutdown()
        except BaseException:
            self._end_move(items)
            raise
        self._end_move(None)

    def __iter__(self):
        return self

    def __next__(self):
        try:
            return self.get()
        except ShutDown:
            raise StopIteration from None

    def __aiter__(self):
        return self

    async def __anext__(self):
        try:
            return await self.aget()
        except ShutDown:
            raise StopAsyncIteration from None

    def __repr__(self):
        state = ", shut down" if self.is_shutdown else ""
        return f"<oxgang.Queue of {self.qsize()} items, maxsize={self.maxsize}{state}>"


def _arrived(maxsize, there):
    """A queue in the process that it was sent to."""
    queue = Queue(maxsize)
    queue._begin_move(there)
    queue._end_move(None)
    return queue


def _before_fork():
    _sharing.acquire()
    for queue in list(_all):
        try:
            queue._share()
        except Exception as error:
            _left_behind.append((queue, repr(error)))


def _after_fork_in_parent():
    _left_behind.clear()
    _sharing.release()


def _after_fork_in_child():
    for queue, why in _left_behind:
        queue._begin_move(_LeftBehind(why))
        queue._end_move(None)
    _left_behind.clear()
    _sharing._at_fork_reinit()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)


class Channel:
    """One end of a way for objects between two sides, each threads, processes or coroutines::

        here, there = oxgang.Channel.pair()

    What one end sends the other receives, in order. An end goes to another process as an argument.
    When an end is closed, the other receives what was sent before, and then `ShutDown`.

    Raises:
        oxgang.errors.ShutDown: by `send` and `receive`, after either end was closed.
        queue.Full, queue.Empty: by `send` and `receive`, out of time.
    """

    def __init__(self, outward, inward):
        self._outward = outward
        self._inward = inward

    @classmethod
    def pair(cls, maxsize=0):
        """Two ends; `maxsize`: objects on their way at most, for each direction; 0: any number."""
        one, other = Queue(maxsize), Queue(maxsize)
        return cls(one, other), cls(other, one)

    def send(self, obj, timeout=None):
        """Sends an object; waits for room, for `timeout` seconds at most."""
        self._outward.put(obj, True, timeout)

    def receive(self, timeout=None):
        """Receives an object; waits for one, for `timeout` seconds at most."""
        return self._inward.get(True, timeout)

    async def asend(self, obj, timeout=None):
        """`send` for coroutines."""
        await self._outward.aput(obj, timeout)

    async def areceive(self, timeout=None):
        """`receive` for coroutines."""
        return await self._inward.aget(timeout)

    def close(self):
        """Sends and receives nothing more; what is on its way to the other end still arrives."""
        self._outward.shutdown()
        self._inward.shutdown(immediate=True)

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self.close()

    def __iter__(self):
        return iter(self._inward)

    def __aiter__(self):
        return aiter(self._inward)

    def __repr__(self):
        return f"<oxgang.Channel, {self._inward.qsize()} to receive>"
