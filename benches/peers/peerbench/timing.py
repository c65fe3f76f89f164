"""Small tools for the code inside a cell."""

import contextlib
import signal
import statistics
import time


class TimeIsUp(BaseException):
    """Not an Exception, so that no library swallows it on the way up."""


@contextlib.contextmanager
def time_limit(seconds):
    """Raise TimeIsUp in the main thread if the block takes too long."""

    def on_alarm(signum, frame):
        raise TimeIsUp(f"no end after {seconds} s")

    before = signal.signal(signal.SIGALRM, on_alarm)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def timed(action, *args):
    """(seconds, what it returned)."""
    start = time.perf_counter()
    value = action(*args)
    return time.perf_counter() - start, value


def sample(action, times, at_most):
    """Durations of `times` runs, or of as many as start within `at_most` seconds."""
    clock = time.perf_counter
    durations = []
    begin = clock()
    for i in range(times):
        start = clock()
        action(i)
        end = clock()
        durations.append(end - start)
        if end - begin > at_most:
            break
    return durations


def quantile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


median = statistics.median
