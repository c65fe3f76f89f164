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
import sys
from functools import partial
from inspect import CO_COROUTINE
from types import FunctionType

from oxgang import _core
from oxgang._limits import TaskTimeout
from oxgang._options import GRACE_S
from oxgang.asyncio._calls import name_of, outcome

TERMINATED = object()  # what is told of a run that `terminate` has ended


class _Watch:
    """What there is to know of a run that has a limit, or that was asked to end."""

    __slots__ = ("asked", "grace", "limit", "stack", "timer")

    def __init__(self, limit=None, grace=GRACE_S):
        self.limit = limit
        self.grace = grace
        self.asked = None
        self.stack = ""
        self.timer = None

    def stop(self):
        """Asks no more."""
        if self.timer is not None:
            self.timer.cancel()


class Runs:
    """The coroutines that run on a loop.

    Args:
        loop: The loop.
        tell: Called with a run's key, whether it returned, and its value or its error.
        news: What short plain values may be appended to instead, in pairs with their keys, if there
            is something in it: then somebody will take that out.
    """

    def __init__(self, loop, tell, news=None):
        self.loop = loop
        self.tell = tell
        self.by_key = {}
        self.watched = {}  # run -> _Watch, of those that have one
        self.abandoned = set()
        self._desk = _core.RunDesk(self.by_key, self.watched, self.abandoned, news, self._over)
        self._make_task = _task_maker(loop)

    def begin(self, key, fn, args, kwargs, *, context=None, limit=None, grace=GRACE_S):
        """Runs a call; of the key is told later, or, where a coroutine begins at once and does not
        wait, before this returns."""
        coroutine = _coroutine(fn, args, kwargs) or outcome(fn, args, kwargs)
        run = _core.Run(key, fn, coroutine, self._desk)
        self.by_key[key] = run
        if limit is not None:
            watch = self.watched[run] = _Watch(limit, grace)
            watch.timer = self.loop.call_later(limit, self._ask, run, watch)
        options = {} if context is None else {"context": context}
        try:
            run.task = self.task_maker()(run, **options)
        except Exception as error:  # a factory's; as `RunDesk.begin` has it
            coroutine.close()
            self._over(run, False, error)

    def begin_plain(self, make_task, key, fn, args):
        """Runs a call without a limit, of an `async def` if `is_bare`; `make_task`: `task_maker`
        just now."""
        if not self._desk.begin(make_task, key, fn, args):
            self.begin(key, fn, args, {})

    def task_maker(self):
        """What makes a task."""
        loop = self.loop
        return self._make_task if loop.get_task_factory() is None else loop.create_task

    def terminate(self, key):
        """Cancels a run, if it goes on."""
        run = self.by_key.get(key)
        if run is None:
            return
        watch = self.watched.get(run)
        if watch is None:
            watch = self.watched[run] = _Watch()
        if watch.asked is None:
            watch.asked = TERMINATED
            run.task.cancel()

    def cancel_all(self):
        """Cancels all; nothing more is told."""
        for run in list(self.by_key.values()):
            if run in self.watched:
                self.watched[run].stop()
            self._abandon_run(run)
            run.task.cancel()

    @staticmethod
    def name_of_task(task):
        """What runs in a task."""
        coroutine = task.get_coro()
        if type(coroutine) is _core.Run:
            return name_of(coroutine.function)
        return getattr(coroutine, "__qualname__", None) or repr(coroutine)

    def _ask(self, run, watch):
        watch.asked = TaskTimeout
        watch.stack = stack_of_coroutine(run)
        watch.timer = self.loop.call_later(watch.grace, self._give_up, run, watch)
        run.task.cancel()

    def _give_up(self, run, watch):
        self._abandon_run(run)
        self.tell(run.key, False, _too_long(run, watch))

    def _abandon_run(self, run):
        del self.by_key[run.key]
        self.watched.pop(run, None)
        self.abandoned.add(run)  # it has the task, which else only the loop knows

    def _over(self, run, done, value):
        # in the task's last step: see `_core.Run`
        if not done and (task := run.task) is not None:
            task.add_done_callback(_look_at)
        if run in self.abandoned:
            self.abandoned.remove(run)
            return
        key = run.key
        del self.by_key[key]
        if self.watched:
            watch = self.watched.pop(run, None)
            if watch is not None:
                watch.stop()
                if not done and isinstance(value, asyncio.CancelledError):
                    if watch.asked is TaskTimeout:
                        value = _timeout(run, watch)
                    elif watch.asked is TERMINATED:
                        value = TERMINATED
        self.tell(key, done, value)


def _task_maker(loop):
    """What makes a task where no factory is set."""
    if sys.version_info >= (3, 12):
        # one that begins at once, and not in the loop's next turn
        return partial(asyncio.Task, loop=loop, eager_start=True)
    if type(loop).create_task is asyncio.BaseEventLoop.create_task:
        return partial(asyncio.Task, loop=loop)  # which would do just that
    return loop.create_task


def _look_at(task):
    """Its error is known: asyncio need not log it."""
    if not task.cancelled():
        task.exception()


def is_bare(fn):
    """Whether it is an `async def` itself: a call of it runs nothing yet."""
    return type(fn) is FunctionType and bool(fn.__code__.co_flags & CO_COROUTINE)


def _coroutine(fn, args, kwargs):
    """The coroutine of a call, where that alone will do; else None."""
    if not is_bare(fn):
        return None
    try:
        return fn(*args, **kwargs)  # nothing of it runs yet
    except TypeError:
        return None  # other arguments than it takes: told as any failure


def _timeout(run, watch):
    return TaskTimeout(
        f"the task has reached its time limit of {watch.limit:g} s",
        limit=watch.limit,
        function=name_of(run.function),
        pid=os.getpid(),
        stack=watch.stack,
    )


def _too_long(run, watch):
    name, stack = name_of(run.function), stack_of_coroutine(run)
    error = TaskTimeout(
        f"{name} ran longer than its time limit of {watch.limit:g} s and did not stop within "
        f"{watch.grace:g} s more: it goes on although it was cancelled, and what it returns is "
        "dropped",
        limit=watch.limit,
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
