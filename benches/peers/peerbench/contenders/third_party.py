"""Libraries that extend or replace the stdlib pools on one machine."""

import asyncio
import contextlib
import importlib
import multiprocessing

from peerbench import tasks

from .base import ExecutorPool, MultiprocessingPool, Pool
from .stdlib_like import PoolOfProcesses


class Loky(ExecutorPool):
    def load(self):
        import loky

        self._loky = loky

    def start(self):
        self.executor = self._loky.get_reusable_executor(max_workers=self.workers)


class Joblib(Pool):
    """Only whole calls of Parallel: joblib has no way to submit a single task."""

    has_submit = False
    own_limit = "Parallel(timeout=)"

    def __init__(self, workers, backend):
        super().__init__(workers)
        self.backend = backend
        self.has_chunks = backend != "threading"
        self._open = contextlib.ExitStack()
        self._parallels = {}

    def load(self):
        import joblib

        self._joblib = joblib

    def start(self):
        self._parallel("auto")

    def _parallel(self, batch_size):
        """One Parallel per batch size, kept open as the documentation advises."""
        if batch_size not in self._parallels:
            self._parallels[batch_size] = self._open.enter_context(
                self._joblib.Parallel(
                    n_jobs=self.workers, backend=self.backend, batch_size=batch_size
                )
            )
        return self._parallels[batch_size]

    def call(self, fn, *args):
        return self._parallel("auto")([self._joblib.delayed(fn)(*args)])[0]

    def calls(self, fn, argument, times):
        delayed = self._joblib.delayed(fn)
        return self._parallel("auto")(delayed(argument) for _ in range(times))

    def both_at_work(self, directory, limit):
        delayed = self._joblib.delayed(tasks.meet)
        return all(self._parallel(1)(delayed(directory, limit) for _ in range(2)))

    def map(self, fn, items, chunksize=None):
        delayed = self._joblib.delayed(fn)
        return self._parallel(chunksize or "auto")(delayed(x) for x in items)

    def call_limited(self, fn, args, seconds):
        limited = self._joblib.Parallel(n_jobs=self.workers, backend=self.backend, timeout=seconds)
        return limited([self._joblib.delayed(fn)(*args)])[0]

    def close(self):
        self._open.close()
        if self.backend == "loky":  # else its workers wait on for the next call
            from joblib.externals.loky import get_reusable_executor

            get_reusable_executor().shutdown(wait=True)

    def leave(self, *exc_info):
        self._open.__exit__(*exc_info)


class Mpire(Pool):
    own_limit = "apply(task_timeout=)"

    def __init__(self, workers, start_method):
        super().__init__(workers)
        self.start_method = start_method

    def load(self):
        import mpire

        self._mpire = mpire

    def start(self):
        self._mapped_before = self._applied_before = False
        self.pool = self._mpire.WorkerPool(
            n_jobs=self.workers, start_method=self.start_method, keep_alive=True
        )

    def submit(self, fn, *args):
        self._applied_before = True
        return self.pool.apply_async(fn, args)

    def result(self, handle):
        return handle.get()

    def map(self, fn, items, chunksize=None):
        if self._applied_before and not self._mapped_before:
            # mpire 2.10 fails a map that follows apply_async on workers that have not
            # mapped yet (it passes the item and its index): give it fresh workers
            self.close()
            self.start()
        self._mapped_before = True
        return self.pool.map(fn, items, chunk_size=chunksize)

    def call_limited(self, fn, args, seconds):
        return self.pool.apply(fn, args, task_timeout=seconds)

    def calls_shared(self, array, times):
        sharing = self._mpire.WorkerPool(
            n_jobs=self.workers, shared_objects=array, start_method=self.start_method
        )
        with sharing:
            return sharing.map(tasks.take_from_registry, range(times), chunk_size=1)

    def close(self):
        self.pool.stop_and_join()

    def leave(self, *exc_info):
        self.pool.__exit__(*exc_info)


class Pebble(Pool):
    own_limit = "schedule(timeout=)"

    def __init__(self, workers, start_method):
        super().__init__(workers)
        self.start_method = start_method

    def load(self):
        import pebble

        self._pebble = pebble

    def start(self):
        self.pool = self._pebble.ProcessPool(
            max_workers=self.workers, context=multiprocessing.get_context(self.start_method)
        )

    def submit(self, fn, *args):
        return self.pool.schedule(fn, args=args)

    def result(self, handle):
        return handle.result()

    def map(self, fn, items, chunksize=None):
        extra = {} if chunksize is None else {"chunksize": chunksize}
        return list(self.pool.map(fn, items, **extra).result())

    def call_limited(self, fn, args, seconds):
        return self.pool.schedule(fn, args=args, timeout=seconds).result()

    def close(self):
        self.pool.close()
        self.pool.join()

    def leave(self, *exc_info):
        self.pool.__exit__(*exc_info)


class PebbleThreads(Pebble):
    has_chunks = False

    def __init__(self, workers):
        super().__init__(workers, None)

    def start(self):
        self.pool = self._pebble.ThreadPool(max_workers=self.workers)


class Multiprocess(PoolOfProcesses):
    """pathos' fork of multiprocessing: the same code, pickled by dill."""

    def __init__(self, workers, start_method):
        super().__init__(workers, start_method, multiprocessing="multiprocess")


class Billiard(MultiprocessingPool):
    """celery's fork of multiprocessing."""

    own_limit = "apply_async(timeout=)"

    def __init__(self, workers, start_method):
        super().__init__(workers)
        self.start_method = start_method

    def load(self):
        self._module = importlib.import_module("billiard")

    def start(self):
        self.pool = self._module.get_context(self.start_method).Pool(self.workers)

    def call_limited(self, fn, args, seconds):
        return self.pool.apply_async(fn, args, timeout=seconds).get()


async def _as_coroutine(fn, args):
    return fn(*args)


async def _as_coroutine_of_one(packed):
    fn, argument = packed
    return fn(argument)


async def _nested_coroutine(workers):
    import aiomultiprocess

    async with aiomultiprocess.Pool(processes=workers) as pool:
        return sum(await pool.map(_as_coroutine_of_one, [(tasks.noop, x) for x in (1, 2, 3, 4)]))


class Aiomultiprocess(Pool):
    """A pool of event loops; one coroutine at a time per worker, as tasks block."""

    has_chunks = False
    own_limit = "asyncio.wait_for"

    def load(self):
        import aiomultiprocess

        self._aiomultiprocess = aiomultiprocess

    def start(self):
        self.loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self.loop)
        self.pool = self.loop.run_until_complete(self._make())

    async def _make(self):
        return self._aiomultiprocess.Pool(processes=self.workers, childconcurrency=1)

    def submit(self, fn, *args):
        return self.loop.create_task(self.pool.apply(_as_coroutine, (fn, args)))

    def result(self, handle):
        return self.loop.run_until_complete(handle)

    def gather(self, handles):
        async def all_of_them():
            return await asyncio.gather(*handles)

        return self.loop.run_until_complete(all_of_them())

    def map(self, fn, items, chunksize=None):
        async def mapped():
            return await self.pool.map(_as_coroutine_of_one, [(fn, x) for x in items])

        return list(self.loop.run_until_complete(mapped()))

    def nest(self, name):
        return self.loop.run_until_complete(self.pool.apply(_nested_coroutine, (self.workers,)))

    def call_limited(self, fn, args, seconds):
        return self.loop.run_until_complete(
            asyncio.wait_for(self.pool.apply(_as_coroutine, (fn, args)), seconds)
        )

    def close(self):
        self.pool.close()
        self.loop.run_until_complete(self.pool.join())
        self.loop.close()

    def leave(self, *exc_info):
        self.loop.run_until_complete(self.pool.__aexit__(*exc_info))
