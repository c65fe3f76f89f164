"""Schedulers made for clusters, here with all their parts on one machine."""

import os
import tempfile

from peerbench import tasks

from .base import Pool


class Ray(Pool):
    own_limit = "ray.get(timeout=) + ray.cancel(force=True)"

    def load(self):
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray

        self._ray = ray

    def start(self):
        self._chunking = None
        self._remotes = {}
        self._ray.init(
            address="local",
            num_cpus=self.workers,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            _temp_dir=os.path.join(tempfile.gettempdir(), "ray"),
        )

    def _remote(self, fn):
        if fn not in self._remotes:
            self._remotes[fn] = self._ray.remote(fn)
        return self._remotes[fn]

    def submit(self, fn, *args):
        return self._remote(fn).remote(*args)

    def result(self, handle):
        return self._ray.get(handle)

    def gather(self, handles):
        return self._ray.get(handles)

    def map(self, fn, items, chunksize=None):
        """One ray task per item for chunksize=1; else ray's own multiprocessing.Pool."""
        if chunksize == 1:
            remote = self._remote(fn)
            return self._ray.get([remote.remote(x) for x in items])
        if self._chunking is None:
            from ray.util.multiprocessing import Pool as RayPool

            # num_cpus=0: its actors must not take the CPUs that plain tasks need
            self._chunking = RayPool(self.workers, ray_remote_args={"num_cpus": 0})
        return self._chunking.map(fn, items)

    def call_limited(self, fn, args, seconds):
        ref = self._remote(fn).remote(*args)
        try:
            return self._ray.get(ref, timeout=seconds)
        except self._ray.exceptions.GetTimeoutError:
            self._ray.cancel(ref, force=True)
            raise

    def calls_shared(self, array, times):
        return self.calls(tasks.take, self._ray.put(array), times)

    def run_nested(self, fn, items):
        self.load()
        remote = self._ray.remote(fn)
        return sum(self._ray.get([remote.remote(x) for x in items]))

    def close(self):
        self._ray.shutdown()


class Dask(Pool):
    has_chunks = False
    own_limit = "result(timeout=) + cancel()"

    def load(self):
        import distributed

        self._distributed = distributed

    def start(self):
        self.cluster = self._distributed.LocalCluster(
            n_workers=self.workers,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            silence_logs="CRITICAL",
            local_directory=tempfile.gettempdir(),
        )
        self.client = self._distributed.Client(self.cluster)

    def submit(self, fn, *args):
        # pure=False: every submit is a new task, never answered from an earlier one
        return self.client.submit(fn, *args, pure=False)

    def result(self, handle):
        return handle.result()

    def gather(self, handles):
        return self.client.gather(handles)

    def map(self, fn, items, chunksize=None):
        return self.client.gather(self.client.map(fn, items, pure=False))

    def call_limited(self, fn, args, seconds):
        future = self.submit(fn, *args)
        try:
            return future.result(timeout=seconds)
        except self._distributed.TimeoutError:
            future.cancel()
            raise

    def calls_shared(self, array, times):
        handle = self.client.scatter(array, broadcast=True)
        return self.calls(tasks.take, handle, times)

    def run_nested(self, fn, items):
        from distributed import worker_client

        with worker_client() as client:
            return sum(client.gather(client.map(fn, list(items), pure=False)))

    def close(self):
        self.client.close()
        self.cluster.close()
