"""`multiprocessing.synchronize`: locks and their kin that survive the processes that use them.

The classes have the standard signatures. What they add:

* The death of a process that holds a lock or units of a semaphore gives them back: the next who
  wants them gets them, and the death is logged once. ``Lock(on_owner_death="raise")`` makes it
  an `oxgang.errors.OwnerDied` instead, until somebody calls `recover`.
* They pass to children of any start method, whatever context made them, and as arguments of tasks
  to the workers of pools.
* Taking and releasing what nobody else wants makes no system call.
"""

import threading
import time

from oxgang import _core, _telling
from oxgang.multiprocessing import _passing

__all__ = ["Barrier", "BoundedSemaphore", "Condition", "Event", "Lock", "RLock", "Semaphore"]

RECURSIVE_MUTEX, SEMAPHORE = 0, 1
SEM_VALUE_MAX = 2**31 - 1


def _own_name():
    from multiprocessing import process

    name = process.current_process().name
    thread = threading.current_thread()
    return name if thread is threading.main_thread() else f"{name}|{thread.name}"


def _policy(value, choices):
    if value not in choices:
        raise ValueError(f"on_owner_death must be one of {', '.join(choices)}; not {value!r}")
    return value


class Lock(_core.SharedLock):
    """A lock between processes; as `multiprocessing.Lock`.

    Any thread of any process may release it.

    Args:
        on_owner_death: What becomes of it when the process that holds it dies. ``"log"``: the next
            `acquire` succeeds, and a warning is logged to ``oxgang.multiprocessing``. ``"raise"``:
            `acquire` raises `oxgang.errors.OwnerDied` until `recover` was called.

    Raises:
        ValueError: by `release`, if nobody holds it.
    """

    _recursive = False
    kind = SEMAPHORE
    maxvalue = 1

    def __new__(cls, *, ctx=None, on_owner_death="log"):
        tells = _policy(on_owner_death, ("log", "raise")) == "raise"
        return super().__new__(cls, cls._recursive, tells)

    @classmethod
    def _attach(cls, address, inherited):
        return _core.SharedLock.__new__(cls, cls._recursive, False, address, inherited)

    def __reduce__(self):
        return _passing.reduce(type(self), self)

    @property
    def _semlock(self):
        return self

    def __repr__(self):
        if self._is_mine():
            owner = _own_name()
        elif self._get_value() == 1:
            owner = "None"
        else:
            owner = "SomeOtherThread" if self._count() else "SomeOtherProcess"
        return f"<{type(self).__name__}(owner={owner})>"


class RLock(Lock):
    """A lock that its owner, a thread of a process, may take again; as `multiprocessing.RLock`.

    It is also free again when the thread that holds it has ended.

    Args:
        on_owner_death: As for `Lock`.

    Raises:
        AssertionError: by `release`, if the caller does not hold it.
    """

    _recursive = True
    kind = RECURSIVE_MUTEX

    def __repr__(self):
        if self._is_mine():
            state = f"{_own_name()}, {self._count()}"
        elif self._get_value() == 1:
            state = "None, 0"
        else:
            owner = "SomeOtherThread" if self._count() else "SomeOtherProcess"
            state = f"{owner}, nonzero"
        return f"<{type(self).__name__}({state})>"


class Semaphore(_core.SharedSemaphore):
    """A count to take units of; as `multiprocessing.Semaphore`.

    Args:
        value: Units at the beginning.
        on_owner_death: ``"log"``: units that a process has taken and not given back come back when
            it dies, and a warning is logged. This holds while every process gives only what it has
            taken: the first that gives more uses the units as signals, which have no owner, and
            from then on nothing comes back. ``"ignore"``: units have no owner from the beginning.

    Raises:
        ValueError: `value` is negative or more than `SEM_VALUE_MAX`; by `release`, if there are as
            many as there can be.
    """

    kind = SEMAPHORE

    def __new__(cls, value=1, *, ctx=None, on_owner_death="log"):
        owned = _policy(on_owner_death, ("log", "ignore")) == "log"
        return super().__new__(cls, value, cls._most(value), owned)

    @classmethod
    def _most(cls, value):
        return SEM_VALUE_MAX

    @classmethod
    def _attach(cls, address, inherited):
        return _core.SharedSemaphore.__new__(cls, 0, 0, False, address, inherited)

    def __reduce__(self):
        return _passing.reduce(type(self), self)

    @property
    def _semlock(self):
        return self

    def get_value(self):
        """The number of units there are now."""
        return self._get_value()

    def __repr__(self):
        return f"<{type(self).__name__}(value={self._get_value()})>"


class BoundedSemaphore(Semaphore):
    """A semaphore that never has more units than at the beginning; as
    `multiprocessing.BoundedSemaphore`.

    Args:
        value: Units at the beginning, and at most.
        on_owner_death: As for `Semaphore`.

    Raises:
        ValueError: by `release`, if none has been taken.
    """

    @classmethod
    def _most(cls, value):
        return value

    def __repr__(self):
        return f"<{type(self).__name__}(value={self._get_value()}, maxvalue={self.maxvalue})>"


class Condition:
    """Waiting until told, under a lock; as `multiprocessing.Condition`.

    A call that was for a process that has died goes to another one that waits.

    Args:
        lock: A `Lock` or `RLock` of this module; default: a new `RLock`.

    Raises:
        TypeError: `lock` is something else.
        AssertionError: by `wait` and `notify`, if the caller does not hold the lock.
    """

    def __init__(self, lock=None, *, ctx=None):
        if lock is None:
            lock = RLock()
        if not isinstance(lock, _core.SharedLock):
            raise TypeError(
                "the lock of a Condition must be a Lock or RLock of oxgang.multiprocessing, "
                f"not {type(lock).__name__}"
            )
        self._open(lock, _core.SharedCondition())

    def _open(self, lock, core):
        self._lock = lock
        self._core = core
        self.acquire = lock.acquire
        self.release = lock.release

    @classmethod
    def _attach(cls, address, inherited, lock):
        made = cls.__new__(cls)
        made._open(lock, _core.SharedCondition(address, inherited))
        return made

    def __reduce__(self):
        return _passing.reduce(type(self), self._core, self._lock)

    def __enter__(self):
        return self._lock.__enter__()

    def __exit__(self, *exception):
        return self._lock.__exit__(*exception)

    def __repr__(self):
        return f"<{type(self).__name__}({self._lock}, {self._core.waiters()})>"

    def wait(self, timeout=None):
        """Releases the lock, waits to be told, takes it again; False if `timeout` seconds passed
        first."""
        return self._core.wait(self._lock, timeout)

    def wait_for(self, predicate, timeout=None):
        """Waits until `predicate()` is true, or `timeout` seconds have passed; its last value."""
        end = None if timeout is None else time.monotonic() + timeout
        while not (value := predicate()):
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                return value
            self.wait(left)
        return value

    def notify(self, n=1):
        """Tells up to `n` of those who wait, the longest waiting first."""
        self._core.notify(self._lock, max(n, 0))

    def notify_all(self):
        """Tells all who wait."""
        self._core.notify(self._lock, SEM_VALUE_MAX)


class Event(_core.SharedEvent):
    """A flag to wait for; as `multiprocessing.Event`.

    `wait` also returns True if the flag was set meanwhile and cleared again.
    """

    def __new__(cls, *, ctx=None):
        return super().__new__(cls)

    @classmethod
    def _attach(cls, address, inherited):
        return _core.SharedEvent.__new__(cls, address, inherited)

    def __reduce__(self):
        return _passing.reduce(type(self), self)

    def __repr__(self):
        state = "set" if self.is_set() else "unset"
        return f"<{type(self).__qualname__} at {id(self):#x} {state}>"


class Barrier:
    """Waits until a number of parties have come; as `multiprocessing.Barrier`.

    It breaks if a party dies while it waits: the others get `threading.BrokenBarrierError`.

    Args:
        parties: How many.
        action: Called by one of them when all have come.
        timeout: Seconds that `wait` waits if it is not told otherwise.

    Raises:
        ValueError: `parties` is less than one.
    """

    def __init__(self, parties, action=None, timeout=None, *, ctx=None):
        if parties < 1:
            raise ValueError("parties must be >= 1")
        self._open(_core.SharedBarrier(parties), action, timeout)

    def _open(self, core, action, timeout):
        self._core = core
        self._action = action
        self._timeout = timeout

    @classmethod
    def _attach(cls, address, inherited, action, timeout):
        made = cls.__new__(cls)
        made._open(_core.SharedBarrier(0, address, inherited), action, timeout)
        return made

    def __reduce__(self):
        return _passing.reduce(type(self), self._core, self._action, self._timeout)

    def wait(self, timeout=None):
        """Waits for the others; a number from 0 to parties - 1, another for each.

        Raises:
            threading.BrokenBarrierError: it is, or gets, broken or reset, or time is up.
        """
        return self._core.wait(self._action, self._timeout if timeout is None else timeout)

    def reset(self):
        """Makes it as new; who waits gets `BrokenBarrierError`."""
        self._core.reset()

    def abort(self):
        """Breaks it; who waits, and who comes, gets `BrokenBarrierError`."""
        self._core.abort()

    @property
    def parties(self):
        """How many must come."""
        return self._core.parties

    @property
    def n_waiting(self):
        """How many have come and wait."""
        return self._core.n_waiting

    @property
    def broken(self):
        """Whether it is broken."""
        return self._core.broken

    def __repr__(self):
        state = "broken" if self.broken else f"waiters={self.n_waiting}/{self.parties}"
        return f"<{type(self).__qualname__} at {id(self):#x}: {state}>"


if _telling.wanted():
    from oxgang.multiprocessing import _debug

    _debug.watch(Lock)
