"""Coroutines that run side by side on a loop, and what ends them early.

# What becomes of a run

| a run | when | what happens |
|---|---|---|
| goes on | it returns or raises | that is told |
| | its limit | it is cancelled (*asked*), with where it was noted down |
| | `terminate` | it is cancelled (*asked*) |
| asked | it ends by that cancellation | `TaskTimeout`, or that it was terminated, is told |
| | it returns, or raises something else | that is told |
| | the grace after a limit | `TaskTimeout` is told now; what comes later is dropped (*abandoned*) |

All of it happens in the loop's thread. A loop that stands still, since a coroutine blocks it,
does none of it: see `_watchdog`.
"""

import asyncio
import os
from inspect import CO_COROUTINE
from types import FunctionType

from oxgang._limits import TaskTimeout
from oxgang._options import GRACE_S
from oxgang.asyncio._calls import name_of, outcome

TERMINATED = object()  # what is told of a run that `terminate` has ended


class _Run:
    __slots__ = ("asked", "bare", "fn", "grace", "key", "limit", "stack", "task", "timer")

    def __init__(self, key, fn, limit, grace):
        self.key = key
        self.fn = fn
        self.limit = limit
        self.grace = grace
        self.asked = None
        self.stack = ""
        self.task = self.timer = None


class Runs:
    """The coroutines that run on a loop.

    Args:
        loop: The loop.
        tell: Called with a run's key, whether it returned, and its value or its error.
    """

    def __init__(self, loop, tell):
        self.loop = loop
        self.tell = tell
        self.by_key = {}
        self.by_task = {}
        self.abandoned = set()
        self._is_over = self._over  # made once

    def begin(self, key, fn, args, kwargs, *, context=None, limit=None, grace=GRACE_S):
        """Runs a call; of the key is told later."""
        run = _Run(key, fn, limit, grace)
        coroutine = _coroutine(fn, args, kwargs)
        run.bare = coroutine is not None
        if coroutine is None:
            coroutine = outcome(fn, args, kwargs)
        if context is None:
            task = self.loop.create_task(coroutine)
        else:
            task = self.loop.create_task(coroutine, context=context)
        run.task = task
        self.by_key[key] = self.by_task[task] = run
        task.add_done_callback(self._is_over)
        if limit is not None:
            run.timer = self.loop.call_later(limit, self._ask, run)

    def terminate(self, key):
        """Cancels a run, if it goes on."""
        run = self.by_key.get(key)
        if run is not None and run.asked is None:
            run.asked = TERMINATED
            run.task.cancel()

    def cancel_all(self):
        """Cancels all; nothing more is told."""
        for run in list(self.by_key.values()):
            if run.timer is not None:
                run.timer.cancel()
            self._abandon_run(run)
            run.task.cancel()

    def name_of_task(self, task):
        """What runs in a task."""
        run = self.by_task.get(task)
        if run is not None:
            return name_of(run.fn)
        coroutine = task.get_coro()
        return getattr(coroutine, "__qualname__", None) or repr(coroutine)

    def _ask(self, run):
        run.asked = TaskTimeout
        run.stack = stack_of_coroutine(run.task.get_coro())
        run.timer = self.loop.call_later(run.grace, self._give_up, run)
        run.task.cancel()

    def _give_up(self, run):
        self._abandon_run(run)
        self.tell(run.key, False, _too_long(run))

    def _abandon_run(self, run):
        del self.by_key[run.key]
        self.abandoned.add(run.task)  # or the task, which only the loop knows, might be garbage

    def _over(self, task):
        run = self.by_task.pop(task)
        if task in self.abandoned:
            self.abandoned.remove(task)
            if not task.cancelled():
                task.exception()  # told to nobody, on purpose
            return
        del self.by_key[run.key]
        if run.timer is not None:
            run.timer.cancel()
        if not task.cancelled():
            error = task.exception()
            if error is not None:
                done, value = False, error
            else:
                done, value = (True, task.result()) if run.bare else task.result()
        elif run.asked is TaskTimeout:
            done, value = False, _timeout(run)
        elif run.asked is TERMINATED:
            done, value = False, TERMINATED
        else:
            done, value = False, _cancellation(task)
        del task
        self.tell(run.key, done, value)


def _coroutine(fn, args, kwargs):
    """The coroutine of a call, where that alone will do; else None."""
    if type(fn) is not FunctionType or not fn.__code__.co_flags & CO_COROUTINE:
        return None
    try:
        return fn(*args, **kwargs)  # nothing of it runs yet
    except TypeError:
        return None  # other arguments than it takes: told as any failure


def _cancellation(task):
    """A coroutine that cancels itself: what it raised."""
    try:
        task.result()
    except asyncio.CancelledError as error:
        return error


def _timeout(run):
    return TaskTimeout(
        f"the task has reached its time limit of {run.limit:g} s",
        limit=run.limit,
        function=name_of(run.fn),
        pid=os.getpid(),
        stack=run.stack,
    )


def _too_long(run):
    name, stack = name_of(run.fn), stack_of_coroutine(run.task.get_coro())
    error = TaskTimeout(
        f"{name} ran longer than its time limit of {run.limit:g} s and did not stop within "
        f"{run.grace:g} s more: it goes on although it was cancelled, and what it returns is "
        "dropped",
        limit=run.limit,
        function=name,
        pid=os.getpid(),
        stack=stack,
    )
    error.add_note(f"Where the task was:\n{stack.rstrip()}")
    return error


def stack_of_coroutine(coroutine):
    """Where a coroutine waits, the most recent call first, as `stack_of` writes it."""
    lines = []
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
        if frame is not None and frame.f_code is not outcome.__code__:
            code = frame.f_code
            lines.append(f'  File "{code.co_filename}", line {frame.f_lineno} in {code.co_name}\n')
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "gi_yieldfrom", None)
    return "".join(reversed(lines))


def run_until_stopped(loop, is_over):
    """Runs the loop until it is stopped because it `is_over`. Ctrl-C and `SystemExit` out of a task
    are that task's: the loop goes on."""
    while not is_over():
        try:
            loop.run_forever()
        except (KeyboardInterrupt, SystemExit):
            continue


def close(loop, patience):
    """Cancels what is left on a loop, for `patience` seconds at most, and closes it. What goes on
    nevertheless is left alone; its names."""
    stubborn = []
    try:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            stubborn = [repr(task.get_coro()) for task in _run_out(loop, left, patience)]
        _finish(loop, loop.shutdown_asyncgens(), patience)
        _finish(loop, loop.shutdown_default_executor(), patience)
    finally:
        asyncio.set_event_loop(None)
        loop.close()
    return stubborn


def _run_out(loop, tasks, patience):
    waiting = asyncio.wait(tasks, timeout=patience)
    _done, pending = _complete(loop, loop.create_task(waiting))
    for task in _done:
        if not task.cancelled():
            task.exception()
    for task in pending:
        task._log_destroy_pending = False  # said by the one line about it
    return pending


def _finish(loop, coroutine, patience):
    async def within():
        try:
            async with asyncio.timeout(patience):
                await coroutine
        except TimeoutError:
            return

    _complete(loop, loop.create_task(within()))


def _complete(loop, task):
    """As `run_until_complete`, whatever other tasks raise."""
    while True:
        try:
            return loop.run_until_complete(task)
        except (KeyboardInterrupt, SystemExit):
            if task.done():
                return task.result()
