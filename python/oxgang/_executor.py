"""`oxgang.Executor`: one face for pools of threads, of processes, and of coroutines.

A `concurrent.futures.Executor` whose `model` is an argument, so that a program changes its
mind in one place. The pools themselves are the drop-ins of `oxgang.concurrent.futures`, and
`oxgang.asyncio.CoroutinePoolExecutor`; this class chooses one, gives it a sensible size, and adds
what the standard face lacks: a `map` with back-pressure and retries, and an end to the running work
when Ctrl-C or `sys.exit` leaves the `with` block.
"""

import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Executor as StandardExecutor
from concurrent.futures import Future

from oxgang import _telemetry
from oxgang._cpus import usable_cpus
from oxgang._map import check_options, values

MODELS = ("auto", "process", "thread", "coroutine")
LATER_MODELS = ("interpreter",)
START_METHODS = ("template", "spawn", "fork", "forkserver")


class Executor(StandardExecutor):
    """A pool of workers.

    model: "process"; "thread"; "coroutine", for coroutine functions, on an event loop in a thread
        of its own; or "auto", which for now means "process".
    max_workers: by default the processors this process may really use (affinity and
        container quota counted); for threads 4 more, at most 32, since they mostly wait; for
        coroutines, which are then in flight at once, 100.
    initializer, initargs: called once in every worker before its first task; on the loop of
        coroutines, where it may be a coroutine function.
    start_method: how worker processes come to exist: "template", "spawn", "fork" or
        "forkserver"; None is the pool's own default.
    retries: what `map` takes where it is not told otherwise. `submit` runs its task once.
    task_timeout: seconds that each task may run; then `oxgang.errors.TaskTimeout` is raised in it.
        (A coroutine is cancelled.)
    timeout_grace: seconds that it may go on after that; then it is ended with its worker. (A
        thread or a coroutine cannot be: its future fails.)
    memory_limit: bytes that a worker may have while it runs a task, or a text such as "2GiB";
        beyond, it is ended: `oxgang.errors.MemoryLimitExceeded`. Not for threads, nor for
        coroutines without `processes`.
    context: a task in a thread, or a coroutine, runs in a copy of the `contextvars` context in
        which it was submitted. To processes, and only if OpenTelemetry is in use, its context goes
        along.
    forward_logs: log records and warnings of worker processes arrive in this one: those that the
        root logger's level lets pass when the executor is made. All have arrived when
        `shutdown` has returned.
    processes, concurrency, loop, watch_blocking: of coroutines; see
        `oxgang.asyncio.CoroutinePoolExecutor`.
    """

    def __init__(
        self,
        model: str = "auto",
        max_workers: int | None = None,
        *,
        initializer: Callable[..., object] | None = None,
        initargs: tuple = (),
        start_method: str | None = None,
        retries: int = 0,
        task_timeout: float | None = None,
        timeout_grace: float | None = None,
        memory_limit: int | str | None = None,
        context: bool = True,
        forward_logs: bool = False,
        processes: int | None = None,
        concurrency: int | None = None,
        loop: str | Callable | None = None,
        watch_blocking: float | None = None,
    ):
        self.model = _checked_model(model)
        of_coroutines = {
            "processes": processes,
            "concurrency": concurrency,
            "loop": loop,
            "watch_blocking": watch_blocking,
        }
        of_coroutines = {name: one for name, one in of_coroutines.items() if one is not None}
        _check_of_coroutines(of_coroutines, self.model)
        _check_start_method(start_method, self.model, processes)
        check_options(len, retries, "auto")
        self._retries = retries
        self._others = {}  # by model; see `submit_to`
        self._ended = False
        self._lock = threading.Lock()
        limits = {
            "task_timeout": task_timeout,
            "timeout_grace": timeout_grace,
            "memory_limit": memory_limit,
        }
        limits = {name: limit for name, limit in limits.items() if limit is not None}
        self._forwarding = None
        in_processes = self.model == "process" or processes is not None
        if forward_logs and in_processes:
            forwarder = _forwarder()
            initializer, initargs = forwarder.initializer(initializer, initargs)
            self._forwarding = weakref.finalize(self, forwarder.close)
        options = {"initializer": initializer, "initargs": initargs, **limits, **of_coroutines}
        if self.model != "process":
            options["context"] = context
        self._carries = context and self.model == "process"
        self._pool = _make_pool(self.model, max_workers, start_method, options)
        # Others look here too (joblib, dask), as they do on the standard pools.
        self._max_workers = self._pool._max_workers

    def submit(self, fn, /, *args, **kwargs) -> Future:
        """Schedule `fn(*args, **kwargs)`; return its future."""
        if self._carries and _telemetry.is_loaded():
            return self._pool.submit(*_telemetry.carried(fn), *args, **kwargs)
        return self._pool.submit(fn, *args, **kwargs)

    def submit_with(self, options, fn, /, *args, **kwargs) -> Future:
        """`submit`, with an `oxgang.TaskOptions` for this task alone; where that says nothing,
        the executor's limits count."""
        if self._carries and _telemetry.is_loaded():
            return self._pool.submit_with(options, *_telemetry.carried(fn), *args, **kwargs)
        return self._pool.submit_with(options, fn, *args, **kwargs)

    def submit_to(self, model: str, fn, /, *args, **kwargs) -> Future:
        """`submit`, to workers of another model that belong to this executor: so a coroutine of it
        may ``await executor.submit_to("process", parse, page)``. They are made at the first such
        call, as many as an executor of that model has by default, and end with this one.

        Raises:
            ValueError: there is no such model.
            RuntimeError: the executor is shut down.
        """
        model = _checked_model(model)
        if model == self.model:
            return self.submit(fn, *args, **kwargs)
        with self._lock:
            other = self._others.get(model)
            if other is None:
                if self._ended:
                    raise RuntimeError("cannot schedule new futures after shutdown")
                other = self._others[model] = Executor(model)
        return other.submit(fn, *args, **kwargs)

    def map(
        self,
        fn,
        *iterables,
        timeout: float | None = None,
        chunksize: int | str = "auto",
        ordered: bool = True,
        retries: int | None = None,
        return_exceptions: bool = False,
        progress: bool | str = False,
        task_timeout: float | None = None,
        memory_limit: int | str | None = None,
        seed: int | None = None,
    ) -> Iterator:
        """As `oxgang.map`, on this pool, which stays open.

        Unlike the standard `map` it reads its inputs as the results are taken, not all at the
        call. Closing the iterator early cancels what has not begun.
        """
        return values(
            self.target(),
            fn,
            iterables,
            chunksize=chunksize,
            ordered=ordered,
            timeout=timeout,
            retries=self._retries if retries is None else retries,
            progress=progress,
            return_exceptions=return_exceptions,
            task_timeout=task_timeout,
            memory_limit=memory_limit,
            seed=seed,
            model=self.model,
        )

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more tasks, finish those taken (or cancel what has not begun), and end.

        wait: return when that is done, also in the pools of `submit_to`, which serve what still
            runs until then. Otherwise these take no more tasks from now on, either.
        """
        self._pool.shutdown(wait=wait, cancel_futures=cancel_futures)
        for other in self._close_others():
            other.shutdown(wait=wait, cancel_futures=cancel_futures)
        if wait and self._forwarding is not None:
            self._forwarding()

    def terminate_workers(self) -> None:
        """Ask the worker processes to end, running tasks or not; the pool is shut down. So are the
        pools of `submit_to`."""
        self._stop_workers("terminate_workers")

    def kill_workers(self) -> None:
        """End the worker processes at once, running tasks or not; the pool is shut down. So are the
        pools of `submit_to`."""
        self._stop_workers("kill_workers")

    def statistics(self) -> dict:
        """What the pool counts, as a plain dict; empty for a pool that counts nothing."""
        count = getattr(self._pool, "statistics", None)
        return {} if count is None else count()

    def __exit__(self, exc_type, exc_value, traceback):
        # whoever ends the program does not want to wait for its tasks
        interrupted = exc_type is not None and issubclass(exc_type, (KeyboardInterrupt, SystemExit))
        self.end(stop=interrupted, wait=not interrupted, cancel=interrupted)
        return False

    def __repr__(self):
        return f"<oxgang.Executor model={self.model!r} max_workers={self._max_workers}>"

    # For oxgang's own modules.

    def target(self):
        """What `map` submits to: the pool itself, unless a subclass has its own `submit`."""
        own = type(self).submit is not Executor.submit
        return self if own or (self._carries and _telemetry.is_loaded()) else self._pool

    def end(self, *, stop, wait, cancel=True, reap=True):
        """Shut down.

        stop: end running tasks too, where the pool can; `reap`: and wait until that is done.
        wait: otherwise wait for the running tasks. A Ctrl-C meanwhile stops them.
        """
        if stop and self._kill():
            wait = reap
        try:
            self.shutdown(wait=wait, cancel_futures=cancel)
        except KeyboardInterrupt:
            self.shutdown(wait=self._kill(), cancel_futures=True)
            raise

    def _close_others(self):
        with self._lock:
            self._ended = True
            return list(self._others.values())

    def _kill(self):
        """End the workers where that can be done; whether it could."""
        for other in self._close_others():
            other._kill()
        possible = self._can_stop("kill_workers")
        if possible:
            self._pool.kill_workers()
        return possible

    def _can_stop(self, how):
        return callable(getattr(self._pool, how, None))

    def _stop_workers(self, how):
        if self.model == "thread":
            raise ValueError("threads cannot be stopped from outside; use model='process'")
        if not self._can_stop(how):
            raise NotImplementedError(f"{type(self._pool).__qualname__} has no {how}()")
        others = self._close_others()  # first, so that no running task gets a new one
        getattr(self._pool, how)()
        for other in others:
            if other._can_stop(how):
                getattr(other._pool, how)()
            else:
                other.shutdown(wait=False, cancel_futures=True)


def _forwarder():
    from oxgang._forward import Forwarder

    return Forwarder()


def _checked_model(model):
    if model in LATER_MODELS:
        raise ValueError(f"model {model!r} does not exist yet; use one of: {', '.join(MODELS)}")
    if model not in MODELS:
        raise ValueError(f"unknown model {model!r}; use one of: {', '.join(MODELS)}")
    return "process" if model == "auto" else model


def _check_of_coroutines(options, model):
    if options and model != "coroutine":
        raise ValueError(f"{next(iter(options))} is for coroutines; use model='coroutine' with it")


def _check_start_method(start_method, model, processes):
    if start_method is None:
        return
    if model == "thread" or (model == "coroutine" and processes is None):
        raise ValueError(f"start_method is for processes; leave it out with model={model!r}")
    if start_method not in START_METHODS:
        raise ValueError(
            f"unknown start_method {start_method!r}; use one of: {', '.join(START_METHODS)}"
        )


def _make_pool(model, max_workers, start_method, options):
    from oxgang.concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

    if model == "thread":
        if max_workers is None:
            max_workers = min(32, usable_cpus() + 4)
        return ThreadPoolExecutor(max_workers, **options)
    context = None
    if start_method not in (None, "template"):
        import multiprocessing

        context = multiprocessing.get_context(start_method)
    if model == "coroutine":
        from oxgang.asyncio import CoroutinePoolExecutor

        return CoroutinePoolExecutor(max_workers, mp_context=context, **options)
    return ProcessPoolExecutor(
        usable_cpus() if max_workers is None else max_workers,
        mp_context=context,
        **options,
    )
