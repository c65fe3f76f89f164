"""`Future` and `Executor`: the standard classes' contract, the waiting in Rust."""

import itertools
import os
import time
from collections import deque
from concurrent.futures import _base as standard

from oxgang import _core

LOGGER = standard.LOGGER
PENDING = standard.PENDING
RUNNING = standard.RUNNING
CANCELLED = standard.CANCELLED
CANCELLED_AND_NOTIFIED = standard.CANCELLED_AND_NOTIFIED
FINISHED = standard.FINISHED
FIRST_COMPLETED = standard.FIRST_COMPLETED
FIRST_EXCEPTION = standard.FIRST_EXCEPTION
ALL_COMPLETED = standard.ALL_COMPLETED

# the standard classes and functions themselves: whoever catches or calls them by either name
# means the same
BrokenExecutor = standard.BrokenExecutor
CancelledError = standard.CancelledError
InvalidStateError = standard.InvalidStateError
TimeoutError = standard.TimeoutError
wait = standard.wait
as_completed = standard.as_completed


def cpu_count():
    """CPUs that this process may use, as the standard executors of Python 3.13 count them."""
    count = getattr(os, "process_cpu_count", None)
    return (count() if count else len(os.sched_getaffinity(0))) or 1


# iterables that never make one wait
AT_HAND = frozenset((list, tuple, range, str, bytes, dict, set, frozenset, deque))


class _FutureType(type):
    """Who asks whether something is a future means any: asyncio's own are standard ones."""

    def __instancecheck__(cls, instance):
        own = super().__instancecheck__(instance)
        return own or (cls is Future and isinstance(instance, standard.Future))


class Future(_core.Future, standard.Future, metaclass=_FutureType):
    """The result to come of a call, as `concurrent.futures.Future`.

    State and waiting are in Rust; a result from another process is decoded when it is asked
    for. It is an instance of the standard class, so `asyncio.wrap_future`, the standard `wait`
    and `as_completed` take it.
    """

    __init__ = object.__init__  # the state is made in Rust; the standard one's has no place


class Executor(standard.Executor):
    """Base of oxgang's executors: the standard `Executor`, with `map(buffersize=…)`."""

    def map(self, fn, *iterables, timeout=None, chunksize=1, buffersize=None):
        """Returns an iterator equivalent to ``map(fn, *iterables)``; calls may run in any order.

        Args:
            fn: Takes as many arguments as there are iterables.
            timeout: Seconds to wait for the whole, from this call; None for no limit.
            chunksize: Accepted; only process pools make use of it.
            buffersize: Calls that may be submitted and not yet yielded. None: all of the
                input is read at once, as the standard library does. (New in Python 3.14,
                here on every Python.)

        Raises:
            TimeoutError: The whole was not there in time.
            Exception: Whatever a call raised, when its turn comes.
            ValueError: buffersize is less than 1.
            TypeError: buffersize is no integer.
        """
        if buffersize is not None:
            if not isinstance(buffersize, int):
                raise TypeError("buffersize must be an integer or None")
            if buffersize < 1:
                raise ValueError("buffersize must be None or > 0")
        end_time = None if timeout is None else time.monotonic() + timeout
        calls = zip(*iterables)  # noqa: B905 - the shortest ends it, as with the builtin
        quick = all(type(iterable) in AT_HAND for iterable in iterables)
        if buffersize is None and quick:
            return self._map_at_hand(fn, calls, end_time)
        fn = self._same(fn)
        if buffersize is None:
            # each call is under way before the iterable is asked for the next
            return _results([self.submit(fn, *args) for args in calls], end_time)
        futures = deque(self.submit(fn, *args) for args in itertools.islice(calls, buffersize))
        return _buffered_results(self.submit, fn, calls, futures, end_time)

    def _map_at_hand(self, fn, calls, end_time):
        """What `map` gives of calls that never make one wait."""
        return _results(self._submit_many(fn, calls), end_time)

    def _submit_many(self, fn, calls):
        """A list of futures, one for each tuple of arguments."""
        return [self.submit(fn, *args) for args in calls]

    def _same(self, fn):
        """`fn`, or what stands for it in many submits."""
        return fn


class KillableExecutor(Executor):
    """An executor whose running calls can be ended."""

    def _kill(self, how):
        """Ends what runs, and the pool with it; calls that are left fail, and say how that was."""
        raise NotImplementedError

    def __exit__(self, exc_type, exc_val, exc_tb):
        # whoever interrupts the program does not want to wait for its tasks
        try:
            if exc_type is not None and issubclass(exc_type, (KeyboardInterrupt, SystemExit)):
                self._kill(f"ended by {exc_type.__name__}")
            self.shutdown(wait=True)
        except KeyboardInterrupt:
            self._kill("ended by KeyboardInterrupt")
            self.shutdown(wait=True)
            raise
        return False


def _results(futures, end_time):
    futures.reverse()
    try:
        # no name may hold the future or the result while the caller has it
        if end_time is None:
            while futures:
                yield futures.pop().result()
        while futures:
            yield _result_or_cancel(futures.pop(), end_time - time.monotonic())
    finally:
        for future in futures:
            future.cancel()


def _buffered_results(submit, fn, calls, futures, end_time):
    try:
        while futures:
            if (args := next(calls, None)) is not None:
                futures.append(submit(fn, *args))
            left = None if end_time is None else end_time - time.monotonic()
            yield _result_or_cancel(futures.popleft(), left)
    finally:
        for future in futures:
            future.cancel()


def _result_or_cancel(future, timeout=None):
    try:
        return future.result(timeout)
    except BaseException:
        future.cancel()
        raise
    finally:
        del future  # the exception's traceback would keep it


__all__ = [
    "ALL_COMPLETED",
    "FIRST_COMPLETED",
    "FIRST_EXCEPTION",
    "BrokenExecutor",
    "CancelledError",
    "Executor",
    "Future",
    "InvalidStateError",
    "TimeoutError",
    "as_completed",
    "wait",
]
