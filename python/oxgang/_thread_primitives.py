"""The primitives of `oxgang.threading`: signatures here, state and waiting in Rust."""

from time import monotonic as _now

from oxgang import _core
from oxgang._core import RLock

__all__ = ["Barrier", "BoundedSemaphore", "Condition", "Event", "RLock", "Semaphore"]


class Condition(_core.ThreadCondition):
    """Waiting until told, under a lock; as `threading.Condition`.

    Args:
        lock: A lock of this module or the standard one, or anything that has `acquire` and
            `release`; default: a new `RLock`. With an `RLock` of this module a thread that was told
            is woken when the lock is free, and not before.

    Raises:
        RuntimeError: by `wait` and `notify`, if the caller does not have the lock.
    """

    def __init__(self, lock=None):
        if lock is None:
            lock = RLock()
        self._open(lock)
        self._lock = lock
        self.acquire = lock.acquire
        self.release = lock.release
        for seam in ("_release_save", "_acquire_restore", "_is_owned"):
            if hasattr(lock, seam):
                setattr(self, seam, getattr(lock, seam))

    def __enter__(self):
        return self._lock.__enter__()

    def __exit__(self, *exception):
        return self._lock.__exit__(*exception)

    def __repr__(self):
        return f"<Condition({self._lock}, {self._waiting()})>"

    def _release_save(self):
        self._lock.release()

    def _acquire_restore(self, _saved):
        self._lock.acquire()

    def _is_owned(self):
        if self._lock.acquire(False):
            self._lock.release()
            return False
        return True

    def _at_fork_reinit(self):
        self._lock._at_fork_reinit()
        self._forget_waiters()

    def wait_for(self, predicate, timeout=None):
        """Waits until `predicate()` is true, or `timeout` seconds have passed; its last value."""
        end = None if timeout is None else _now() + timeout
        left = timeout
        while not (value := predicate()):
            if end is not None:
                left = end - _now()
                if left <= 0:
                    break
            self.wait(left)
        return value

    def notifyAll(self):
        """Deprecated: `notify_all`."""
        _deprecated("notifyAll", "notify_all")
        self.notify_all()


class Semaphore(_core.ThreadSemaphore):
    """A count to take units of; as `threading.Semaphore`.

    Args:
        value: Units at the beginning.

    Raises:
        ValueError: `value` is negative.
    """

    def __init__(self, value=1):
        self._open(value, False)


class BoundedSemaphore(Semaphore):
    """A semaphore that never has more units than at the beginning; as
    `threading.BoundedSemaphore`.

    Args:
        value: Units at the beginning, and at most.

    Raises:
        ValueError: `value` is negative; by `release`, if there would be more than that.
    """

    def __init__(self, value=1):
        self._open(value, True)


class Event(_core.ThreadEvent):
    """A flag to wait for; as `threading.Event`."""

    def __init__(self):
        """Not set."""

    def isSet(self):
        """Deprecated: `is_set`."""
        _deprecated("isSet", "is_set")
        return self.is_set()


class Barrier(_core.ThreadBarrier):
    """Waits until a number of parties have come; as `threading.Barrier`.

    Args:
        parties: How many.
        action: Called by one of them when all have come, before any goes on.
        timeout: Seconds that `wait` waits if it is not told otherwise.

    Raises:
        ValueError: `parties` is less than one.
    """

    def __init__(self, parties, action=None, timeout=None):
        if parties < 1:
            raise ValueError("parties must be > 0")
        self._open(parties, action, timeout)


def _deprecated(old, new):
    import warnings

    warnings.warn(f"{old}() is deprecated, use {new}() instead", DeprecationWarning, stacklevel=3)
