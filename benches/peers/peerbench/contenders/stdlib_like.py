"""The standard library, and oxgang, which promises the same surface.

Both columns run through the very same code: only the module names differ.
"""

import importlib

from .base import ExecutorPool, MultiprocessingPool, share_by_hand


class _Sharing:
    """Tasks over one array through multiprocessing.shared_memory."""

    multiprocessing = "multiprocessing"

    def calls_shared(self, array, times):
        module = importlib.import_module(self.multiprocessing + ".shared_memory")
        return share_by_hand(self, array, times, module)


class Processes(_Sharing, ExecutorPool):
    def __init__(self, workers, start_method, root=""):
        super().__init__(workers)
        self.start_method = start_method
        self.futures = root + "concurrent.futures"
        self.multiprocessing = root + "multiprocessing"

    def load(self):
        self._futures = importlib.import_module(self.futures)
        self._multiprocessing = importlib.import_module(self.multiprocessing)
        self._futures.ProcessPoolExecutor  # the stdlib loads it on first touch

    def start(self):
        self.executor = self._futures.ProcessPoolExecutor(
            self.workers, mp_context=self._multiprocessing.get_context(self.start_method)
        )


class Threads(ExecutorPool):
    has_chunks = False  # accepted, but ignored, by thread executors

    def __init__(self, workers, root=""):
        super().__init__(workers)
        self.futures = root + "concurrent.futures"

    def load(self):
        self._futures = importlib.import_module(self.futures)
        self._futures.ThreadPoolExecutor

    def start(self):
        self.executor = self._futures.ThreadPoolExecutor(self.workers)


class PoolOfProcesses(_Sharing, MultiprocessingPool):
    def __init__(self, workers, start_method, multiprocessing="multiprocessing"):
        super().__init__(workers)
        self.start_method = start_method
        self.multiprocessing = multiprocessing

    def load(self):
        self._module = importlib.import_module(self.multiprocessing)
        self._module.Pool

    def start(self):
        self.pool = self._module.get_context(self.start_method).Pool(self.workers)


class PoolOfThreads(MultiprocessingPool):
    def __init__(self, workers, multiprocessing="multiprocessing"):
        super().__init__(workers)
        self.multiprocessing = multiprocessing

    def load(self):
        self._pool_module = importlib.import_module(self.multiprocessing + ".pool")

    def start(self):
        self.pool = self._pool_module.ThreadPool(self.workers)
