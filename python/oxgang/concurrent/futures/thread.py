"""`ThreadPoolExecutor`: the standard signature, the queue and the loop in Rust."""

import itertools
import threading
import weakref

from oxgang import _core
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


class ThreadPoolExecutor(_core.ThreadPool, Executor):
    """Runs calls in a pool of threads; as `concurrent.futures.ThreadPoolExecutor`.

    Args:
        max_workers: Threads at most; default: CPUs this process may use plus 4, 32 at most.
        thread_name_prefix: Names of threads begin with it.
        initializer: Called with `initargs` at the start of each thread.
        initargs: Its arguments.

    Raises:
        ValueError: max_workers is not greater than 0.
        TypeError: initializer cannot be called.
    """

    _counter = itertools.count().__next__

    def __init__(self, max_workers=None, thread_name_prefix="", initializer=None, initargs=()):
        if max_workers is None:
            max_workers = min(32, cpu_count() + 4)
        if max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        self._max_workers = max_workers
        self._thread_name_prefix = (
            thread_name_prefix or f"ThreadPoolExecutor-{ThreadPoolExecutor._counter()}"
        )
        self._threads = set()
        self._start = initializer, initargs, []
        self._queue = self._open(Future, max_workers)
        # an executor that becomes garbage finishes what it has, and ends
        weakref.finalize(self, self._queue.close, False).atexit = False

    @property
    def _broken(self):
        broken = self._start[2]
        return broken[0] if broken else False

    def _start_thread(self):
        name = f"{self._thread_name_prefix}_{len(self._threads)}"
        thread = threading.Thread(target=_run, name=name, args=(self._queue, *self._start))
        try:
            if _exit.shutting_down:
                raise RuntimeError("cannot schedule new futures after interpreter shutdown")
            thread.start()
        except BaseException:
            self._queue.thread_lost()
            raise
        self._threads.add(thread)
        _exit.watch(thread, self._queue)

    def _refusal(self):
        if self._broken:
            return _broken_thread_pool()(self._broken)
        when = "interpreter shutdown" if _exit.shutting_down else "shutdown"
        return RuntimeError(f"cannot schedule new futures after {when}")

    def shutdown(self, wait=True, *, cancel_futures=False):
        """Takes no more calls. See `concurrent.futures.Executor.shutdown`."""
        self._queue.close(cancel_futures)
        if wait:
            for thread in self._threads:
                thread.join()

    def statistics(self):
        """Counts as of now: ``threads``, and ``queued`` calls that wait for one."""
        return {"threads": len(self._threads), "queued": self._queue.qsize()}


def _broken_thread_pool():
    from concurrent.futures.thread import BrokenThreadPool

    return BrokenThreadPool


def __getattr__(name):
    if name == "BrokenThreadPool":
        return _broken_thread_pool()  # the standard class itself
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["BrokenThreadPool", "ThreadPoolExecutor"]  # noqa: F822 - see __getattr__
