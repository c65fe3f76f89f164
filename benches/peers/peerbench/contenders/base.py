"""What every pool contender offers to the workloads.

One adapter = one library, used the way its own documentation shows. An adapter
never adds a feature its library lacks: where there is no way to submit a single
task, or no chunk size, the flag says so and the workload leaves that cell empty.
"""

import contextlib
import sys

from peerbench import tasks


class Pool:
    has_submit = True  # single tasks can be submitted
    has_chunks = True  # map takes a chunk size
    own_limit = "result(timeout=)"  # how the library limits a task's run time

    def __init__(self, workers):
        self.workers = workers

    # -- life ------------------------------------------------------------

    def load(self):
        """Import the library. Kept apart from start() so that it can be timed."""

    def start(self):
        """Open the pool."""

    def close(self):
        """Orderly end: finish the work, stop the workers."""

    def leave(self, *exc_info):
        """What the end of the library's own `with` block does."""
        self.close()

    @contextlib.contextmanager
    def opened(self):
        self.load()
        self.start()
        try:
            yield self
        finally:
            self.close()

    # -- work ------------------------------------------------------------

    def submit(self, fn, *args):
        raise NotImplementedError

    def result(self, handle):
        raise NotImplementedError

    def gather(self, handles):
        return [self.result(h) for h in handles]

    def call(self, fn, *args):
        """One task, there and back."""
        return self.result(self.submit(fn, *args))

    def map(self, fn, items, chunksize=None):
        """All results in order; None leaves chunking to the library."""
        raise NotImplementedError

    def calls(self, fn, argument, times):
        """The same call `times` over, all in flight together."""
        return self.gather([self.submit(fn, argument) for _ in range(times)])

    def both_at_work(self, directory, limit):
        """True if two tasks ran at the same moment in two workers."""
        return all(self.gather([self.submit(tasks.meet, directory, limit) for _ in range(2)]))

    # -- special ---------------------------------------------------------

    def call_limited(self, fn, args, seconds):
        """One task under a time limit, by the library's own means."""
        raise NotImplementedError

    def calls_shared(self, array, times):
        """`times` tasks over one array by the library's own way to share data.

        Returns the list of results, or None where there is no such way.
        """
        return None

    def nest(self, name):
        """A task that opens a pool of the contender `name` in its worker: must give 10."""
        return self.call(tasks.nested, name)

    def run_nested(self, fn, items):
        """Called inside a worker: open this kind of pool there and use it."""
        self.load()
        self.start()
        try:
            return sum(self.map(fn, items))
        finally:
            self.leave(*sys.exc_info())


class ExecutorPool(Pool):
    """Anything shaped like concurrent.futures.Executor."""

    executor = None

    def submit(self, fn, *args):
        return self.executor.submit(fn, *args)

    def result(self, handle):
        return handle.result()

    def map(self, fn, items, chunksize=None):
        if chunksize is None:
            return list(self.executor.map(fn, items))
        return list(self.executor.map(fn, items, chunksize=chunksize))

    def call_limited(self, fn, args, seconds):
        return self.submit(fn, *args).result(timeout=seconds)

    def close(self):
        self.executor.shutdown(wait=True)

    def leave(self, *exc_info):
        self.executor.__exit__(*exc_info)


class MultiprocessingPool(Pool):
    """Anything shaped like multiprocessing.Pool."""

    own_limit = "get(timeout=)"
    pool = None

    def submit(self, fn, *args):
        return self.pool.apply_async(fn, args)

    def result(self, handle):
        return handle.get()

    def map(self, fn, items, chunksize=None):
        return self.pool.map(fn, items, chunksize)

    def call_limited(self, fn, args, seconds):
        return self.submit(fn, *args).get(timeout=seconds)

    def close(self):
        self.pool.close()
        self.pool.join()

    def leave(self, *exc_info):
        self.pool.__exit__(*exc_info)


def share_by_hand(pool, array, times, shared_memory):
    """The stdlib's own way to share an array: a named block, written by hand."""
    import numpy

    block = shared_memory.SharedMemory(create=True, size=array.nbytes)
    try:
        copy = numpy.ndarray(array.shape, dtype=array.dtype, buffer=block.buf)
        copy[:] = array
        del copy
        return pool.gather(
            [pool.submit(tasks.take_shared, block.name, len(array)) for _ in range(times)]
        )
    finally:
        block.close()
        block.unlink()
