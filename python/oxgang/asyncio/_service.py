"""The thread behind a pool of coroutines: a loop, a line of calls, and their books.

All of the books belong to the loop's thread. Others put calls and orders into an inbox (one wake-up
for any number of them) and wait for futures; nothing else is shared.

# A call

| a call is | left when | it is then |
|---|---|---|
| in the inbox, in the line | its turn comes and there is room | begun |
| | its future is cancelled | gone: that is noticed when its turn comes |
| begun | it returns, or raises and is not to be tried again | done |
| | it raises or is lost, and is to be tried again | paused |
| paused | the pause is over | in the line, at its head |
| | the pool is shut down with `cancel_futures` | done: its last failure stands |

After a shutdown with `cancel_futures` no call is to be tried again.

# The service

| it is | left when | it is then |
|---|---|---|
| idle: no thread | the first call comes | opening |
| opening: the initializer runs | that returns | serving |
| | it raises | broken |
| serving | it is closed, and no call is left | over |
| | `kill` | broken |
| broken: what is left fails, what comes is refused | what runs was cancelled | over |

`OwnLoop` runs the coroutines here; `oxgang.asyncio._hosts` hands them to processes.
"""

import asyncio
import contextlib
import logging
import threading
import weakref
from _thread import allocate_lock
from collections import deque
from concurrent.futures import BrokenExecutor, InvalidStateError
from functools import partial
from time import monotonic

from oxgang import _core
from oxgang._flow import pause_before
from oxgang.asyncio import _runs
from oxgang.asyncio._calls import Call, name_of
from oxgang.asyncio._watchdog import Watchdog
from oxgang.concurrent.futures import _exit

_LOGGER = logging.getLogger("oxgang.asyncio")
_CALLS = (Call, list)  # what in an inbox is no order
_AT_A_TIME = 256  # begun in one round of the loop: those that run have their turn
_PATIENCE_S = 10.0  # for coroutines that were cancelled at the end
_HURRIED_S = 1.0  # the same, if the service was told to end at once
_LAST_WAIT_S = 2.0  # for a loop that was told to end at once


class _Latch:
    """Opened once or more often, by anybody, anywhere: a garbage collection or a signal handler may
    do it in the midst of a wait. (`Event.set` takes a lock that the wait may have.)"""

    def __init__(self):
        self._gate = allocate_lock()
        self._gate.acquire()

    def open(self):
        """Lets everybody pass from now on."""
        with contextlib.suppress(RuntimeError):  # it is open
            self._gate.release()

    def wait(self):
        """Waits till it is open. Who passes shuts it behind them for a moment, in which somebody
        else may open it again."""
        with contextlib.suppress(RuntimeError), self._gate:
            pass


class _LoopThread(_exit.ServingThread):
    """The thread of a loop. It is not waited for for ever once the service was told to end at once:
    a coroutine that blocks the loop cannot be ended, and the program must."""

    def __init__(self, service, **options):
        super().__init__(**options)
        self._service = service

    def run(self):
        try:
            super().run()
        finally:
            self._service.is_to_end.open()

    def join(self, timeout=None):
        if threading.current_thread() is self:
            return  # a coroutine that shuts its own pool down
        service = self._service
        if timeout is None and self.is_alive():
            service.is_to_end.wait()
        if service.killed_at is None:
            super().join(timeout)
            return
        left = max(0.0, service.killed_at + _LAST_WAIT_S - monotonic())
        super().join(left if timeout is None else min(left, timeout))
        if self.is_alive():
            service.leave_behind()


def _calls_in(items):
    """The calls among what comes out of an inbox, which has single ones, lists and orders."""
    for item in items:
        if type(item) is Call:
            yield item
        elif type(item) is list:
            yield from item


class _Handle:
    """A service for the program's end, which must not keep it: it knows its thread."""

    def __init__(self, service):
        self._service = weakref.ref(service)

    def close(self, cancel):
        """See `Service`."""
        service = self._service()
        if service is not None:
            service.close(cancel)

    def kill(self, why):
        """See `Service`."""
        service = self._service()
        if service is not None:
            service.kill(why)


class Service:
    """What the executor has in its thread. It does not know the executor, which may be garbage
    long before its last call is done.

    Args:
        make_loop: Makes the loop.
        limit: Calls that may be begun at a time.
        name: Of the thread.
    """

    def __init__(self, make_loop, limit, name):
        self.make_loop = make_loop
        self.limit = limit
        self.name = name
        self.inbox = _core.Inbox()
        self.line = deque()
        self.begun = {}  # future -> Call
        self.paused = {}  # future -> (Call, timer)
        self.why_broken = None  # the error of all that is left, and of what comes
        self.killed_at = None
        self.is_to_end = _Latch()  # by `kill`; and the thread's end
        self.serving = self.over = False
        self.last_tries = False  # what fails now fails for good
        self.loop = self.thread = None
        self._starting = threading.Lock()

    # -- from any thread ---------------------------------------------------------------------

    def encoded(self, fn):
        """What `prepare` needs to know of a function; None: calls need no preparing."""
        return None

    def submit(self, calls):
        """Takes a call, or a list of some, in; False: it is closed."""
        taken = self.inbox.put(calls)
        if taken and self.thread is None:
            try:
                self._start()
            except BaseException:
                for call in _calls_in([calls]):
                    call.future.cancel()  # nobody has it: the next one tries again
                raise
        return taken

    def _start(self):
        with self._starting:
            if self.thread is not None:
                return
            if _exit.shutting_down:
                self.inbox.close()
                raise _exit.closed_error()
            self.before()
            loop = self.make_loop()
            claim = threading.Lock()  # who takes it first says whether the thread lives
            work = {"target": self._live, "args": (loop, claim)}
            thread = _LoopThread(self, **work, name=self.name, daemon=True)
            try:
                thread.start()
            except BaseException:
                if claim.acquire(False):
                    loop.close()
                else:
                    self._keep(thread)  # Ctrl-C, and it had begun
                raise
            self._keep(thread)

    def _keep(self, thread):
        self.thread = thread
        _exit.watch(thread, _Handle(self))

    def close(self, cancel):
        """No more calls. What is in the line is still done; `cancel`: it is cancelled instead."""
        self.inbox.close()
        if cancel and not self.inbox.forked:
            self._cancel_line()
            self.inbox.urge(self._cancel_late)

    def kill(self, why):
        """Ends at once: what runs is cancelled, and all that is left fails."""
        if self.killed_at is None:
            self.killed_at = monotonic()
        self.is_to_end.open()
        self.inbox.close()
        self.inbox.urge(partial(self.break_off, BrokenExecutor(why)))

    def terminate(self, future):
        """Ends a call that has begun; whether it was asked to."""
        return self.inbox.urge(partial(self._terminate, future))

    def leave_behind(self):
        """The loop does not answer, and is not waited for: its calls fail here."""
        error = BrokenExecutor(
            "the event loop did not end when told to: a coroutine blocks it; calls that were left "
            "are lost"
        )
        for call in list(self.begun.values()):
            _set(call.future, None, error)
        for call in [*self.line, *_calls_in(self.inbox.take())]:
            call.cancel()

    def _cancel_line(self):
        """Cancels what is in the line and the inbox, but for what the loop has just taken out."""
        items = self.inbox.take()
        for call in _calls_in(items):
            call.cancel()
        for item in items:
            if type(item) not in _CALLS:
                self.inbox.urge(item)
        again = []
        while self.line:
            with contextlib.suppress(IndexError):
                call = self.line.popleft()
                (again.append if call.failure is not None else Call.cancel)(call)
        self.line.extend(again)

    # -- the thread --------------------------------------------------------------------------

    def _live(self, loop, claim):
        if not claim.acquire(False):
            return  # it was given up while it started
        self.loop = loop
        asyncio.set_event_loop(loop)
        loop.add_reader(self.inbox.fileno(), self._look)
        opening = loop.create_task(self._open())
        try:
            _runs.run_until_stopped(loop, lambda: self.over)
        finally:
            opening.cancel()
            self.end()
            loop.remove_reader(self.inbox.fileno())
            patience = _PATIENCE_S if self.killed_at is None else _HURRIED_S
            for name in _runs.close(loop, patience):
                _LOGGER.error("a coroutine goes on although it was cancelled: %s", name)

    async def _open(self):
        try:
            await self.open()
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            _LOGGER.critical("Exception in initializer:", exc_info=True)
            broken = BrokenExecutor(
                "the initializer of a pool of coroutines failed; the pool cannot be used any more"
            )
            broken.__cause__ = error
            self.break_off(broken)
        else:
            self.serving = True
            self.go_on()

    def _look(self):
        self._take_in(self.inbox.take())
        self.go_on()

    def _take_in(self, items):
        for item in items:
            if type(item) is Call:
                self.line.append(item)
            elif type(item) is list:
                self.line.extend(item)
            else:
                item()

    def go_on(self):
        """Begins what there is room for; ends if there is nothing left to do."""
        if self.why_broken is not None:
            self._fail_line()
        if self.serving:
            self._begin_some()
        idle = not (self.line or self.begun or self.paused)
        if idle and self.inbox.closed and (self.serving or self.why_broken) and not self.over:
            # nothing can come after the last look
            if items := self.inbox.take():
                self._take_in(items)
                self.soon()
            else:
                self.last_call()

    def _begin_some(self):
        before, self._going_on = self._going_on, True  # one that is over at once makes room here
        left = _AT_A_TIME
        try:
            while self.line and left and len(self.begun) < self.limit and self.has_room():
                left -= self.begin_next(min(left, self.limit - len(self.begun)))
            self.all_begun()
        finally:
            self._going_on = before
        if self.line and not left:
            self.soon()

    def begin_next(self, _most):
        """Begins the next call, or some; how many."""
        try:
            call = self.line.popleft()
        except IndexError:
            return 0  # somebody cancels the line
        if call.failure is None and not call.future.set_running_or_notify_cancel():
            return 0
        call.failure = None
        self.begun[call.future] = call
        self.begin(call)
        return 1

    def last_call(self):
        """No call is left, and none will come."""
        self.stop()

    def stop(self):
        """It is over."""
        self.over = True
        self.loop.stop()

    def finish(self, call, done, value):
        """A try of a call is over."""
        self.begun.pop(call.future, None)
        if not self._going_on:
            self.soon()
        if done:
            # whoever has set it by hand was first
            with contextlib.suppress(InvalidStateError):
                call.future.set_result(value)
            return
        if value is _runs.TERMINATED:
            value = terminated_error(call)
        elif self.why_broken is None:
            call.errors += 1
            if isinstance(value, call.options.retry_on or ()) and self.has_a_try_left(call):
                self.try_again(call, value)
                return
        _set(call.future, None, value)

    def soon(self):
        """Goes on, once for all that is over in this round."""
        if not self._going_on:
            self._going_on = True
            self.loop.call_soon(self._go_on_once)

    @contextlib.contextmanager
    def going_on(self):
        """Goes on at the end of the block, and for all that is over in it."""
        self._going_on, before = True, self._going_on
        try:
            yield
        finally:
            self._going_on = before
            self.go_on()

    _going_on = False

    def _go_on_once(self):
        self._going_on = False
        self.go_on()

    def has_a_try_left(self, call):
        """Whether a call that has failed may be begun once more."""
        if call.terminated or self.last_tries:
            return False
        return len(call.losses) + call.errors <= (call.options.retries or 0)

    def try_again(self, call, failure):
        """Puts a call back into the line after a pause."""
        call.failure = failure
        pause = pause_before(len(call.losses) + call.errors)
        self.paused[call.future] = call, self.loop.call_later(pause, self._resume, call)
        self.soon()

    def _resume(self, call):
        del self.paused[call.future]
        self.line.appendleft(call)
        self.go_on()

    def _terminate(self, future):
        call = self.begun.get(future)
        if call is not None:
            call.terminated = True
            self.end_call(call)
        elif future in self.paused:
            call, timer = self.paused.pop(future)
            timer.cancel()
            _set(future, None, terminated_error(call))
        else:
            future.cancel()  # it has not begun

    def _cancel_late(self):
        self.last_tries = True
        self._cancel_line()
        for call, timer in list(self.paused.values()):
            timer.cancel()
            _set(call.future, None, call.failure)
        self.paused.clear()
        for call in [call for call in self.line if call.failure is not None]:
            _set(call.future, None, call.failure)
        self.line.clear()

    def break_off(self, error):
        """Ends all that is left by an error, and refuses what comes."""
        if self.why_broken is not None:
            return
        self.why_broken = error
        self.inbox.close()
        self.end_all()
        for call in list(self.begun.values()):
            _set(call.future, None, error)
        for call, timer in list(self.paused.values()):
            timer.cancel()
            _set(call.future, None, error)
        self.begun.clear()
        self.paused.clear()
        self._look()

    def _fail_line(self):
        while self.line:
            call = self.line.popleft()
            if call.failure is not None or call.future.set_running_or_notify_cancel():
                _set(call.future, None, self.why_broken)

    # -- what kinds of it have of their own -----------------------------------------------------

    def before(self):
        """What comes before the thread; still in the thread of who submits."""

    async def open(self):
        """What comes before the first call."""
        raise NotImplementedError

    def has_room(self):
        """Whether one more call may begin."""
        return True

    def begin(self, call):
        """Begins a call."""
        raise NotImplementedError

    def all_begun(self):
        """All have begun that may just now."""

    def end_call(self, call):
        """Ends one that has begun."""
        raise NotImplementedError

    def end_all(self):
        """Ends all that have begun; what becomes of them is not asked."""
        raise NotImplementedError

    def end(self):
        """The thread is about to end."""

    def statistics(self):
        """Counts, as of now."""
        return {"running": len(self.begun), "queued": len(self.line) + len(self.paused)}


class OwnLoop(Service):
    """Coroutines on the loop of the thread itself.

    Args:
        make_loop: See `Service`; and so `limit` and `name`.
        start: The initializer, its arguments, `watch_blocking`.
    """

    def __init__(self, make_loop, limit, name, start):
        super().__init__(make_loop, limit, name)
        self.start = start
        self.runs = self.watchdog = None

    async def open(self):
        initializer, initargs, watch_blocking = self.start
        self.runs = _runs.Runs(self.loop, self.finish)
        if watch_blocking is not None:
            self.watchdog = Watchdog(self.loop, watch_blocking, self.runs.name_of_task)
        await initialize(initializer, initargs)

    def begin(self, call):
        limit, grace = call.limit
        context = call.context
        if context is not None and call.options.retries:
            context = context.copy()  # each try begins with it as it was
        self.runs.begin(
            call, call.fn, call.args, call.kwargs, context=context, limit=limit, grace=grace
        )

    def end_call(self, call):
        self.runs.terminate(call)

    def end_all(self):
        if self.runs is not None:
            self.runs.cancel_all()

    def end(self):
        if self.watchdog is not None:
            self.watchdog.stop()

    def statistics(self):
        abandoned = 0 if self.runs is None else len(self.runs.abandoned)
        return {**super().statistics(), "abandoned": abandoned}


async def initialize(initializer, initargs):
    """Calls an initializer, which may be a coroutine function."""
    if initializer is not None:
        result = initializer(*initargs)
        if hasattr(result, "__await__"):
            await result


def limits(options):
    """Seconds that a call may run, None for any number, and its grace."""
    limit = None if options.timeout == float("inf") else options.timeout
    return limit, _runs.GRACE_S if options.timeout_grace is None else options.timeout_grace


def terminated_error(call, pid=None):
    """What the future of a call raises that `terminate` has ended."""
    from oxgang.errors import TaskTerminated

    name = name_of(call.fn)
    text = f"{name} was running when it was terminated; its coroutine was cancelled"
    return TaskTerminated(text, function=name, task_id=call.number, pid=pid)


def _set(future, result, error):
    # whoever has set it by hand was first
    try:
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
    except InvalidStateError:
        return
