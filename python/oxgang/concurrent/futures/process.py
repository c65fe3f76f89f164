"""`ProcessPoolExecutor`: the standard signature on the Rust engine.

What differs from the standard class is for the better, and on purpose: the death of a worker
costs the task that it ran (`WorkerCrashed`), and the pool goes on; data that cannot be rebuilt
costs its own task (`PayloadError`). Both are `BrokenProcessPool`, so that handlers go on working.
"""
# ruff: noqa: F822 - errors come by __getattr__

import os
import sys
import threading
import time
import weakref
from functools import partial

from oxgang import _core, _options, _standard, _template
from oxgang.concurrent.futures import _exit
from oxgang.concurrent.futures._base import Future, KillableExecutor

_SIGTERM = 15  # on every Linux; signal.py brings enum along
_MOST_OPTIONS = 1024  # then they are made anew
_KILLED = "the process pool was {how}; calls that were left are lost"


def _default_context():
    """A start method that the program has chosen for all, other than the platform's own; None:
    it has not. (That the platform's own was chosen on purpose cannot be seen: the standard
    library notes it down whenever somebody asks for the default.)"""
    context = _standard.loaded("multiprocessing.context")
    if context is None:
        return None
    chooser = context._default_context
    chosen = chooser.get_start_method(allow_none=True)
    if chosen is None or chosen == chooser._default_context.get_start_method():
        return None
    return chooser.get_context()


_context_starters = weakref.WeakSet()
# Process.start() asks all processes whether they have ended; who asks at the same time in another
# thread may be told nothing, or nonsense
_asking = threading.Lock()


def _disown_workers():
    """In a fork of the program: `multiprocessing` shall not wait for the program's workers at the
    fork's end."""
    global _asking
    _asking = threading.Lock()

    module = _standard.loaded("multiprocessing.process")
    for starter in list(_context_starters):
        if module is not None:
            module._children.difference_update(starter.processes.values())
        starter.processes = {}


os.register_at_fork(after_in_child=_disown_workers)


class _ContextStarter:
    """Starts workers by a standard multiprocessing context."""

    def __init__(self, context, initializer, initargs):
        self.context = context
        self.initializer = initializer
        self.initargs = initargs
        self.processes = {}
        _context_starters.add(self)

    def start(self, incarnation, channel, pool, wake):
        from oxgang._worker import Descriptors, run_process

        line = _template.lifeline().fileno()
        # copies: a forked child takes them for its own
        fds = [os.dup(fd) for fd in (channel, pool, wake, line)]
        try:
            arguments = Descriptors(incarnation, fds), self.initializer, self.initargs
            process = self._make(target=run_process, args=arguments)
            self._start_process(process)
        finally:
            for fd in fds:
                os.close(fd)
        return self._note(process)

    def _note(self, process):
        self.processes[process.pid] = process
        return process.pid

    def _make(self, **work):
        return self.context.Process(**work)

    def _start_process(self, process):
        method = self.context.get_start_method()
        if method == "spawn":
            from multiprocessing import resource_tracker

            resource_tracker.ensure_running()  # it unblocks SIGINT when it is started
        if method in ("spawn", "fork"):
            with _asking, _template.CtrlCLater():
                process.start()
        else:
            # what a fork server inherits, all its processes would, ours or not
            with _asking:
                process.start()

    def exitcode(self, pid):
        process = self.processes.pop(pid, None)
        if process is None:
            return None
        with _asking:
            code = process.exitcode  # it has ended, so mostly this says how
            if code is None:
                process.join(5)
                code = process.exitcode
            if code is not None:
                # off the list of children; not closed, since the program's end may be about to join
                # whoever is on it at this moment
                process.join(0)
        return code


class ProcessPoolExecutor(_core.ProcessPool, KillableExecutor):
    """Runs calls in a pool of processes; as `concurrent.futures.ProcessPoolExecutor`.

    Args:
        max_workers: Processes at most; default: CPUs that this process may use, by its affinity
            and by its container's quota.
        mp_context: A `multiprocessing` context: workers are started by it, with its meaning.
            None: by a template process (see ``docs/design``), unless the program has called
            `multiprocessing.set_start_method`.
        initializer: Called with `initargs` at the start of each worker.
        initargs: Its arguments.
        max_tasks_per_child: Calls after which a worker is replaced by a fresh one.
        arena_bytes: Bytes of arguments of unfinished calls that are held for the workers at a
            time. A call that is submitted beyond keeps its arguments as they are, and is
            encoded when its turn comes: changes that are made to them meanwhile may be seen.
        task_timeout: Seconds that a call may run, from when a worker begins it. Then
            `TaskTimeout` is raised inside it.
        timeout_grace: Seconds that it may go on after that; then its worker is ended, and its
            future raises `TaskTimeout` with the stack.
        memory_limit: Bytes that a worker may have while it runs a call, or a text such as
            "2GiB"; beyond, it is ended, and the future raises `MemoryLimitExceeded`.
        retries: How many more times a call is run that was lost with its worker.
        retry_on: Exception classes for which it is run again too.

    `arena_bytes` and what follows are oxgang's own. The limits and retries are what calls have
    that are submitted by `submit` and `map`; see ``docs/limits.md``, and `submit_with` for single
    calls; see ``docs/data.md`` for `arena_bytes`.

    Raises:
        ValueError: max_workers, max_tasks_per_child or arena_bytes is too small, or
            max_tasks_per_child is given with the start method fork; or a limit is out of range.
        TypeError: initializer cannot be called, or max_tasks_per_child or arena_bytes is no
            integer, or something else is not what it should be.
    """

    _replaces_forks = False
    _workers_name = "ProcessPoolExecutor"

    def __init__(
        self,
        max_workers=None,
        mp_context=None,
        initializer=None,
        initargs=(),
        *,
        max_tasks_per_child=None,
        arena_bytes=256 << 20,
        task_timeout=None,
        timeout_grace=None,
        memory_limit=None,
        retries=0,
        retry_on=(),
    ):
        if max_workers is None:
            from oxgang._cpus import usable_cpus  # what a container may use, not what is there

            max_workers = usable_cpus()
        elif max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if not isinstance(arena_bytes, int):
            raise TypeError("arena_bytes must be an integer")
        if arena_bytes < 0:
            raise ValueError("arena_bytes must be >= 0: a number of bytes")
        context = mp_context if mp_context is not None else _default_context()
        method = None if context is None else context.get_start_method(allow_none=False)
        if max_tasks_per_child is not None:
            if not isinstance(max_tasks_per_child, int):
                raise TypeError("max_tasks_per_child must be an integer")
            if max_tasks_per_child <= 0:
                raise ValueError("max_tasks_per_child must be >= 1")
            if method == "fork" and mp_context is None:
                context = method = None  # the template has no such trouble
            elif method == "fork" and not self._replaces_forks:
                raise ValueError(
                    "max_tasks_per_child is incompatible with the 'fork' multiprocessing start "
                    "method; supply a different mp_context."
                )
        self._options = _options.TaskOptions.of_pool(
            task_timeout,
            timeout_grace=timeout_grace,
            memory_limit=memory_limit,
            retries=retries,
            retry_on=retry_on,
        )
        self._known_options = {}
        self._max_workers = max_workers
        self._mp_context = context
        self._driver = None
        if context is None or method == "template":
            _template.refuse_while_importing_main("pool")
            self._starter = None
            setup = _template.setup(self._workers_name, initializer, initargs)
            starter = _template.get
            _template.get()  # it warms up while the program goes on to its first task
        else:
            self._starter = self._make_starter(context, initializer, initargs)
            setup = b""
            starter = (self._starter.start, self._starter.exitcode)
        self._handle = self._open(
            Future,
            (max_workers, max_tasks_per_child, arena_bytes),
            method == "fork",
            setup,
            starter,
            self._options.engine(),
        )
        # an executor that becomes garbage finishes what it has, and ends
        weakref.finalize(self, self._handle.close, False).atexit = False

    def _make_starter(self, context, initializer, initargs):
        return _ContextStarter(context, initializer, initargs)

    def _start_driver(self):
        if _exit.shutting_down:
            self._handle.kill("interpreter shutdown")
            raise _exit.closed_error()
        driver = _exit.ServingThread(target=self._driving(), name="oxgang-driver", daemon=True)
        driver.start()  # may be refused: then there is none, and the next submit tries again
        self._driver = driver
        _exit.watch(driver, self._handle)

    def _driving(self):
        """What the driver does."""
        report = sys.modules.get("oxgang._report")
        if report is None or not report.wanted():
            return self._handle.drive
        return partial(report.watched, self._handle)

    def submit_with(self, options, fn, /, *args, **kwargs):
        """`submit`, with options of this call's own.

        Args:
            options: An `oxgang.TaskOptions`; where it says nothing, the executor's count.
            fn: And all the rest: as `submit`.

        Raises:
            TypeError: options is something else.
        """
        known = self._known_options.get(_options.checked(options))
        if known is None:
            known = options.over(self._options).engine() or _options.nothing()
            if len(self._known_options) >= _MOST_OPTIONS:
                self._known_options.clear()
            self._known_options[options] = known
        return self._submit_as(known, fn, *args, **kwargs)

    def map(self, fn, *iterables, timeout=None, chunksize=1, buffersize=None):
        """See `Executor.map`. `chunksize` is checked and otherwise left to the engine, which
        hands as many calls to a worker at a time as their measured cost asks for; each call
        stays a task of its own, so that a fault costs one call and not a chunk.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        return super().map(fn, *iterables, timeout=timeout, buffersize=buffersize)

    def _map_at_hand(self, fn, calls, end_time):
        batch = self._submit_batch(fn, calls)
        timeout = None if end_time is None else end_time - time.monotonic()
        return _values(batch, batch.results(timeout))

    @property
    def _broken(self):
        return self._handle.broken() or False

    @property
    def _processes(self):
        return {} if self._starter is None else self._starter.processes

    def shutdown(self, wait=True, *, cancel_futures=False):
        """Takes no more calls. See `concurrent.futures.Executor.shutdown`."""
        self._handle.close(cancel_futures)
        if wait and self._driver is not None and not self._handle.forked():
            self._driver.join()

    def _kill(self, how):
        self._handle.kill(_KILLED.format(how=how))

    def terminate_workers(self):
        """Ends the workers by SIGTERM and the pool with them; calls that are left fail. (New
        in Python 3.14, here on every Python.)"""
        self._handle.signal(_SIGTERM)
        self._kill("terminated")
        self.shutdown(wait=False, cancel_futures=True)

    def kill_workers(self):
        """Ends the workers by SIGKILL and the pool with them; calls that are left fail. (New
        in Python 3.14, here on every Python.)"""
        self._kill("killed")
        self.shutdown(wait=False, cancel_futures=True)

    def statistics(self):
        """Counts since the start (``submitted``, ``answered``, ``lost`` with their worker,
        ``stopped`` by a limit or by `terminate`, ``retried``, ``moved`` to another one, workers
        ``started`` and ``crashed``), of answered calls the ``passed_bytes`` (calls and results as
        they were encoded) and ``lent_bytes`` (long buffers that went along in shared memory),
        ``held_bytes`` of calls as of now, and ``workers``: a list of dicts with ``incarnation``,
        ``pid``, ``ready`` and ``tasks`` at hand."""
        names = ("incarnation", "pid", "ready", "tasks")
        workers = [dict(zip(names, worker, strict=True)) for worker in self._handle.workers()]
        return {**self._handle.counters(), "workers": workers}


def _values(batch, results):
    try:
        yield from results
    finally:
        batch.cancel()


def __getattr__(name):
    # defined with the standard executor, whose import costs as much as a pool's start
    if name in __all__:
        from oxgang import errors

        return getattr(errors, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "BrokenProcessPool",
    "MemoryLimitExceeded",
    "PayloadError",
    "ProcessPoolExecutor",
    "TaskTerminated",
    "TaskTimeout",
    "WorkerCrashed",
]
