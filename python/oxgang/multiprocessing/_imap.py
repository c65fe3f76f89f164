"""`imap` and `imap_unordered`: results one by one, with back-pressure.

What is submitted and not yet taken stays within a window, as in `oxgang.map`, so an endless input
or a reader that stops needs bounded memory. (The standard pools read all of the input at once.)

Who reads the input? Of a list or the like, which never makes one wait, the thread that takes the
results. Any other input may wait for anything, for the very results that it leads to, say; so a
thread of its own reads it, as in the standard pools, and stops when it is a window ahead.

| the iterator | then |
|---|---|
| is read on | as much is submitted as is taken |
| is not read any more | it stays where it is |
| is not read any more, and the pool is closed and joined | all of the input is read and run |
| belongs to a pool that is terminated | what is left of the input is not read |
| is not there any more, nor is the pool | the same |
"""

import threading
import weakref
from itertools import islice
from multiprocessing import context
from queue import SimpleQueue
from time import monotonic

from oxgang import _core
from oxgang._flow import Window, wait_for_oldest
from oxgang.multiprocessing._results import own_error

__all__ = ["IMapIterator", "IMapUnorderedIterator"]

_MANY = 1024  # submitted at a time, if all is
_ALL = float("inf")


def calls_of(iterable, chunksize):
    """Tuples of arguments for the calls: of single items, or of chunks of them."""
    if chunksize == 1:
        return zip(iterable)
    items = iter(iterable)
    return iter(lambda: (tuple(islice(items, chunksize)),), ((),))


class _Feed:
    """Reads the input and submits, when it is asked to.

    `submit(calls, line)` submits each of the calls into the line, and says how many there were.
    """

    def __init__(self, submit, calls, line):
        self._submit = submit
        self._calls = calls
        self._line = line
        self.open = True
        self.error = None

    def fill(self, count):
        """Submits up to `count` more."""
        if not self.open or count <= 0:
            return
        try:
            if self._submit(islice(self._calls, count), self._line) < count:
                self._end(None)
        except Exception as error:
            self._end(error)

    def _end(self, error):
        self.open, self.error = False, error
        self._line.end()

    def rest(self):
        """Submits all that is left."""
        while self.open:
            self.fill(_MANY)

    def stop(self):
        """Reads no more."""
        self._end(self.error)


class _Grants:
    """How much a reading thread may read.

    All that the thread has while it may read nothing: so an iterator and a pool which nobody else
    has are garbage, with an input that knows them. Only `stop` is called by a collection, which may
    come anywhere, so it takes no lock.
    """

    def __init__(self):
        self._lock = threading.Lock()
        self._left = 0
        self._waits = self._stopped = False
        self._wakes = SimpleQueue()

    def allow(self, count):
        """That much more, whatever was allowed before; after all there is, nothing less."""
        with self._lock:
            if self._left != _ALL:
                self._left = count
            if self._waits:
                self._waits = False
                self._wakes.put(None)

    def take(self):
        """Waits until one more may be read; False: no more is wanted."""
        while not self._stopped:
            with self._lock:
                if self._left > 0:
                    self._left -= 1
                    return True
                self._waits = True
            self._wakes.get()
        return False

    def stop(self):
        """No more is wanted."""
        self._stopped = True
        self._wakes.put(None)


class _Threaded(_Feed):
    """The same by a thread of its own. `ended`, a weak method, is called at the input's end."""

    def __init__(self, submit, calls, line, ended):
        super().__init__(submit, calls, line)
        self._ended = ended
        self._grants = grants = _Grants()
        self._thread = threading.Thread(
            target=_read, args=(grants, weakref.ref(self)), daemon=True, name="oxgang-imap"
        )
        weakref.finalize(self, grants.stop).atexit = False

    def start(self):
        """From now on it may read what it is allowed to."""
        self._thread.start()

    def fill(self, count):
        """Up to `count` more may be read and submitted."""
        self._grants.allow(count)

    def read_one(self):
        """In the thread: reads and submits one more."""
        try:
            super().fill(1)
        except BaseException as error:  # who waits for results would wait for ever
            self._end(error)

    def tell_end(self):
        """In the thread: the input is at its end, or is not wanted any more."""
        ended = self._ended()
        if ended is not None:
            ended()

    def rest(self):
        """Waits until all is read and submitted."""
        self.fill(_ALL)
        self._thread.join()

    def stop(self):
        """Reads no more; what is being read is not submitted."""
        super().stop()
        self._grants.stop()


def _read(grants, feed):
    """A reading thread's life; `feed`: a weak reference."""
    open = True
    while open and grants.take():
        reading = feed()
        if reading is None:
            return
        reading.read_one()
        open = reading.open
        del reading
    if (reading := feed()) is not None:
        reading.tell_end()


class IMapIterator(_core.ResultIterator):
    """Results in the order of the inputs."""

    ordered = True

    # the base has each result that is done given without a step of Python

    def __init__(self, line, chunked, pool, submit, calls, at_hand):  # noqa: PLR0917
        self._line = line
        self._pool = pool
        self._turn = threading.Lock()
        self._window = window = Window(pool._processes)
        self._count = 0  # may be taken till the window is looked at again
        self._since = monotonic()
        if at_hand:
            self._feed = _Feed(submit, calls, line)
        else:
            self._feed = _Threaded(submit, calls, line, weakref.WeakMethod(self._look))
        self._looks_ahead = at_hand and self.ordered
        self._feed.fill(window.size + window.batch)
        if not at_hand:
            self._feed.start()
        pool._feeds.add(self)
        self._look()

    def next(self, timeout=None):
        """The next result.

        Raises:
            StopIteration: There is none.
            TimeoutError: It is not there in time (`multiprocessing.TimeoutError`); it can be
                asked for again.
            Exception: What the call raised, or the input; the one after it can be asked for.
        """
        if timeout is None or self._in_chunk():
            return self.__next__()
        deadline = monotonic() + timeout
        if not self._turn.acquire(timeout=max(0, timeout)):
            raise context.TimeoutError
        try:
            self._make_ready(deadline)
        finally:
            self._turn.release()
        return self.__next__()

    def _next(self):
        """The next result, which is not at hand."""
        with self._turn:
            self._make_ready(None)
        return self.__next__()

    def _make_ready(self, deadline):
        """Has something to take, or raises."""
        if not self._line.allowed():
            self._refill()
        if not self._wait(deadline):
            raise context.TimeoutError
        if not self._feed.open and not len(self._line):
            self._over()

    def _wait(self, deadline):
        """Whether something can be taken by then, or nothing ever."""
        if self._looks_ahead:
            try:
                wait_for_oldest(self._line, self._feed, self._window, deadline)
            except TimeoutError:
                return False
            return True
        return self._line.wait(None if deadline is None else deadline - monotonic())

    def _failed(self, error):
        own_error(error)

    def _refill(self):
        window, line, now = self._window, self._line, monotonic()
        if self._count:
            window.adapt(self._count, now - self._since)
        self._feed.fill(window.size + window.batch - len(line))
        self._since = now
        self._count = max(1, min(window.batch, len(line)))
        line.allow(self._count)
        self._look()

    def _look(self):
        if not self._feed.open:
            self._pool._fed(self)

    def _over(self):
        """The input is at its end, and everything before is taken."""
        error, self._feed.error = self._feed.error, None
        if error is None:
            raise StopIteration
        try:
            raise error
        finally:
            del error

    def run_all(self):
        """Has all of the input read and run, whether somebody takes the results or not."""
        if isinstance(self._feed, _Threaded):
            self._feed.rest()
        else:
            with self._turn:
                self._feed.rest()
        self._look()

    def stop(self):
        """Reads no more of the input."""
        self._feed.stop()


class IMapUnorderedIterator(IMapIterator):
    """Results as they come."""

    ordered = False
