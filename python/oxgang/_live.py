"""Outcomes of calls that may have to be waited for, such as the lines of a pipe.

`oxgang._map.outcomes` reads its calls and yields outcomes by turns, which is fastest where the
next call is always at hand. A pipe may be silent for an hour, and the results of the lines that
came before must not wait for the next one. So here a thread of its own reads the calls, and
whichever comes first, a call or a result, is dealt with.

Promises as there: what is read and not yet yielded is bounded; an error of `calls` comes after
the outcomes of the calls before it; closing cancels what has not begun. The reading thread is
a daemon, and ends with its calls: whoever closes early must end the calls, or the process.
"""

from heapq import heappop, heappush
from queue import Empty, SimpleQueue
from threading import Semaphore, Thread
from time import monotonic

from oxgang._flow import pause_before
from oxgang._map import Outcome

MOST = 1024  # calls read and not yet yielded
_CALL, _DONE, _END = range(3)


def live_outcomes(executor, fn, calls, *, retries=0, chunksize="auto"):
    """Yield an `Outcome` for each call, as they come; see `oxgang._map.outcomes`.

    `chunksize=n` has a meaning only for large n: that many per worker may be in flight.
    """
    most = MOST
    if chunksize != "auto":
        most = max(most, chunksize * (getattr(executor, "_max_workers", None) or 1))
    events = SimpleQueue()
    room = Semaphore(most)
    Thread(target=_read, args=(calls, events, room), name="oxgang-inputs", daemon=True).start()
    return _live(_Running(executor, fn, events, retries), room)


def _read(calls, events, room):
    error = None
    try:
        for index, call in enumerate(calls):
            room.acquire()
            events.put((_CALL, (index, call)))
    except BaseException as raised:  # raised again where the outcomes are asked for
        error = raised
    events.put((_END, error))


def _live(running, room):
    ended, error = False, None
    try:
        while running or not ended:
            kind, what = running.next_event()
            if kind == _CALL:
                running.start(*what, attempts=1)
            elif kind == _END:
                ended, error = True, what
            elif kind == _DONE:
                outcome = running.settled(what)
                if outcome is not None:
                    yield outcome
                    room.release()
        if error is not None:
            raise error
    finally:
        running.cancel()


class _Running:
    """The calls that are begun and not settled: running, or waiting to run again."""

    def __init__(self, executor, fn, events, retries):
        self._executor = executor
        self._fn = fn
        self._events = events
        self._retries = retries
        self._futures = {}  # future -> (index, call, attempts)
        self._again = []  # heap of (when, index, call, attempts)

    def __bool__(self):
        return bool(self._futures or self._again)

    def start(self, index, call, attempts):
        future = self._executor.submit(self._fn, *call.args, **call.kwargs)
        self._futures[future] = index, call, attempts
        future.add_done_callback(lambda done: self._events.put((_DONE, done)))

    def next_event(self):
        """Wait for what comes next; meanwhile start again those whose pause is over."""
        while True:
            now = monotonic()
            while self._again and self._again[0][0] <= now:
                self.start(*heappop(self._again)[1:])
            try:
                return self._events.get(timeout=self._again[0][0] - now if self._again else None)
            except Empty:
                continue  # a pause is over

    def settled(self, future):
        """The outcome of a future that is done, or None if its call is to run again."""
        index, call, attempts = self._futures.pop(future)
        if future.cancelled():
            raise RuntimeError("a call was cancelled by someone else; run the command again")
        error = future.exception()
        if isinstance(error, Exception) and attempts <= self._retries:
            pause = pause_before(attempts)
            # Indexes differ, so that calls are never compared.
            heappush(self._again, (monotonic() + pause, index, call, attempts + 1))
            return None
        value = future.result() if error is None else None
        return Outcome(index, call, value, error, attempts)

    def cancel(self):
        """The newest first, so that no worker gets to one meanwhile."""
        for future in reversed(list(self._futures)):
            future.cancel()
