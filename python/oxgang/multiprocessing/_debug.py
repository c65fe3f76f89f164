"""``OXGANG_DEBUG=locks``: what is wrong with how a program takes its locks, told on stderr.

* A lock-order inversion: A was taken while B was held, and somewhere, sometime, B while A was. It
  need not have led to a deadlock yet. Told once for each pair, with the stacks of both.
* A deadlock: threads, of one process or several, that each hold a lock and wait for the next one's.
  Each of them tells its own part when it has waited for two slices, and waits on.

Loaded only then; without the variable nothing here exists.
"""

import os
import threading
import time

from oxgang import _core
from oxgang._telling import SLICE_S
from oxgang._telling import stack as _stack
from oxgang._telling import tell as _tell
from oxgang._telling import where as _where
from oxgang._telling import who as _who

_held = {}  # thread -> [(lock, stack where it took it)]
_orders = {}  # (lock, lock) -> stacks of where the first order was seen
_told = set()


def watch(cls):
    """Makes a lock class, and those below it, watched."""
    cls.acquire = _acquire
    cls.release = _release
    cls.__enter__ = _acquire
    cls.__exit__ = _exit


os.register_at_fork(after_in_child=_held.clear)


def _acquire(self, block=True, timeout=None):
    own = _held.setdefault(threading.get_ident(), [])
    stack = _stack()
    if block and not (self._recursive and self._is_mine()):
        for held, where in own:
            _check_order(held, where, self, stack)
    taken = _core.SharedLock.acquire(self, False) or (
        bool(block) and _wait(self, timeout, own, stack)
    )
    if taken:
        own.append((self, stack))
    return taken


def _release(self):
    _core.SharedLock.release(self)
    # mostly this thread's; but any thread may release a plain lock
    lists = [_held.get(threading.get_ident(), []), *_held.values()]
    for entries in lists:
        for place in range(len(entries) - 1, -1, -1):
            if entries[place][0] is self:
                del entries[place]
                return


def _exit(self, *_exception):
    self.release()


def _wait(lock, timeout, own, stack):
    end = None if timeout is None else time.monotonic() + timeout
    node = lock._announce()
    before = None
    told = False
    try:
        while True:
            left = SLICE_S if end is None else min(SLICE_S, end - time.monotonic())
            if _core.SharedLock.acquire(lock, True, left):
                return True
            if end is not None and time.monotonic() >= end:
                return False
            circle = lock._circle()
            if circle is not None and circle == before and not told:
                told = True
                _tell_deadlock(lock, circle, own, stack)
            before = circle
    finally:
        if node is not None:
            lock._retract(node)


def _name(lock, identity=None):
    _, slot = identity or lock._identity()
    return f"{'lock' if lock is None else type(lock).__name__} {slot}"


def _check_order(held, where, lock, stack):
    first, then = held._identity(), lock._identity()
    if first == then:
        return
    pair = frozenset((first, then))
    other = lock._leads_to(held)
    local = _orders.get((then, first))
    if (other is not None or local is not None) and pair not in _told:
        _told.add(pair)
        _tell_inversion((held, where), (lock, stack), other, local)
    held._precedes(lock)
    _orders.setdefault((first, then), (where, stack))


def _tell_inversion(first, then, other, local):
    (held, where), (lock, stack) = first, then
    lines = [
        f"oxgang: lock-order inversion: {_who()} takes {_name(lock)} while it holds "
        f"{_name(held)}; process {os.getpid() if other is None else other} took them the other "
        "way round"
    ]
    lines += _where(f"took {_name(held)}", where) + _where(f"takes {_name(lock)}", stack)
    if local is not None:
        lines += _where(f"had taken {_name(lock)}", local[0])
        lines += _where(f"and then {_name(held)}", local[1])
    _tell(lines)


def _tell_deadlock(lock, circle, own, stack):
    lines = [f"oxgang: deadlock: {_who()} waits for {_name(lock)}, and will for ever"]
    for pid, thread, identity in circle:
        lines.append(f"  thread {thread} of process {pid} holds {_name(None, identity)}")
    lines += _where(f"waits for {_name(lock)}", stack)
    for held, where in own:
        lines += _where(f"holds {_name(held)}, taken", where)
    _tell(lines)
