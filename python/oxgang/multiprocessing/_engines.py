"""What pools run their calls on: the executors, with the manners of a pool.

Three things are different from an executor: all workers are started at once; the workers are made
by the pool's own `Process`; and what has not begun when the program ends, or when nobody has the
pool any more, is not done.
"""

import threading
from multiprocessing import util

from oxgang._worker import POOL_WORKER
from oxgang.concurrent.futures import _exit, process, thread
from oxgang.multiprocessing import _pool_worker

_AFTER_POOLS = 14  # pools end at 15; see `util`
_LAST_S = 10.0  # for a callback that does not come to its end when the program does
_ENDED = "the pool was terminated; calls that were left are lost"


class _PoolStarter(process._ContextStarter):
    """Starts workers by a pool's `Process`: daemonic, with names of their own."""

    def __init__(self, make, *context_and_work):
        super().__init__(*context_and_work)
        self.make = make
        self.failure = None
        self.not_processes = []

    def _make(self, **work):
        made = self.make(self.context, **work)
        made.name = made.name.replace("Process", "PoolWorker")
        made.daemon = True
        return made

    def _start_process(self, made):
        try:
            super()._start_process(made)
        except Exception as failure:
            self.failure = self.failure or failure
            raise

    def _note(self, made):
        if getattr(made, "pid", None) is not None:
            return super()._note(made)
        self.not_processes.append(made)
        return None

    def refuse(self):
        """Raises if something that should have started has not; ends what has."""
        failure = self.failure
        if failure is None and self.not_processes:
            what = type(self.not_processes[0]).__name__
            failure = TypeError(f"a pool's Process must make processes; {what} has no pid")
        if failure is None:
            return
        for made in [*self.processes.values(), *self.not_processes]:
            made.terminate()
            made.join()
        raise failure


def _drive():
    drive, end = threading.current_thread().arguments
    try:
        drive()
    finally:
        end.cancel()


def _end(handle, driver):
    """At the program's end."""
    handle.kill(_ENDED)
    driver.join(_LAST_S)


class Processes(process.ProcessPoolExecutor):
    """Calls in processes. `make(context, target=…, args=…)` makes one."""

    _replaces_forks = True
    _workers_name = POOL_WORKER

    def __init__(self, make, count, context, work, most_calls, limits):  # noqa: PLR0917
        self._make = make
        super().__init__(
            count,
            context,
            _pool_worker.begin,
            work,
            max_tasks_per_child=most_calls,
            **limits,
        )

    def _make_starter(self, *context_and_work):
        return _PoolStarter(self._make, *context_and_work)

    def _start_driver(self):
        if self._driver is None:
            driver = _exit.ServingThread(target=_drive, name="oxgang-driver", daemon=True)
            # not `_exit`'s, which is for those who finish what they have; and by the time at which
            # the interpreter goes there must be nobody who would still want it
            end = util.Finalize(None, _end, (self._handle, driver), exitpriority=_AFTER_POOLS)
            driver.arguments = self._driving(), end
            driver.start()
            self._driver = driver

    def begin(self):
        """Starts everything."""
        try:
            self._handle.start_all()
        finally:
            if self._starter is not None:
                self._starter.refuse()
        self._start_driver()

    def sendable(self, call, function):
        """`call` (a class of `_pool_worker`) of the function, encoded once."""
        return self._encoded(function, call.encoded(function))

    def single(self, function):
        """What stands for the function itself in many submits."""
        same = self._same(function)
        return same if same is not function else self.sendable(_pool_worker.One, function)

    def workers(self):
        """The processes that are at work."""
        if self._starter is not None:
            return list(self._starter.processes.values())
        return [_TemplateWorker(pid) for _, pid, _, _ in self._handle.workers()]

    def close(self):
        """Takes no more calls."""
        self._handle.close(False)

    def end(self):
        """Ends the workers; calls that are left fail."""
        self._handle.kill(_ENDED)

    def join(self):
        """Waits for all workers to end."""
        if not self._handle.forked():
            self._driver.join()


class _TemplateWorker:
    """A worker that the template has forked, as far as its owner sees it."""

    daemon = True
    exitcode = None

    def __init__(self, pid):
        self.pid = self.ident = pid
        self.name = f"PoolWorker-{pid}"

    def is_alive(self):
        """Those that have ended are not listed."""
        return True


class _PoolThreads(thread._Threads):
    def note(self, thread):
        _exit.watch(thread, _AtExit(self.queue))


class _AtExit:
    """A queue whose calls that have not begun are given up at the program's end. Those that run are
    waited for: the interpreter cannot end under a thread that is in the middle of them."""

    def __init__(self, queue):
        self.queue = queue

    def close(self, _cancel):
        """Gives up what has not begun."""
        _give_up(self.queue)


def _give_up(queue):
    queue.give_up(thread._broken_thread_pool()(_ENDED))
    queue.close(True)


class Threads(thread.ThreadPoolExecutor):
    """Calls in threads."""

    def __init__(self, count, initializer, initargs, limits):
        super().__init__(count, "ThreadPool", initializer, initargs, **limits)

    def _make_starter(self, queue, prefix, start):
        return _PoolThreads(queue, prefix, start)

    def begin(self):
        """Starts everything."""
        self._start_all()

    def sendable(self, call, function):
        """`call` (a class of `_pool_worker`) of the function."""
        return call(function)

    def single(self, function):
        """The function."""
        return function

    def workers(self):
        """The threads."""
        return list(self._threads)

    def close(self):
        """Takes no more calls."""
        self._queue.close(False)

    def end(self):
        """Gives up what has not begun; what runs goes on."""
        _give_up(self._queue)

    def join(self):
        """Waits for all threads to end."""
        self.shutdown()
