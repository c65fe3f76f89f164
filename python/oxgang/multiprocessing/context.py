"""`multiprocessing.context`: the standard contexts with what this package has of its own.

A context of ours is a context of the standard library, so whatever asks for one takes it. The
start method that is set for a program is one, whichever of the two modules set it last; it may be
set as often as one likes. One start method is our own: "template", a process that has imported
what the program uses and is forked for each child. It is chosen by name; the default is that of
the platform's Python.
"""

import sys
import threading
from multiprocessing import context as _standard
from multiprocessing.context import (
    AuthenticationError,
    BaseContext,
    BufferTooShort,
    ProcessError,
    TimeoutError,
    assert_spawning,
    get_spawning_popen,
    set_spawning_popen,
)

from oxgang.multiprocessing import process

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
    "TemplateContext",
    "TemplateProcess",
    "TimeoutError",
    "assert_spawning",
    "get_spawning_popen",
    "set_spawning_popen",
]


class Process(process.BaseProcess):
    """A process of the start method that is set; see `oxgang.multiprocessing.process`."""

    _start_method = None

    @staticmethod
    def _Popen(process_obj):
        return _default_context.get_context().Process._Popen(process_obj)


class ForkProcess(process.BaseProcess):
    """A process that is a fork of this one."""

    _start_method = "fork"

    @staticmethod
    def _Popen(process_obj):
        from oxgang.multiprocessing.popen_fork import Popen

        return Popen(process_obj)


class SpawnProcess(process.BaseProcess):
    """A process that is a fresh interpreter."""

    _start_method = "spawn"

    @staticmethod
    def _Popen(process_obj):
        from oxgang.multiprocessing.popen_spawn_posix import Popen

        return Popen(process_obj)


class ForkServerProcess(process.BaseProcess):
    """A process that is a fork of the standard library's fork server."""

    _start_method = "forkserver"

    @staticmethod
    def _Popen(process_obj):
        from oxgang.multiprocessing.popen_forkserver import Popen

        return Popen(process_obj)


class TemplateProcess(process.BaseProcess):
    """A process that is a fork of the program's template."""

    _start_method = None  # the standard module, which sets it in the child, does not know it

    @staticmethod
    def _Popen(process_obj):
        from oxgang.multiprocessing.popen_template import Popen

        return Popen(process_obj)

    def _bootstrap(self, parent_sentinel=None):
        _default_context.set_start_method("template")
        return super()._bootstrap(parent_sentinel)


class _Ours:
    """What contexts make from this package."""

    def Pool(
        self,
        processes=None,
        initializer=None,
        initargs=(),
        maxtasksperchild=None,
        *,
        task_timeout=None,
        timeout_grace=None,
        memory_limit=None,
        retries=0,
        retry_on=(),
    ):
        """A pool of processes; see `oxgang.multiprocessing.pool.Pool`."""
        from oxgang.multiprocessing.pool import Pool

        return Pool(
            processes,
            initializer,
            initargs,
            maxtasksperchild,
            self.get_context(),
            task_timeout=task_timeout,
            timeout_grace=timeout_grace,
            memory_limit=memory_limit,
            retries=retries,
            retry_on=retry_on,
        )

    def freeze_support(self):
        """Does what this process was started for, if the program is frozen and this is a child of
        it or a helper; see `oxgang.multiprocessing.spawn.freeze_support`."""
        if getattr(sys, "frozen", False):
            from oxgang.multiprocessing.spawn import freeze_support

            freeze_support()

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
            # others (loky) add theirs to the standard module's
            context = _contexts.get(method) or _standard._concrete_contexts[method]
        except KeyError:
            raise ValueError(f"cannot find context for {method!r}") from None
        context._check_available()
        return context


class ForkContext(_Ours, _standard.ForkContext):
    """Children are forks of this process."""

    Process = ForkProcess


class SpawnContext(_Ours, _standard.SpawnContext):
    """Children are fresh interpreters."""

    Process = SpawnProcess


class ForkServerContext(_Ours, _standard.ForkServerContext):
    """Children are forks of a server process."""

    Process = ForkServerProcess


class TemplateContext(_Ours, BaseContext):
    """Children are forks of a process that has imported what the program uses, and nothing else:
    as fast as forks, and with nothing of this process in them."""

    _name = "template"
    Process = TemplateProcess


_contexts = {
    "fork": ForkContext(),
    "spawn": SpawnContext(),
    "forkserver": ForkServerContext(),
    "template": TemplateContext(),
}


class DefaultContext(_Ours, _standard.DefaultContext):
    """The context of a program: that of the start method that is set, by either module."""

    Process = Process

    def __init__(self):
        self._lock = threading.Lock()
        self._template_since = None  # what the standard module had set when "template" was

    def get_context(self, method=None):
        """The context of a start method; default: of the one that is set."""
        if method is None:
            method = self.get_start_method()
        return super().get_context(method)

    def set_start_method(self, method, force=False):
        """Sets the start method, for the standard module too unless it is "template". It may be
        set again at any time (`force` is accepted, and makes no difference); None: the platform's.

        Raises:
            ValueError: There is no such start method.
        """
        chosen = _standard._default_context
        with self._lock:
            if method == "template":
                chosen.get_start_method()  # what is not settled yet is the platform's
                self._template_since = chosen._actual_context
            else:
                chosen.set_start_method(method, force=True)
                self._template_since = None

    def get_start_method(self, allow_none=False):
        """The start method that is set."""
        chosen = _standard._default_context
        since = self._template_since
        if since is not None and since is chosen._actual_context:
            return "template"
        return chosen.get_start_method(allow_none)

    def get_all_start_methods(self):
        """The start methods of this platform that the standard library has, its own first."""
        return _standard._default_context.get_all_start_methods()


_default_context = DefaultContext()
