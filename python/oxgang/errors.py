"""What can go wrong, as classes. Each is also the standard class it stands in for."""

from concurrent.futures import BrokenExecutor
from concurrent.futures.process import BrokenProcessPool


class WorkerCrashed(BrokenProcessPool):
    """The worker that ran this task ended without an answer; the task is lost.

    Only this task: the pool goes on, and tasks that had not begun run elsewhere.
    What the task did before it died is unknown; submit it again only if it is safe to
    repeat (or ask for ``retries=``).

    Attributes: ``task_id`` (int), ``pid`` (int), ``exitcode`` (int; negative: the signal
    that killed it; None: not known), ``function`` (str).
    """

    def __init__(self, message, *, task_id=None, pid=None, exitcode=None, function=None):
        super().__init__(message)
        self.task_id = task_id
        self.pid = pid
        self.exitcode = exitcode
        self.function = function

    def __reduce__(self):
        return _rebuild_crash, (self.args[0], self.task_id, self.pid, self.exitcode, self.function)


def _rebuild_crash(message, task_id, pid, exitcode, function):
    return WorkerCrashed(message, task_id=task_id, pid=pid, exitcode=exitcode, function=function)


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


__all__ = ["BrokenExecutor", "BrokenProcessPool", "OwnerDied", "PayloadError", "WorkerCrashed"]
