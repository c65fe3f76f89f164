"""`oxgang.Queue` and `oxgang.Channel`: for threads, processes and coroutines at once.

The items are in memory that processes share (`oxgang::queue`), so there is no server, and no thread
that feeds. A coroutine that waits for an item has its loop watch a descriptor that is readable
while there is one, and looks again. What it takes it takes at once, without waiting: a coroutine
that is cancelled has taken nothing.

There is no such descriptor for room. A coroutine that waits for it looks again after a while, at
first soon and then every `LONGEST_PAUSE_S`.
"""

import asyncio
from collections import deque
from queue import Empty, Full

from oxgang._shut_down import ShutDown
from oxgang.multiprocessing.queues import _Base

__all__ = ["Channel", "Queue"]

FIRST_PAUSE_S = 0.0005
LONGEST_PAUSE_S = 0.02


class _Port:
    """A queue's place in an event loop: coroutines that wait for items, the first first."""

    def __init__(self, queue, loop):
        self._fd = queue._watch_fd()
        self._loop = loop
        self._waiting = deque()

    async def wait(self, first):
        """Waits until there may be an item; `first`: before the others."""
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
        """There is an item: calls the first who waits. The loop comes back while there are more."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                break
        self._rest()

    def _quit(self, waiter):
        if waiter in self._waiting:
            self._waiting.remove(waiter)
            self._rest()

    def _rest(self):
        if not self._waiting:
            self._loop.remove_reader(self._fd)


class Queue(_Base):
    """A queue for threads, processes and coroutines, all at once.

    `put`, `get` and the rest are as those of `queue.Queue`; `aput` and `aget` are for coroutines.
    It goes to other processes as an argument of a process or of a task. What is put is copied, also
    between threads: it must be something that can be pickled, and long buffers (arrays) cross
    without being pickled. Iterating, also with ``async for``, takes items until the queue is shut
    down and empty.

    A process or thread that dies harms nobody else; what was put stays.

    Args:
        maxsize: The most items at a time; 0 or less: as many as fit into memory.

    Raises:
        queue.Full: by `put`, if there is no room (in time).
        queue.Empty: by `get`, if there is no item (in time).
        oxgang.errors.ShutDown: by both, after `shutdown`.
        ValueError: by both, after `close`; by `task_done`, if all items were reported done.
    """

    def __init__(self, maxsize=0):
        self._open(max(maxsize, 0))

    @property
    def maxsize(self):
        """The most items at a time; 0: as many as fit into memory."""
        return self._maxsize

    def put_nowait(self, obj):
        """`put` without waiting."""
        self.put(obj, False)

    def get_nowait(self):
        """`get` without waiting."""
        return self.get(False)

    async def aput(self, obj, timeout=None):
        """`put` for coroutines."""
        try:
            return self.put(obj, False)
        except Full:
            pass
        try:
            async with asyncio.timeout(timeout):
                pause = FIRST_PAUSE_S
                while True:
                    await asyncio.sleep(pause)
                    try:
                        return self.put(obj, False)
                    except Full:
                        pause = min(2 * pause, LONGEST_PAUSE_S)
        except TimeoutError:
            raise Full from None

    async def aget(self, timeout=None):
        """`get` for coroutines."""
        try:
            return self.get(False)
        except Empty:
            pass
        try:
            async with asyncio.timeout(timeout):
                port = self._port()
                first = False
                while True:
                    await port.wait(first)
                    try:
                        return self.get(False)
                    except Empty:
                        first = True  # somebody was quicker
        except TimeoutError:
            raise Empty from None

    def _port(self):
        loop = asyncio.get_running_loop()
        ports = self.__dict__.setdefault("_ports", {})
        for other in [other for other in ports if other.is_closed()]:
            del ports[other]
        if loop not in ports:
            ports[loop] = _Port(self, loop)
        return ports[loop]

    def task_done(self):
        """Reports that an item that was taken is done."""
        self._task_done()

    def join(self):
        """Waits until all items that were put are done."""
        self._join()

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
        if self._closed:
            return "<oxgang.Queue closed>"
        state = ", shut down" if self.is_shutdown else ""
        return f"<oxgang.Queue of {self.qsize()} items, maxsize={self.maxsize}{state}>"


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
