"""`CoroutinePoolExecutor`: coroutine functions for who is in no loop, or in another one."""

import itertools
import weakref
from contextvars import copy_context

from oxgang import _options
from oxgang.asyncio._calls import Call, CoroutineFuture, refuse_plain
from oxgang.asyncio._run import loop_factory
from oxgang.asyncio._service import OwnLoop, limits
from oxgang.asyncio._watchdog import checked
from oxgang.concurrent.futures import _exit
from oxgang.concurrent.futures._base import KillableExecutor

IN_FLIGHT = 100  # calls at once, per loop, if nothing is said; as `oxgang.asyncio.map` has it
_KILLED = "the pool of coroutines was {how}; calls that were left are lost"


class CoroutinePoolExecutor(KillableExecutor):
    """Runs coroutine functions on an event loop in a thread of its own; as the executors of
    `concurrent.futures` run plain ones.

    >>> with CoroutinePoolExecutor(50) as pool:
    ...     pages = list(pool.map(fetch, urls))

    With `processes`, on a loop in each of so many worker processes: a call goes to the one that
    has least to do, and one that dies costs the calls that had begun there.

    Args:
        max_workers: Calls in flight at most; the others wait in order. Default: 100, for each
            process.
        thread_name_prefix: The thread's name begins with it.
        initializer: Called with `initargs` on the loop, before the first call; it may be a
            coroutine function.
        initargs: Its arguments.
        processes: Worker processes; None: the loop is in this one.
        concurrency: Calls in flight in one worker process. Default: a fair share of `max_workers`.
        mp_context: For `processes`, as `ProcessPoolExecutor` has it.
        task_timeout: Seconds that a call may run; then its coroutine is cancelled, and its future
            raises `oxgang.errors.TaskTimeout`.
        timeout_grace: Seconds that it may go on after that; then its future fails, and what it
            returns is dropped. A worker process whose loop does not answer any more is ended.
        memory_limit: Bytes that a worker process may have; beyond, it is ended, and the calls that
            had begun there raise `MemoryLimitExceeded`. Refused without `processes`.
        retries: How many more times a call is run that raised one of `retry_on`, or was lost with
            its process.
        retry_on: Exception classes, one or a tuple.
        context: Each call runs in a copy of its submitter's `contextvars` context (in worker
            processes there is none).
        loop: Which event loop, as for `oxgang.asyncio.run`.
        watch_blocking: Seconds that the loop may stand still: a call that blocks it for longer is
            named by a record of the logger ``oxgang.asyncio``. None: nobody looks.

    Raises:
        ValueError: a number is out of range, an option needs `processes`, or there is no such loop.
        ImportError: the loop is not installed.
        TypeError: initializer cannot be called, or something else is not what it should be.
    """

    _counter = itertools.count().__next__

    def __init__(
        self,
        max_workers=None,
        thread_name_prefix="",
        initializer=None,
        initargs=(),
        *,
        processes=None,
        concurrency=None,
        mp_context=None,
        task_timeout=None,
        timeout_grace=None,
        memory_limit=None,
        retries=0,
        retry_on=(),
        context=True,
        loop="auto",
        watch_blocking=None,
    ):
        for name, number in (
            ("max_workers", max_workers),
            ("processes", processes),
            ("concurrency", concurrency),
        ):
            if number is not None and number <= 0:
                raise ValueError(f"{name} must be greater than 0")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        self._options = _options.TaskOptions.of_pool(
            task_timeout,
            timeout_grace=timeout_grace,
            memory_limit=memory_limit,
            retries=retries,
            retry_on=retry_on,
        )
        self._limit = limits(self._options)
        watch_blocking = checked(watch_blocking)
        name = thread_name_prefix or f"CoroutinePoolExecutor-{CoroutinePoolExecutor._counter()}"
        self._context = context and processes is None
        self._processes = processes
        if processes is None:
            _refuse_without_processes(concurrency, mp_context, self._options.memory_limit)
            self._max_workers = IN_FLIGHT if max_workers is None else max_workers
            self._service = OwnLoop(
                loop_factory(loop),
                self._max_workers,
                name,
                (initializer, initargs, watch_blocking),
            )
        else:
            from oxgang.asyncio._hosts import Hosts

            if concurrency is None:
                concurrency = IN_FLIGHT if max_workers is None else -(-max_workers // processes)
            self._max_workers = processes * concurrency if max_workers is None else max_workers
            loop_factory(loop)  # refused here, if it is
            self._service = Hosts(
                self._max_workers,
                name,
                (processes, concurrency, mp_context, self._options.memory_limit),
                (loop, initializer, initargs, watch_blocking),
            )
        # an executor that becomes garbage finishes what it has, and ends
        weakref.finalize(self, self._service.close, False).atexit = False

    def submit(self, fn, /, *args, **kwargs):
        """Schedules ``await fn(*args, **kwargs)``; a future for its result, which may be awaited in
        any loop, and terminated.

        Raises:
            TypeError: `fn` is a plain function.
            RuntimeError: the executor is shut down, or was made before this process was forked.
        """
        return self._submit(self._options, fn, args, kwargs)

    def submit_with(self, options, fn, /, *args, **kwargs):
        """`submit`, with options of this call's own.

        Args:
            options: An `oxgang.TaskOptions` without a memory limit, which only a process as a
                whole can have; where it says nothing, the executor's count.
            fn: And all the rest: as `submit`.

        Raises:
            TypeError: options is something else.
            ValueError: It has a memory limit.
        """
        if _options.checked(options).memory_limit not in (None, float("inf")):
            raise ValueError(
                "memory_limit is for processes as a whole: coroutines share theirs; give it to "
                "the executor, with processes="
            )
        return self._submit(options.over(self._options), fn, args, kwargs)

    def _submit(self, options, fn, args, kwargs):
        refuse_plain(fn)
        limit = self._limit if options is self._options else limits(options)
        shape = options, limit, self._service.encoded(fn)
        call = self._call(shape, fn, args, kwargs)
        if not self._service.submit(call):
            raise self._refusal()
        return call.future

    def _submit_many(self, fn, calls):
        refuse_plain(fn)
        shape = self._options, self._limit, self._service.encoded(fn)
        many = [self._call(shape, fn, args, {}) for args in calls]
        if many and not self._service.submit(many):
            raise self._refusal()
        return [call.future for call in many]

    def _call(self, shape, fn, args, kwargs):
        options, limit, encoded = shape
        future = CoroutineFuture()
        future._service = self._service
        call = Call(future, fn, args, kwargs, options, limit)
        if self._context:
            call.context = copy_context()
        if encoded is not None:
            self._service.prepare(call, encoded)
        return call

    def _refusal(self):
        service = self._service
        if service.inbox.forked:
            return RuntimeError(
                "this pool of coroutines belongs to the process that this one was forked from; "
                "make one here"
            )
        if service.why_broken is not None:
            return type(service.why_broken)(str(service.why_broken))
        return _exit.closed_error()

    @property
    def _broken(self):
        why = self._service.why_broken
        return False if why is None else str(why)

    def shutdown(self, wait=True, *, cancel_futures=False):
        """Takes no more calls. See `concurrent.futures.Executor.shutdown`. Called by a coroutine of
        its own, it does not wait."""
        self._service.close(cancel_futures)
        thread = self._service.thread
        if wait and thread is not None and not self._service.inbox.forked:
            thread.join()

    def _kill(self, how):
        self._service.kill(_KILLED.format(how=how))

    def kill_workers(self):
        """Cancels all coroutines, ends worker processes at once, and the pool with them; calls that
        are left fail."""
        self._kill("killed")
        self.shutdown(wait=False, cancel_futures=True)

    terminate_workers = kill_workers

    def statistics(self):
        """Counts as of now: calls ``running`` and ``queued``; those ``abandoned`` at their limit
        that go on; with `processes`, ``workers``: a list of dicts with ``pid`` and ``tasks``."""
        return self._service.statistics()


def _refuse_without_processes(concurrency, mp_context, memory_limit):
    if memory_limit not in (None, float("inf")):
        raise ValueError(
            "memory_limit is for processes: coroutines share the memory of this one; give it "
            "together with processes="
        )
    if concurrency is not None or mp_context is not None:
        raise ValueError(
            "concurrency and mp_context are for worker processes: give processes=, or only "
            "max_workers="
        )
