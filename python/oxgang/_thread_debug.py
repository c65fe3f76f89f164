"""``OXGANG_DEBUG=locks``: what is wrong with how threads take their locks, told on stderr.

* A lock-order inversion: A was taken while B was held, and at some time B while A was. Told once
  for each pair.
* A deadlock: threads that each hold a lock and wait for the next one's. Told by each of them.
* A lock that is never released: somebody waits for it, and the thread that took it has ended; or
  the program ends, and it is still held.

`oxgang.threading` then has the `Lock` and `RLock` of this module, which know who has them and where
they were taken. Loaded only then.
"""

import _thread
import atexit
import sys
import threading
import time
from traceback import extract_stack

from oxgang._telling import SLICE_S, stack, tell, where, who

PATIENCE = 20  # slices, where the wait may be for a signal

_held = {}  # thread -> [(lock, stack where it took it)]
_waits = {}  # thread -> the lock that it waits for
_orders = {}  # (lock, lock) -> stacks of where that order was seen
_told = set()


class _Watched:
    """What `Lock` and `RLock` have in common."""

    _make = _thread.allocate_lock

    def __init__(self):
        self._inner = type(self)._make()
        self._owner = None
        self._depth = 0
        self._taken = []
        made = extract_stack(sys._getframe(1), limit=1)[0]
        self._name = f"{type(self).__name__} made at {made.filename}:{made.lineno}"
        _all[id(self)] = _reference(self)

    def __repr__(self):
        state = "locked" if self._owner is not None else "unlocked"
        kind = f"{type(self).__module__}.{type(self).__qualname__}"
        facts = f"owner={self._owner or 0} count={self._depth}"
        return f"<{state} {kind} object {facts} at {id(self):#x}>"

    def acquire(self, blocking=True, timeout=-1):
        """As the lock that it stands in for."""
        me = threading.get_ident()
        own = _held.setdefault(me, [])
        if self._recursive and self._owner == me:
            taken = self._inner.acquire(blocking, timeout)
            self._depth += 1
            return taken
        here = stack()
        if blocking:
            for held, since in list(own):
                _check_order(held, since, self, here)
        if not blocking or (timeout != -1 and not 0 < timeout <= threading.TIMEOUT_MAX):
            taken = self._inner.acquire(blocking, timeout)  # which says what is wrong with it
        else:
            taken = self._inner.acquire(False) or self._wait(me, timeout, own, here)
        if taken:
            self._owner, self._depth, self._taken = me, 1, here
            own.append((self, here))
        return taken

    __enter__ = acquire

    def release(self):
        """As the lock that it stands in for."""
        owner = self._owner
        if self._recursive and owner != threading.get_ident():
            raise RuntimeError("cannot release un-acquired lock")
        if self._depth > 1:
            self._depth -= 1
        elif owner is not None:
            self._forget(owner)
        self._inner.release()

    def __exit__(self, *_exception):
        self.release()

    def _forget(self, owner):
        entries = _held.get(owner, [])
        for place in range(len(entries) - 1, -1, -1):
            if entries[place][0] is self:
                del entries[place]
                break
        self._owner, self._depth = None, 0

    def _wait(self, me, timeout, own, here):
        end = None if timeout == -1 else time.monotonic() + timeout
        before, seen = None, 0
        _waits[me] = self
        try:
            while True:
                left = SLICE_S if end is None else min(SLICE_S, max(end - time.monotonic(), 0))
                if self._inner.acquire(True, left):
                    return True
                if end is not None and time.monotonic() >= end:
                    return False
                found = self._circle(me)
                seen = seen + 1 if found and found == before else 0
                before = found
                if seen == (PATIENCE if found and _may_be_signal(found) else 1):
                    self._tell_stuck(found, own, here)
        finally:
            _waits.pop(me, None)

    def _circle(self, me):
        """The locks that this thread waits for, one by way of the other: back to one of its own,
        or to one whose thread has ended."""
        circle, lock = [], self
        while lock is not None and lock not in circle:
            circle.append(lock)
            owner = lock._owner
            if owner is None:
                return None
            if owner == me or owner not in sys._current_frames():
                return [(one, one._owner) for one in circle]
            lock = _waits.get(owner)
        return None

    def _tell_stuck(self, found, own, here):
        me = threading.get_ident()
        last, owner = found[-1]
        for_ever = "and will for ever"
        if _may_be_signal(found):
            for_ever += ", unless another thread releases it"
        if owner == me:
            lines = [f"oxgang: deadlock: {who()} waits for {self._name}, {for_ever}"]
        else:
            stuck = f"{who()} waits for {self._name}, {for_ever}"
            lines = [f"oxgang: never released: {last._name}; {stuck}"]
        for lock, thread in found:
            lines += where(f"{lock._name} is held by {_thread_name(thread)}, taken", lock._taken)
        lines += where(f"waits for {self._name}", here)
        for held, since in own:
            lines += where(f"holds {held._name}, taken", since)
        tell(lines)

    def _at_fork_reinit(self):
        self._inner._at_fork_reinit()
        self._owner, self._depth = None, 0


class Lock(_Watched):
    """A lock; as `threading.Lock`, watched."""

    _recursive = False

    def locked(self):
        """Whether somebody has it."""
        return self._inner.locked()


class RLock(_Watched):
    """A lock that its thread may take again; as `threading.RLock`, watched."""

    _recursive = True
    _make = _thread.RLock

    def _is_owned(self):
        return self._owner == threading.get_ident()

    def _recursion_count(self):
        return self._depth if self._is_owned() else 0

    def _release_save(self):
        if not self._is_owned():
            raise RuntimeError("cannot release un-acquired lock")
        depth = self._depth
        self._forget(self._owner)
        return depth, self._inner._release_save()

    def _acquire_restore(self, state):
        depth, saved = state
        self._inner._acquire_restore(saved)
        self._owner, self._depth, self._taken = threading.get_ident(), depth, stack()
        _held.setdefault(self._owner, []).append((self, self._taken))


_all = {}  # identity -> weak reference: a lock need not be hashable by its class's wish


def _reference(lock):
    from weakref import ref

    identity = id(lock)
    return ref(lock, lambda _: _all.pop(identity, None))


def _may_be_signal(found):
    """Whether who waits may be waiting for a plain lock as for a signal: one that it has itself, or
    that was left behind; any thread may release that."""
    last, owner = found[-1]
    alone = len(found) == 1 or owner not in sys._current_frames()
    return alone and not last._recursive


def _thread_name(ident):
    for thread in threading.enumerate():
        if thread.ident == ident:
            return f"thread {thread.name}"
    return f"thread {ident}, which has ended"


def _check_order(held, since, lock, here):
    if held is lock:
        return
    first, then = id(held), id(lock)
    pair = frozenset((first, then))
    other = _orders.get((then, first))
    if other is not None and pair not in _told and other[2]() is lock and other[3]() is held:
        _told.add(pair)
        lines = [
            f"oxgang: lock-order inversion: {who()} takes {lock._name} while it holds "
            f"{held._name}; they were taken the other way round before"
        ]
        lines += where(f"took {held._name}", since) + where(f"takes {lock._name}", here)
        lines += where(f"had taken {lock._name}", other[0])
        lines += where(f"and then {held._name}", other[1])
        tell(lines)
    known = _orders.get((first, then))
    if known is None or known[2]() is not held or known[3]() is not lock:
        _orders[first, then] = since, here, _all[first], _all[then]


@atexit.register
def _tell_held():
    for reference in list(_all.values()):
        lock = reference()
        if lock is not None and lock._owner is not None:
            thread = _thread_name(lock._owner)
            lines = [f"oxgang: never released: {lock._name} is still held by {thread} at the end"]
            tell(lines + where("taken", lock._taken))
