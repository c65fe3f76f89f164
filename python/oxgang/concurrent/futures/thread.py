"""`ThreadPoolExecutor`: the standard signature, the queue and the loop in Rust."""

import itertools
import sys
import threading
import weakref
from concurrent.futures import thread as standard

from oxgang import _core, _options
from oxgang.concurrent.futures import _exit
from oxgang.concurrent.futures._base import LOGGER, Executor, Future, cpu_count


def _run(queue, initializer, initargs, broken):
    if initializer is not None:
        try:
            initializer(*initargs)
        except BaseException:
            LOGGER.critical("Exception in initializer:", exc_info=True)
            text = "A thread initializer failed, the thread pool is not usable anymore"
            broken.append(text)
            queue.give_up(_broken_thread_pool()(text))
            return
    queue.run()


class _Threads:
    """The threads of a pool. Knows nothing of the executor, which may be garbage long before its
    last call is done."""

    def __init__(self, queue, prefix, start):
        self.queue = queue
        self.prefix = prefix
        self.arguments = queue, *start
        self.all = set()
        self.timer = None

    def start(self):
        self.launch(_run, f"{self.prefix}_{len(self.all)}", self.arguments)

    def start_timer(self):
        name, args = f"{self.prefix}_timer", (self.start,)
        self.timer = self.launch(self.queue.time, name, args, counts=False)

    def launch(self, target, name, args, counts=True):
        thread = self.make(target=target, name=name, args=args)
        try:
            if _exit.shutting_down:
                raise _exit.closed_error()
            thread.start()
        except BaseException:
            if counts:
                self.queue.thread_lost()
            raise
        if counts:
            self.all.add(thread)
        self.note(thread)
        return thread

    def make(self, **work):
        return threading.Thread(**work)

    def note(self, thread):
        _exit.watch(thread, self.queue)


# asyncio takes only the standard class, or what derives from it, as a loop's default executor
class ThreadPoolExecutor(_core.ThreadPool, Executor, standard.ThreadPoolExecutor):
    """Runs calls in a pool of threads; as `concurrent.futures.ThreadPoolExecutor`.

    Args:
        max_workers: Threads at most; default: CPUs this process may use plus 4, 32 at most.
        thread_name_prefix: Names of threads begin with it.
        initializer: Called with `initargs` at the start of each thread.
        initargs: Its arguments.
        task_timeout: Seconds that a call may run; then `oxgang.errors.TaskTimeout` is raised in
            its Python code.
        timeout_grace: Seconds that it may go on after that; then its future fails, and the
            thread, which nobody can end, goes on till the call returns.
        memory_limit: Refused: threads share their memory.
        retries: How many more times a call is run that raised one of `retry_on`.
        retry_on: Exception classes, one or a tuple.
        context: Each call runs in a copy of its submitter's `contextvars` context.

    The last six are oxgang's own; see ``docs/limits.md``.

    Raises:
        ValueError: max_workers is not greater than 0, or a limit is out of range or refused.
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
        task_timeout=None,
        timeout_grace=None,
        memory_limit=None,
        retries=0,
        retry_on=(),
        context=False,
    ):
        if max_workers is None:
            max_workers = min(32, cpu_count() + 4)
        if max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        self._options = _options.TaskOptions.of_pool(
            task_timeout,
            timeout_grace=timeout_grace,
            memory_limit=memory_limit,
            retries=retries,
            retry_on=retry_on,
        )
        plan = self._options.for_threads()
        self._max_workers = max_workers
        self._thread_name_prefix = (
            thread_name_prefix or f"ThreadPoolExecutor-{ThreadPoolExecutor._counter()}"
        )
        self._start = initializer, initargs, []
        self._queue = self._open(Future, max_workers, plan, bool(context))
        starter = self._make_starter(self._queue, self._thread_name_prefix, self._start)
        self._starter = starter
        self._threads = self._starter.all
        report = sys.modules.get("oxgang._report")
        if report is not None and report.wanted():
            report.opened(self._queue, "thread")
        # an executor that becomes garbage finishes what it has, and ends
        weakref.finalize(self, self._queue.close, False).atexit = False

    def _make_starter(self, queue, prefix, start):
        return _Threads(queue, prefix, start)

    @property
    def _broken(self):
        broken = self._start[2]
        return broken[0] if broken else False

    def _start_thread(self):
        self._starter.start()

    def _start_timer(self):
        self._starter.start_timer()

    def submit_with(self, options, fn, /, *args, **kwargs):
        """`submit`, with options of this call's own.

        Args:
            options: An `oxgang.TaskOptions` without a memory limit; where it says nothing, the
                executor's count.
            fn: And all the rest: as `submit`.

        Raises:
            TypeError: options is something else.
            ValueError: It has a memory limit.
        """
        plan = _options.checked(options).over(self._options).for_threads()
        if plan is None:
            plan = _core.ThreadOptions(timeout=None, grace=0.0, retries=0, retry_on=())
        return self._submit_as(plan, fn, *args, **kwargs)

    def _refusal(self):
        if self._broken:
            return _broken_thread_pool()(self._broken)
        return _exit.closed_error()

    def shutdown(self, wait=True, *, cancel_futures=False):
        """Takes no more calls. See `concurrent.futures.Executor.shutdown`.

        Does not wait for threads that were given up at their call's limit; the program's end does.
        """
        self._queue.close(cancel_futures)
        if not wait:
            return
        if self._starter.timer is not None:
            self._starter.timer.join()  # it ends when no other is left
        abandoned = self._queue.abandoned()
        for thread in list(self._threads):
            if thread.ident not in abandoned:
                thread.join()

    def statistics(self):
        """Counts as of now: ``threads``, those of them that were ``abandoned`` at their call's
        limit and still run, and ``queued`` calls that wait for one."""
        return {
            "threads": len(self._threads),
            "abandoned": len(self._queue.abandoned()),
            "queued": self._queue.qsize(),
        }


def _broken_thread_pool():
    from concurrent.futures.thread import BrokenThreadPool

    return BrokenThreadPool


def __getattr__(name):
    if name == "BrokenThreadPool":
        return _broken_thread_pool()  # the standard class itself
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["BrokenThreadPool", "ThreadPoolExecutor"]  # noqa: F822 - see __getattr__
