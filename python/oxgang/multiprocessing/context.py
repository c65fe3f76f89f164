"""`multiprocessing.context`: the standard contexts with the primitives of this package.

A context of ours is a context of the standard library, so whatever asks for one takes it. The
start method that is set for a program is one, whichever of the two modules set it.
"""

import threading
from multiprocessing import context as _standard
from multiprocessing.context import (
    AuthenticationError,
    BaseContext,
    BufferTooShort,
    ForkProcess,
    ForkServerProcess,
    Process,
    ProcessError,
    SpawnProcess,
    TimeoutError,
    assert_spawning,
    get_spawning_popen,
    set_spawning_popen,
)

__all__ = [
    "AuthenticationError",
    "BaseContext",
    "BufferTooShort",
    "DefaultContext",
    "ForkContext",
    "ForkProcess",
    "ForkServerContext",
    "ForkServerProcess",
    "Process",
    "ProcessError",
    "SpawnContext",
    "SpawnProcess",
    "TimeoutError",
    "assert_spawning",
    "get_spawning_popen",
    "set_spawning_popen",
]


class _Primitives:
    """What contexts make from this package."""

    def Lock(self, *, on_owner_death="log"):
        """A lock; see `oxgang.multiprocessing.synchronize.Lock`."""
        from oxgang.multiprocessing.synchronize import Lock

        return Lock(ctx=self.get_context(), on_owner_death=on_owner_death)

    def RLock(self, *, on_owner_death="log"):
        """A lock that its owner may take again."""
        from oxgang.multiprocessing.synchronize import RLock

        return RLock(ctx=self.get_context(), on_owner_death=on_owner_death)

    def Condition(self, lock=None):
        """Waiting until told, under a lock."""
        from oxgang.multiprocessing.synchronize import Condition

        return Condition(lock, ctx=self.get_context())

    def Semaphore(self, value=1, *, on_owner_death="log"):
        """A count to take units of."""
        from oxgang.multiprocessing.synchronize import Semaphore

        return Semaphore(value, ctx=self.get_context(), on_owner_death=on_owner_death)

    def BoundedSemaphore(self, value=1, *, on_owner_death="log"):
        """A semaphore that never has more units than at the beginning."""
        from oxgang.multiprocessing.synchronize import BoundedSemaphore

        return BoundedSemaphore(value, ctx=self.get_context(), on_owner_death=on_owner_death)

    def Event(self):
        """A flag to wait for."""
        from oxgang.multiprocessing.synchronize import Event

        return Event(ctx=self.get_context())

    def Barrier(self, parties, action=None, timeout=None):
        """Waits until a number of parties have come."""
        from oxgang.multiprocessing.synchronize import Barrier

        return Barrier(parties, action, timeout, ctx=self.get_context())

    def Queue(self, maxsize=0):
        """A queue of objects; see `oxgang.multiprocessing.queues.Queue`."""
        from oxgang.multiprocessing.queues import Queue

        return Queue(maxsize, ctx=self.get_context())

    def JoinableQueue(self, maxsize=0):
        """A queue whose items are reported done."""
        from oxgang.multiprocessing.queues import JoinableQueue

        return JoinableQueue(maxsize, ctx=self.get_context())

    def SimpleQueue(self):
        """A queue of objects without limits."""
        from oxgang.multiprocessing.queues import SimpleQueue

        return SimpleQueue(ctx=self.get_context())

    def Pipe(self, duplex=True):
        """Two connected ends; see `oxgang.multiprocessing.connection.Pipe`."""
        from oxgang.multiprocessing.connection import Pipe

        return Pipe(duplex)

    def RawValue(self, typecode_or_type, *args):
        """A ctypes object in shared memory."""
        from oxgang.multiprocessing.sharedctypes import RawValue

        return RawValue(typecode_or_type, *args)

    def RawArray(self, typecode_or_type, size_or_initializer):
        """A ctypes array in shared memory."""
        from oxgang.multiprocessing.sharedctypes import RawArray

        return RawArray(typecode_or_type, size_or_initializer)

    def Value(self, typecode_or_type, *args, lock=True):
        """A ctypes object in shared memory, with a lock."""
        from oxgang.multiprocessing.sharedctypes import Value

        return Value(typecode_or_type, *args, lock=lock, ctx=self.get_context())

    def Array(self, typecode_or_type, size_or_initializer, *, lock=True):
        """A ctypes array in shared memory, with a lock."""
        from oxgang.multiprocessing.sharedctypes import Array

        return Array(typecode_or_type, size_or_initializer, lock=lock, ctx=self.get_context())

    def Manager(self):
        """A started `SyncManager`: dicts, lists, queues, locks … in a process of their own."""
        from oxgang.multiprocessing.managers import SyncManager

        manager = SyncManager(ctx=self.get_context())
        manager.start()
        return manager

    def get_context(self, method=None):
        """The context of a start method; default: this one."""
        if method is None:
            return self
        try:
            context = _contexts[method]
        except KeyError:
            raise ValueError(f"cannot find context for {method!r}") from None
        context._check_available()
        return context


class ForkContext(_Primitives, _standard.ForkContext):
    """Children are forks of this process."""


class SpawnContext(_Primitives, _standard.SpawnContext):
    """Children are fresh interpreters."""


class ForkServerContext(_Primitives, _standard.ForkServerContext):
    """Children are forks of a server process."""


_contexts = {
    "fork": ForkContext(),
    "spawn": SpawnContext(),
    "forkserver": ForkServerContext(),
}


class DefaultContext(_Primitives, _standard.DefaultContext):
    """The context of a program: that of the start method that is set, by either module."""

    def __init__(self):
        self._lock = threading.Lock()

    def get_context(self, method=None):
        """The context of a start method; default: of the one that is set."""
        if method is None:
            method = _standard._default_context.get_start_method()
        return super().get_context(method)

    def set_start_method(self, method, force=False):
        """Sets the start method, for the standard module too."""
        _standard._default_context.set_start_method(method, force)

    def get_start_method(self, allow_none=False):
        """The start method that is set."""
        return _standard._default_context.get_start_method(allow_none)

    def get_all_start_methods(self):
        """The start methods of this platform, its own first."""
        return _standard._default_context.get_all_start_methods()


_default_context = DefaultContext()
