"""`multiprocessing.pool`: pools of processes and of threads, on the executors' engines.

A pool is an executor with another face. What differs from the standard class:

- A worker that dies costs the calls that it had begun, which raise `WorkerCrashed`; the pool goes
  on. Nothing waits for ever for an answer that cannot come; `terminate` tells those who wait.
- A pool that is neither closed nor joined ends when it is not used any more, or with the program.
- `imap` and `imap_unordered` read their input a little ahead of what is taken (`_imap`).
- There are no threads that hand things on, and no queues between them: `_taskqueue`, `_inqueue`
  and the like do not exist. Workers are made by `self.Process(context, …)`, as in the standard
  class, and `_pool` lists them.
"""

import functools
import weakref
from multiprocessing import util
from multiprocessing.pool import MaybeEncodingError, RemoteTraceback

from oxgang.concurrent.futures._base import AT_HAND
from oxgang.multiprocessing import _engines, _pool_worker, context
from oxgang.multiprocessing._imap import IMapIterator, IMapUnorderedIterator, calls_of
from oxgang.multiprocessing._results import ApplyResult, AsyncResult, MapResult

__all__ = [
    "CLOSE",
    "INIT",
    "RUN",
    "TERMINATE",
    "ApplyResult",
    "AsyncResult",
    "IMapIterator",
    "IMapUnorderedIterator",
    "MapResult",
    "MaybeEncodingError",
    "Pool",
    "RemoteTraceback",
    "ThreadPool",
]

INIT = "INIT"
RUN = "RUN"
CLOSE = "CLOSE"
TERMINATE = "TERMINATE"

_CHUNKS_EACH = 4  # chunks for each worker, if nobody says how long one is to be


class Pool:
    """A pool of worker processes; as `multiprocessing.pool.Pool`.

    Args:
        processes: Workers; default: CPUs that this process may use, by its affinity and by its
            container's quota.
        initializer: Called with `initargs` at the start of each worker.
        initargs: Its arguments.
        maxtasksperchild: Calls (or chunks of them) after which a worker is replaced.
        context: The context that starts the workers; default: of the start method that is set.
        task_timeout: Seconds that a call may run, from when a worker begins it.
        timeout_grace: Seconds that it may go on after that.
        memory_limit: Bytes that a worker may have while it runs a call, or "2GiB".
        retries: How many more times a call is run that was lost with its worker.
        retry_on: Exception classes for which it is run again too.

    The last five are oxgang's own, and as those of
    `oxgang.concurrent.futures.ProcessPoolExecutor`; with any of them each item of a `map` is a
    call of its own, unless a chunk size is given.

    Raises:
        ValueError: A number is out of range.
        TypeError: initializer cannot be called.
        OSError: No worker can be started.
    """

    @staticmethod
    def Process(ctx, *args, **kwds):
        """Makes a worker's process; for subclasses to replace."""
        return ctx.Process(*args, **kwds)

    def __init__(
        self,
        processes=None,
        initializer=None,
        initargs=(),
        maxtasksperchild=None,
        context=None,
        *,
        task_timeout=None,
        timeout_grace=None,
        memory_limit=None,
        retries=0,
        retry_on=(),
    ):
        self._state = INIT
        self._ctx = _default_context() if context is None else context
        if processes is None:
            from oxgang._cpus import usable_cpus

            processes = usable_cpus()
        if maxtasksperchild is not None and (
            not isinstance(maxtasksperchild, int) or maxtasksperchild <= 0
        ):
            raise ValueError("maxtasksperchild must be a positive int or None")
        self._maxtasksperchild = maxtasksperchild
        self._begin(
            processes,
            initializer,
            initargs,
            task_timeout=task_timeout,
            timeout_grace=timeout_grace,
            memory_limit=memory_limit,
            retries=retries,
            retry_on=retry_on,
        )

    def _begin(self, processes, initializer, initargs, **limits):
        if processes < 1:
            raise ValueError("Number of processes must be at least 1")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        self._processes = processes
        self._initializer = initializer
        self._initargs = initargs
        self._limited = any(limit is not None and limit for limit in limits.values())
        self._feeds = set()  # `imap`s whose input has not been read to its end
        self._engine = engine = self._make_engine(limits)
        # at the program's end before what would take its workers from it; see `util`
        self._terminate = util.Finalize(self, engine.end, exitpriority=15)
        try:
            engine.begin()
        except BaseException:
            self._terminate()
            raise
        self._state = RUN

    def _make_engine(self, limits):
        return _engines.Processes(
            _unbound(self),
            self._processes,
            self._ctx,
            (self._initializer, self._initargs),
            self._maxtasksperchild,
            limits,
        )

    @property
    def _pool(self):
        """The workers: processes, or threads."""
        return self._engine.workers()

    def __repr__(self):
        cls = type(self)
        return (
            f"<{cls.__module__}.{cls.__qualname__} state={self._state} pool_size={len(self._pool)}>"
        )

    def __reduce__(self):
        raise NotImplementedError("pool objects cannot be passed between processes or pickled")

    def __enter__(self):
        self._check_running()
        return self

    def __exit__(self, exc_type, exc_val, exc_tb):
        self.terminate()

    def _check_running(self):
        if self._state != RUN:
            raise ValueError("Pool not running")

    # -- calls ------------------------------------------------------------------------------

    def apply(self, func, args=(), kwds={}):  # noqa: B006 - the standard signature
        """What `func(*args, **kwds)` gives in a worker; waits for it.

        Raises:
            WorkerCrashed: The worker ended without an answer.
            ValueError: The pool is closed.
            Exception: What the call raised.
        """
        return self.apply_async(func, args, kwds).get()

    def apply_async(self, func, args=(), kwds={}, callback=None, error_callback=None):  # noqa: B006
        """The same without waiting: an `AsyncResult`. The callbacks are called with the value or
        the error, before those who wait for the result go on.

        Raises:
            ValueError: The pool is closed.
        """
        self._check_running()
        return ApplyResult(self, self._engine.submit(func, *args, **kwds), callback, error_callback)

    def map(self, func, iterable, chunksize=None):
        """A list of what `func` gives for each item; waits for all of them.

        Args:
            func: Takes one argument.
            iterable: Read to its end at once.
            chunksize: Items that make one call to a worker; default: such that each worker gets
                about four.

        Raises:
            WorkerCrashed: A worker ended without an answer.
            ValueError: The pool is closed.
            Exception: The first error that a call raised, in the order of the items.
        """
        return self.map_async(func, iterable, chunksize).get()

    def map_async(self, func, iterable, chunksize=None, callback=None, error_callback=None):
        """`map` without waiting: an `AsyncResult`; for the callbacks see `apply_async`."""
        return self._map(func, iterable, chunksize, False, (callback, error_callback))

    def starmap(self, func, iterable, chunksize=None):
        """`map` for a function of several arguments: each item is a tuple of them."""
        return self.starmap_async(func, iterable, chunksize).get()

    def starmap_async(self, func, iterable, chunksize=None, callback=None, error_callback=None):
        """`starmap` without waiting: an `AsyncResult`; for the callbacks see `apply_async`."""
        return self._map(func, iterable, chunksize, True, (callback, error_callback))

    def _map(self, func, iterable, chunksize, starred, callbacks):
        self._check_running()
        if not hasattr(iterable, "__len__"):
            iterable = list(iterable)
        if chunksize is None:
            chunksize = (
                1 if self._limited else -(-len(iterable) // (_CHUNKS_EACH * self._processes))
            )
        chunked = chunksize > 1
        engine, error, batch = self._engine, None, None
        try:
            calls = _chunks(iterable, chunksize) if chunked else _singles(iterable, starred)
        except Exception as of_the_input:
            error = of_the_input
        else:
            if len(iterable) > 0:
                each = _pool_worker.EachStarred if starred else _pool_worker.Each
                same = engine.sendable(each, func) if chunked else engine.single(func)
                batch = engine._submit_batch(same, calls)
        return MapResult(self, batch, chunked, error, callbacks)

    def imap(self, func, iterable, chunksize=1):
        """An iterator of what `func` gives for each item, in their order; its `next(timeout)`
        waits for that long at most. Begins at once, and reads the iterable a little ahead of
        what is taken, so that may be endless.

        Raises:
            ValueError: The pool is closed, or chunksize is less than 1.
        """
        return self._imap(IMapIterator, func, iterable, chunksize)

    def imap_unordered(self, func, iterable, chunksize=1):
        """As `imap`, with results as they come."""
        return self._imap(IMapUnorderedIterator, func, iterable, chunksize)

    def _imap(self, iterator, func, iterable, chunksize):
        self._check_running()
        if chunksize < 1:
            raise ValueError(f"Chunksize must be 1+, not {chunksize:n}")
        engine = self._engine
        same = engine.single(func) if chunksize == 1 else engine.sendable(_pool_worker.Each, func)
        calls = calls_of(iterable, chunksize)
        line = engine._line(same, iterator.ordered)
        submit = functools.partial(engine._submit_line, same)
        return iterator(line, chunksize > 1, self, submit, calls, type(iterable) in AT_HAND)

    def _fed(self, iterator):
        """The input of an `imap` has been read to its end."""
        self._feeds.discard(iterator)
        if self._state == CLOSE and not self._feeds:
            self._engine.close()

    # -- the end ----------------------------------------------------------------------------

    def close(self):
        """Takes no more calls. The workers end when what there is has been done."""
        if self._state != RUN:
            return
        self._state = CLOSE
        if not self._feeds:
            self._engine.close()

    def terminate(self):
        """Ends the workers at once. Calls that are left fail, those that wait for them are told."""
        self._state = TERMINATE
        for iterator in list(self._feeds):
            iterator.stop()
        self._feeds.clear()
        self._terminate()

    def join(self):
        """Waits until the workers have ended.

        Raises:
            ValueError: Neither `close` nor `terminate` has been called.
        """
        if self._state == RUN:
            raise ValueError("Pool is still running")
        if self._state not in (CLOSE, TERMINATE):
            raise ValueError("In unknown state")
        for iterator in list(self._feeds):
            iterator.run_all()
        self._engine.join()

    def statistics(self):
        """Counts, as those of the executors; oxgang's own."""
        return self._engine.statistics()


class ThreadPool(Pool):
    """A pool of threads; as `multiprocessing.pool.ThreadPool`.

    Args:
        processes: Threads; default: CPUs that this process may use.
        initializer: Called with `initargs` at the start of each thread.
        initargs: Its arguments.
        task_timeout: Seconds that a call may run; then `TaskTimeout` is raised in it.
        timeout_grace: Seconds that it may go on after that; then it is given up.
        retries: How many more times a call is run that raised one of `retry_on`.
        retry_on: Exception classes, one or a tuple.

    The last four are oxgang's own; see ``docs/limits.md``.

    Raises:
        ValueError: A number is out of range.
        TypeError: initializer cannot be called.
    """

    @staticmethod
    def Process(ctx, *args, **kwds):
        """The standard class's seam; the threads of this one are the engine's."""
        from multiprocessing.dummy import Process

        return Process(*args, **kwds)

    def __init__(
        self,
        processes=None,
        initializer=None,
        initargs=(),
        *,
        task_timeout=None,
        timeout_grace=None,
        retries=0,
        retry_on=(),
    ):
        from oxgang._cpus import usable_cpus

        self._state = INIT
        self._ctx = None
        self._begin(
            usable_cpus() if processes is None else processes,
            initializer,
            initargs,
            task_timeout=task_timeout,
            timeout_grace=timeout_grace,
            retries=retries,
            retry_on=retry_on,
        )

    def _make_engine(self, limits):
        return _engines.Threads(self._processes, self._initializer, self._initargs, limits)


def _default_context():
    return context._default_context.get_context()


def _unbound(pool):
    """The pool's `Process`; one that is bound to it must not keep it alive."""
    make = pool.Process
    if getattr(make, "__self__", None) is not pool:
        return make
    method = weakref.WeakMethod(make)

    def process(*args, **kwds):
        return method()(*args, **kwds)

    return process


def _singles(items, starred):
    if starred:
        return [tuple(item) for item in items]
    # of what is at hand `zip` makes one tuple serve for all
    return zip(items) if type(items) in AT_HAND else [(item,) for item in items]


def _chunks(items, size):
    if type(items) in (list, tuple, range):
        return [(items[start : start + size],) for start in range(0, len(items), size)]
    return list(calls_of(items, size))
