"""`oxgang.TaskGroup`: tasks in threads or processes that end together.

States of a group, guarded by its lock:

| state | left by | to |
|---|---|---|
| open | a task fails, `cancel`, the deadline, an exception leaves the block | stopping |
| | the block ends and every task is done | over |
| stopping | every task is done | over |

On the way to *stopping* what has not begun is cancelled, workers of running tasks in processes are
ended, and running tasks in threads are told to raise `TaskCancelled` in their Python code. That
happens once, so a thread that has left its task afterwards is told nothing any more.

The exception may come between any two steps of Python in a thread that runs a task, those of the
group's own books too. So the lock is entered itself, and is the core's: its `__enter__` is no
Python. After that of the condition, or of a lock of Python, the exception could come between the
taking and the ``with``, and nobody would give the lock back.
"""

import ctypes
import threading
from concurrent.futures import CancelledError, Future
from time import monotonic

from oxgang._core import RLock
from oxgang.errors import TaskCancelled, TaskTerminated
from oxgang.threading import Condition

_tell_thread = ctypes.pythonapi.PyThreadState_SetAsyncExc

MOST_THREADS = 1000


class TaskGroup:
    """Tasks that end together: a ``with`` block that waits for the tasks that were started in it.

    The first task that fails stops the others, and leaving the block raises an `ExceptionGroup` of
    the failures. An exception in the block itself stops all tasks, and is part of the group if
    tasks have failed; else it is raised as it is.

    In processes stopping ends workers at once. In threads it raises `oxgang.errors.TaskCancelled`
    in the tasks' Python code; a call that does not return to Python is waited for.

    Args:
        model: "process", "thread" or "auto", as for `oxgang.Executor`.
        max_workers: Tasks at a time; default: as for `oxgang.Executor`, and no limit for threads.
        deadline: Seconds from entering the block; then all tasks are stopped, and a `TimeoutError`
            is among the failures.
        executor: Runs the tasks in place of workers of the group's own, and stays open: an
            `oxgang.Executor` or one of `oxgang.concurrent.futures`.
        options: More arguments for the group's own `oxgang.Executor`.

    Raises:
        ValueError: the deadline is negative; an executor and options for one are given.
        TypeError: the executor is not one of oxgang's, so its running tasks could not be stopped.
    """

    def __init__(self, model="auto", max_workers=None, *, deadline=None, executor=None, **options):
        if executor is not None and (options or max_workers is not None or model != "auto"):
            raise ValueError("executor= brings its own workers: leave the other options out")
        if executor is not None and not hasattr(executor, "submit_with"):
            kind = type(executor)
            raise TypeError(
                f"a TaskGroup cannot stop tasks of a {kind.__module__}.{kind.__qualname__}; "
                "give it an oxgang.Executor, or a pool of oxgang.concurrent.futures"
            )
        if deadline is not None and deadline < 0:
            raise ValueError(f"deadline must be 0 or more seconds, not {deadline}")
        if model == "thread" and max_workers is None:
            max_workers = MOST_THREADS
        self._making = model, max_workers, options
        self._executor = executor
        self._owns = executor is None
        self._seconds = deadline
        self._lock = RLock()
        self._changed = Condition(self._lock)
        self._state = "new"
        self._left = set()  # futures that are not done
        self._threads = set()  # that run a task
        self._errors = []

    def __enter__(self):
        if self._state != "new":
            raise RuntimeError("a TaskGroup can be entered once; make a new one")
        if self._owns:
            from oxgang._executor import Executor

            model, max_workers, options = self._making
            self._executor = Executor(model, max_workers, **options)
        self._end = None if self._seconds is None else monotonic() + self._seconds
        self._timer = None
        if self._end is not None:
            self._timer = threading.Timer(self._seconds, self._too_late)
            self._timer.daemon = True
            self._timer.start()
        self._state = "open"
        return self

    def start(self, fn, /, *args, **kwargs) -> Future:
        """Starts `fn(*args, **kwargs)`; its future. Tasks may start tasks, in threads.

        Raises:
            RuntimeError: the group is not entered, is over, or is stopping.
        """
        with self._lock:
            if self._state != "open":
                raise RuntimeError(_REFUSALS[self._state])
            if self._in_threads():
                future = self._executor.submit(self._run, fn, args, kwargs)
            else:
                future = self._executor.submit(fn, *args, **kwargs)
            self._left.add(future)
        future.add_done_callback(self._settle)
        return future

    def cancel(self) -> None:
        """Stops all tasks. That alone is no failure: leaving the block raises nothing for it."""
        self._stop()

    @property
    def stopping(self) -> bool:
        """Whether the tasks are being stopped: for tasks in threads that want to look."""
        return self._state == "stopping"

    def __exit__(self, kind, error, traceback):
        try:
            if error is not None:
                self._stop()
            self._wait()
        except BaseException:
            self._stop()
            self._finish(patient=False)
            raise
        self._finish(patient=True)
        errors = self._errors
        if error is not None:
            if not errors or not isinstance(error, Exception):
                return False
            errors = [error, *errors]
        if errors:
            try:
                raise BaseExceptionGroup("tasks of a group failed", errors)
            finally:
                self._errors = errors = error = None  # tracebacks know this frame
        return False

    def __repr__(self):
        return f"<oxgang.TaskGroup {self._state}, {len(self._left)} tasks left>"

    def _in_threads(self):
        from oxgang._core import ThreadPool

        pool = getattr(self._executor, "_pool", self._executor)
        return isinstance(pool, ThreadPool)

    def _wait(self):
        with self._lock:
            self._changed.wait_for(lambda: not self._left)
            if self._state == "open":
                self._state = "over"

    def _finish(self, patient):
        if self._timer is not None:
            self._timer.cancel()
        self._state = "over"
        if self._owns:
            self._executor.end(stop=not patient, wait=patient, cancel=True)

    def _too_late(self):
        late = f"the tasks of the group were not done within {self._seconds:g} s"
        self._stop(TimeoutError(late))

    def _stop(self, error=None):
        """Stops all tasks, if nobody has; `error`: what for."""
        with self._lock:
            if self._state != "open":
                return
            self._state = "stopping"
            if error is not None:
                self._errors.append(error)
            left = list(self._left)
            for thread in self._threads:
                _tell_thread(ctypes.c_ulong(thread), ctypes.py_object(TaskCancelled))
        in_threads = self._in_threads()
        for future in left:
            if not future.cancel() and not in_threads:
                future.terminate()

    def _settle(self, future):
        """A task is done."""
        try:
            failure = None if future.cancelled() else future.exception()
            if failure is not None:
                self._note(failure)
        finally:  # whatever became of the others: the block waits for this
            with self._lock:
                self._left.discard(future)
                self._changed.notify_all()

    def _note(self, failure):
        """A task has failed."""
        with self._lock:
            stopped = self._state != "open"
            if stopped and not isinstance(failure, _STOPPED):
                self._errors.append(failure)
        if not stopped:
            self._stop(failure)

    def _run(self, fn, args, kwargs):
        """A task in a thread."""
        own = threading.get_ident()
        try:
            with self._lock:
                if self._state != "open":
                    raise TaskCancelled("the group of the task is stopping")
                self._threads.add(own)
            return fn(*args, **kwargs)
        finally:
            self._leave(own)

    def _leave(self, own):
        while True:
            try:
                with self._lock:
                    self._threads.discard(own)
                    # nobody tells it any more; what it was told and has not raised is taken back
                    _tell_thread(ctypes.c_ulong(own), None)
                return
            except TaskCancelled:
                continue


_STOPPED = (TaskCancelled, TaskTerminated, CancelledError)
_REFUSALS = {
    "new": "enter the TaskGroup first: with oxgang.TaskGroup() as group",
    "stopping": "the group is stopping, since a task failed, or it was cancelled",
    "over": "the group is over",
}
