"""What can go wrong, as classes. Each is also the standard class it stands in for."""

from concurrent.futures import BrokenExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import NamedTuple

from oxgang._limits import TaskTimeout
from oxgang._shut_down import ShutDown


class Death(NamedTuple):
    """How one worker ended that ran a task.

    ``exitcode``: as `multiprocessing` has it, negative for a signal; None: not known.
    ``seconds``: how long the task had run; None: nobody looked (the task has no limits and no
    retries). ``reason``: in words.
    """

    pid: int | None
    exitcode: int | None
    seconds: float | None
    reason: str


class _Lost:
    """What the exceptions for lost tasks have in common."""

    function = task_id = pid = exitcode = None
    stack = ""
    deaths = ()

    def __init__(self, message, **facts):
        super().__init__(message)
        self.__dict__.update(facts)


class WorkerCrashed(_Lost, BrokenProcessPool):
    """The worker that ran this task ended without an answer; the task is lost.

    Only this task: the pool goes on, and tasks that had not begun run elsewhere.
    What the task did before it died is unknown; submit it again only if it is safe to
    repeat (or ask for ``retries=``).

    Attributes: ``task_id`` (int), ``pid`` (int), ``exitcode`` (int; negative: the signal
    that killed it; None: not known), ``function`` (str), ``deaths`` (a `Death` for each try, the
    last one last), ``out_of_memory`` (True: the kernel killed it for want of memory; False: it
    did not; None: not known).
    """

    out_of_memory = None


class TaskTerminated(WorkerCrashed):
    """The task was running when `Future.terminate` was called; its worker was ended.

    Not a `CancelledError`: that one promises that the call never began, and this one has, and may
    have done half of its work. It is never tried again.
    """


class TaskCancelled(BaseException):
    """Raised in a task that runs in a thread when its `oxgang.TaskGroup` stops.

    Not an `Exception`, so that only who means it catches it: clean up, and let it pass.
    """


class MemoryLimitExceeded(_Lost, MemoryError):
    """The worker that ran this task had more memory than the task's limit; it was ended.

    Attributes: ``limit`` and ``used`` (bytes, `used` as it was when that was noticed), ``peak``
    (bytes: the most that the process ever had in RAM, or None), ``stack`` (where the task was),
    ``function``, ``task_id``, ``pid``, ``exitcode``, ``deaths`` (see `WorkerCrashed`).
    """

    limit = used = peak = None


class PayloadError(BrokenProcessPool):
    """A task's data arrived but could not be rebuilt: unpickling it raised.

    ``__cause__`` is what was raised. Only this task fails. Make the class of the object
    picklable both ways (``pickle.loads(pickle.dumps(obj))`` must work), or return plain data.
    """


class OwnerDied(RuntimeError):
    """A lock that asked for it (``on_owner_death="raise"``) was held by a process that died.

    The lock is not taken, and every `acquire` raises this until somebody has called its
    ``recover()``, which takes it: put right what the lock guards, then release it.

    Attributes: ``pid`` (int), the process that died.
    """

    def __init__(self, message, *, pid=None):
        super().__init__(message)
        self.pid = pid

    def __reduce__(self):
        return _rebuild_owner_died, (self.args[0], self.pid)


def _rebuild_owner_died(message, pid):
    return OwnerDied(message, pid=pid)


class ManagerDied(BrokenPipeError, ConnectionResetError, ConnectionRefusedError, EOFError):
    """The process of a manager ended, before the call of a proxy was answered or begun.

    It is each of the errors that the standard library raises then, by chance of the moment, so
    that handlers for any of them still fire. What the call did before the manager ended is not
    known, and what the manager held is gone: make a new manager and fill it anew.

    Attributes: ``pid`` (int or None: not known), the process that ended.
    """

    def __init__(self, message, *, pid=None):
        super().__init__(message)
        self.pid = pid

    def __reduce__(self):
        return _rebuild_manager_died, (self.args[0], self.pid)


def _rebuild_manager_died(message, pid):
    return ManagerDied(message, pid=pid)


__all__ = [
    "BrokenExecutor",
    "BrokenProcessPool",
    "Death",
    "ManagerDied",
    "MemoryLimitExceeded",
    "OwnerDied",
    "PayloadError",
    "ShutDown",
    "TaskCancelled",
    "TaskTerminated",
    "TaskTimeout",
    "WorkerCrashed",
]
