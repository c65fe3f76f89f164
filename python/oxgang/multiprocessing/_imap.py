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
from queue import Empty, SimpleQueue
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
    """Reads the input and submits, when it is asked to."""

    def __init__(self, submit_many, calls):
        self._submit_many = submit_many
        self._calls = calls
        self.open = True
        self.error = None

    def fill(self, line, count):
        """Submits up to `count` more, appended to `line`."""
        if not self.open or count <= 0:
            return
        calls = []
        try:
            calls.extend(islice(self._calls, count))
        except Exception as error:
            self._end(error)
        if len(calls) < count:
            self._end(self.error)
        if calls:
            try:
                line.extend(self._submit_many(calls))
            except Exception as error:
                self._end(error)

    def _end(self, error):
        self.open, self.error = False, error

    def rest(self, line):
        """Submits all that is left."""
        while self.open:
            self.fill(line, _MANY)

    def stop(self):
        """Reads no more."""
        self.open = False


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

    def __init__(self, submit_many, calls, ended):
        super().__init__(submit_many, calls)
        self._ended = ended
        self._line = None
        self._grants = grants = _Grants()
        self._thread = threading.Thread(
            target=_read, args=(grants, weakref.ref(self)), daemon=True, name="oxgang-imap"
        )
        weakref.finalize(self, grants.stop).atexit = False

    def fill(self, line, count):
        """Up to `count` more may be read and submitted."""
        self._grants.allow(count)
        if self._line is None:
            self._line = line
            self._thread.start()

    def read_one(self):
        """In the thread: reads and submits one more."""
        if self.open:
            super().fill(self._line, 1)

    def tell_end(self):
        """In the thread: the input is at its end, or is not wanted any more."""
        ended = self._ended()
        if ended is not None:
            ended()

    def rest(self, line):
        """Waits until all is read and submitted."""
        self.fill(line, _ALL)
        self._thread.join()

    def stop(self):
        """Reads no more; what is being read is not submitted."""
        self.open = False
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

    # the base has each result that is done given without a step of Python

    def __init__(self, chunked, pool, submit_many, calls, at_hand):
        self._pool = pool
        self._chunked = chunked
        self._turn = threading.Lock()
        self._window = window = Window(pool._processes)
        self._count = 0  # may be taken till the window is looked at again
        self._since = monotonic()
        self._line = self._new_line()
        if at_hand:
            self._feed = _Feed(submit_many, calls)
        else:
            self._feed = _Threaded(submit_many, calls, weakref.WeakMethod(self._at_end))
        self._feed.fill(self._line, window.size + window.batch)
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
        if timeout is None:
            return self.__next__()
        if self._results().in_chunk():
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
        if not self._results().allowed():
            self._refill()
        self._wait(deadline)

    def _failed(self, error):
        own_error(error)

    def _refill(self):
        window, line, now = self._window, self._line, monotonic()
        if self._count:
            window.adapt(self._count, now - self._since)
        self._feed.fill(line, window.size + window.batch - len(line))
        self._since = now
        self._count = max(1, min(window.batch, len(line)))
        self._results().allow(self._count)
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
            self._feed.rest(self._line)
        else:
            with self._turn:
                self._feed.rest(self._line)
        self._look()

    def stop(self):
        """Reads no more of the input."""
        self._feed.stop()

    # -- what the order makes different ---------------------------------------------------

    def _new_line(self):
        self._come = threading.Condition()
        return _Told(self._results(), self._come)

    def _at_end(self):
        with self._come:
            self._come.notify_all()
        self._look()

    def _wait(self, deadline):
        line, feed = self._line, self._feed
        if not len(line):
            self._wait_for_feed(deadline)
        if not line[0].done():
            threaded = isinstance(feed, _Threaded)
            try:
                wait_for_oldest(line, _NO_FEED if threaded else feed, self._window, deadline)
            except TimeoutError:
                raise context.TimeoutError from None

    def _wait_for_feed(self, deadline):
        with self._come:
            while not len(self._line):
                if not self._feed.open:
                    self._over()
                left = None if deadline is None else deadline - monotonic()
                if left is not None and left <= 0:
                    raise context.TimeoutError
                self._come.wait(left)


class _Told:
    """A line that tells somebody of what is appended."""

    def __init__(self, line, come):
        self._line = line
        self._come = come

    def __len__(self):
        return len(self._line)

    def __getitem__(self, index):
        return self._line[index]

    def __reversed__(self):
        return reversed(self._line)

    def extend(self, futures):
        with self._come:
            self._line.extend(futures)
            self._come.notify_all()


class _NoFeed:
    """Of one that reads by itself nothing is asked."""

    open = False

    def fill(self, line, count):
        """Nothing."""


_NO_FEED = _NoFeed()


class _AsTheyCome:
    """Futures that are submitted and not taken; those that are done are in the line."""

    def __init__(self, line):
        self._line = line
        self._lock = threading.Lock()
        self._open = 0
        self.events = SimpleQueue()

    def __len__(self):
        return self._open

    def extend(self, futures):
        """More are submitted."""
        with self._lock:
            self._open += len(futures)
        for future in futures:
            future.add_done_callback(self.events.put)

    def taken(self, count):
        """So many are."""
        with self._lock:
            self._open -= count


class IMapUnorderedIterator(IMapIterator):
    """Results as they come."""

    def _new_line(self):
        return _AsTheyCome(self._results())

    def _at_end(self):
        self._line.events.put(None)
        self._look()

    def _wait(self, deadline):
        line, come = self._line, self._results()
        while not len(come):
            if not len(line) and not self._feed.open:
                self._over()
            left = None if deadline is None else max(0, deadline - monotonic())
            try:
                done = [line.events.get(timeout=left)]
            except Empty:
                raise context.TimeoutError from None
            done.extend(_at_hand(line.events, come.allowed() - 1))
            futures = [future for future in done if future is not None]
            line.taken(len(futures))
            come.extend(futures)


def _at_hand(events, most):
    """Up to so many of what has come."""
    for _ in range(most):
        try:
            yield events.get_nowait()
        except Empty:
            return
