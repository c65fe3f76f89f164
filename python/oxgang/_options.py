"""`oxgang.TaskOptions`: what one call may take, and how often it is tried."""

from collections import namedtuple
from operator import index

from oxgang import _core, _sizes
from oxgang._limits import TaskTimeout

GRACE_S = 1.0
_NAMES = ("timeout", "timeout_grace", "memory_limit", "retries", "retry_on")


class TaskOptions(namedtuple("TaskOptions", _NAMES)):
    """What one call may take, and how often it is tried. Immutable; for `submit_with`.

    timeout: Seconds that the call may run, counted from when a worker begins it. Then it is
        asked to stop: `oxgang.errors.TaskTimeout` is raised inside it.
    timeout_grace: Seconds that it may go on after that (1 by default). Then its stack is written
        down, and its worker is ended.
    memory_limit: Bytes of memory that its worker may have while it runs, or a text such as
        "2GiB". If it has more, it is ended: `oxgang.errors.MemoryLimitExceeded`.
    retries: How many more times the call is run if it was lost with its worker, after a short,
        growing pause. It must be safe to repeat.
    retry_on: Exception classes (one, or a tuple) which the call may raise that are worth another
        try too. With `TaskTimeout` or `MemoryLimitExceeded`, or a class above them, so is an end
        by those limits.

    What is None is as the executor has it; ``float("inf")`` is no limit, whatever the executor has.

    Raises:
        ValueError: a number is out of range.
        TypeError: something is no number, size or exception class.
    """

    __slots__ = ()

    def __new__(
        cls, timeout=None, *, timeout_grace=None, memory_limit=None, retries=None, retry_on=None
    ):
        if timeout is not None:
            timeout = _seconds(timeout, "timeout", zero=False)
        if timeout_grace is not None:
            timeout_grace = _seconds(timeout_grace, "timeout_grace", zero=True)
        if memory_limit is not None and memory_limit != float("inf"):
            memory_limit = _sizes.parse(memory_limit)
        if retries is not None:
            retries = _count(retries)
        if retry_on is not None:
            retry_on = exception_classes(retry_on)
        return super().__new__(cls, timeout, timeout_grace, memory_limit, retries, retry_on)

    @classmethod
    def of_pool(cls, task_timeout, **options):
        """Those of a pool, or of a whole map, where the time limit is called `task_timeout`."""
        if task_timeout is not None:
            task_timeout = _seconds(task_timeout, "task_timeout", zero=False)
        return cls(task_timeout, **options)

    def over(self, default):
        """These, and where nothing is said, those of `default`."""
        pairs = zip(self, default, strict=True)
        return self._make(theirs if ours is None else ours for ours, theirs in pairs)

    def engine(self):
        """For the process engine; None if there is nothing that it must know."""
        timeout = None if self.timeout == float("inf") else self.timeout
        memory = None if self.memory_limit == float("inf") else self.memory_limit
        retries, retry_on = self.retries or 0, self.retry_on or ()
        if timeout is None and memory is None and not retries:
            return None
        retry_timeouts = issubclass(TaskTimeout, retry_on)
        retry_memory = issubclass(MemoryError, retry_on) or any(
            one.__name__ == "MemoryLimitExceeded" and one.__module__ == "oxgang.errors"
            for one in retry_on
        )
        sent = None
        if retries and retry_on:
            from oxgang._pickling import dumps

            # by name: a class that is sent by value would be another one there
            sent = dumps(frozenset((one.__module__, one.__qualname__) for one in retry_on))
        return _core.Options(
            timeout=timeout,
            grace=GRACE_S if self.timeout_grace is None else self.timeout_grace,
            memory=memory,
            retries=retries,
            retry_timeouts=bool(retries) and retry_timeouts,
            retry_memory=bool(retries) and retry_memory,
            retry_on=sent,
        )

    def for_threads(self):
        """For the thread engine; None if there is nothing that it must know."""
        if self.memory_limit not in (None, float("inf")):
            raise ValueError(
                "memory_limit is for processes: threads share their memory, and cannot be ended; "
                "use a process pool"
            )
        timeout = None if self.timeout == float("inf") else self.timeout
        retries = self.retries or 0
        if timeout is None and not (retries and self.retry_on):
            return None
        from oxgang import _thread_limits  # noqa: F401 - what it needs shall fail here, if it does

        return _core.ThreadOptions(
            timeout=timeout,
            grace=GRACE_S if self.timeout_grace is None else self.timeout_grace,
            retries=retries,
            retry_on=self.retry_on or (),
        )


def nothing():
    """For a call without limits in a pool that has some."""
    return _core.Options(
        timeout=None,
        grace=0.0,
        memory=None,
        retries=0,
        retry_timeouts=False,
        retry_memory=False,
        retry_on=None,
    )


def checked(options):
    """`options`, if they are a `TaskOptions`."""
    if not isinstance(options, TaskOptions):
        raise TypeError(
            "submit_with() takes oxgang.TaskOptions first, then the function; got "
            f"{type(options).__name__}"
        )
    return options


def _seconds(value, what, *, zero):
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = None
    if seconds is None or isinstance(value, str):
        raise TypeError(f"{what} must be a number of seconds, not {type(value).__name__}")
    if not (seconds > 0 or (zero and seconds == 0)):  # NaN is neither
        least = "0 or more" if zero else "more than 0"
        raise ValueError(f"{what} must be {least} seconds, not {value}")
    if seconds > 1e9:
        return float("inf") if not zero else 1e9  # beyond any clock
    return seconds


def _count(value):
    try:
        count = index(value)
    except TypeError:
        raise TypeError(f"retries must be a whole number, not {type(value).__name__}") from None
    if not 0 <= count < 1 << 32:
        raise ValueError(f"retries must be 0 or more, not {value}")
    return count


def exception_classes(value):
    """`value`, an exception class or a tuple of them, as a tuple.

    Raises:
        TypeError: it is neither.
    """
    classes = value if isinstance(value, tuple) else (value,)
    for one in classes:
        if not (isinstance(one, type) and issubclass(one, BaseException)):
            raise TypeError(
                f"retry_on must be an exception class or a tuple of them, not {value!r}"
            )
    return classes
