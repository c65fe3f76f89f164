"""The worker's half of time limits. A module of its own, since a task that is to raise should not
wait for imports first: what it raises is defined here, and public as `oxgang.errors.TaskTimeout`.
"""

import os

# signal.py brings enum along, which a worker may never need
from _signal import SIG_DFL, signal

SOFT, DUMP = 1, 2  # skills, as oxgang-shm/src/oversight.rs has them
_DEEPEST = 100  # frames of a stack, as faulthandler


class TaskTimeout(TimeoutError):
    """A call ran longer than its time limit.

    In the task itself it is raised at the limit, so that the task can clean up; what it returns or
    raises then, within the grace, counts. A task that does not end by itself is ended with its
    worker, and the caller gets this with the task's stack.

    Attributes: ``limit`` (seconds), ``function`` (str), ``task_id`` (int), ``pid`` (int) where
    known, ``stack`` (str: where the task was), ``deaths`` (see `WorkerCrashed`).
    """

    function = task_id = pid = limit = None
    stack = ""
    deaths = ()

    def __init__(self, message="the task has reached its time limit", **facts):
        super().__init__(message)
        self.__dict__.update(facts)

    def __reduce__(self):
        if type(self) is not TaskTimeout:
            return super().__reduce__()
        # by this module's name: whoever unpickles it need not import oxgang.errors
        return rebuild, (self.args[0] if self.args else "", self.__dict__)


TaskTimeout.__module__ = "oxgang.errors"


def rebuild(message, facts):
    return TaskTimeout(message, **facts)


def arm(interrupt, stacks, soft, dump):
    """Lets the signal `soft` make the running task raise, and `dump` write the stacks to the
    descriptor `stacks` and end the process, also while C code holds the interpreter. Gives the
    skills that the process now has."""

    def stop(number, frame):
        limit = interrupt.due()
        if limit is not None:
            raise TaskTimeout(
                f"the task has reached its time limit of {limit:g} s",
                limit=limit,
                pid=os.getpid(),
                stack=stack_of(frame),
            )

    signal(soft, stop)
    if stacks is None:
        return SOFT
    import faulthandler

    # faulthandler hands the signal on to whoever had it before: to the default, which ends us.
    # A fork of a worker that is one itself has the parent's registration, and the parent's file.
    faulthandler.unregister(dump)
    signal(dump, SIG_DFL)
    faulthandler.register(dump, file=stacks, all_threads=True, chain=True)
    return SOFT | DUMP


def is_one_of(error, names):
    """Whether an ``except`` for the classes of these names, ``(module, qualname)``, would catch
    the error."""
    return any(
        (cls.__module__.replace("__mp_main__", "__main__"), cls.__qualname__) in names
        for cls in type(error).__mro__
    )


def stack_of(frame):
    """Where a thread is, the most recent call first, as faulthandler writes it."""
    lines = []
    while frame is not None and len(lines) < _DEEPEST:
        code = frame.f_code
        lines.append(f'  File "{code.co_filename}", line {frame.f_lineno} in {code.co_name}\n')
        frame = frame.f_back
    return "".join(lines)
