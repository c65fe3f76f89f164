"""`AsyncResult` and `MapResult`: what a pool's calls will give, on futures and on batches."""

import threading
from concurrent.futures import CancelledError
from multiprocessing import context

__all__ = ["ApplyResult", "AsyncResult", "MapResult", "own_error"]


def own_error(error):
    """The error of a call as pools have it: its remote traceback is of the class of theirs."""
    cause = error.__cause__
    if type(cause).__name__ == "_RemoteTraceback":
        from multiprocessing.pool import RemoteTraceback

        error.__cause__ = RemoteTraceback(cause.tb)
    return error


class ApplyResult:
    """The result to come of a call."""

    _told = None

    def __init__(self, pool, future, callback=None, error_callback=None):
        self._pool = pool  # it lives as long as somebody may ask for what it does
        self._future = future
        if callback is not None or error_callback is not None:
            self._told = threading.Event()
            self._callbacks = callback, error_callback
            future.add_done_callback(self._tell)

    def _tell(self, _future=None):
        """Calls back, before anybody who waits is let go. An error of a callback is logged, as that
        of a future's is, and keeps nobody waiting."""
        callback, error_callback = self._callbacks
        try:
            value, error = self._outcome()
            if error is None and callback is not None:
                callback(value)
            elif error is not None and error_callback is not None:
                error_callback(error)
        finally:
            del self._callbacks
            self._told.set()

    def _outcome(self):
        """Value and error of what is done."""
        try:
            return self._future.result(), None
        except BaseException as error:
            return None, own_error(error)

    def ready(self):
        """Whether it is done."""
        return self._future.done() if self._told is None else self._told.is_set()

    def successful(self):
        """Whether it is done without an error.

        Raises:
            ValueError: It is not done.
        """
        if not self.ready():
            raise ValueError(f"{self!r} not ready")
        return self._outcome()[1] is None

    def wait(self, timeout=None):
        """Waits until it is done, for `timeout` seconds at most."""
        if self._told is not None:
            self._told.wait(timeout)
            return
        try:
            self._future.exception(timeout)
        except (TimeoutError, CancelledError):
            return

    def get(self, timeout=None):
        """The call's value, or its error, raised.

        Raises:
            TimeoutError: It is not done in time (`multiprocessing.TimeoutError`).
            WorkerCrashed: Its worker ended without an answer.
        """
        if self._told is not None and not self._told.wait(timeout):
            raise context.TimeoutError
        future = self._future
        try:
            return future.result(timeout)
        except BaseException as error:
            if isinstance(error, TimeoutError) and not future.done():
                raise context.TimeoutError from None
            own_error(error)
            raise
        finally:
            del self, future


AsyncResult = ApplyResult


class MapResult(ApplyResult):
    """The results to come of a map. It is done when all of its calls are; the first error in
    their order stands for all."""

    def __init__(self, pool, batch, chunked, error, callbacks):
        self._pool = pool
        self._batch = batch  # None: there is nothing to wait for
        self._chunked = chunked
        self._settled = None if batch is not None else ([] if error is None else None, error)
        self._settling = threading.Lock()
        if callbacks == (None, None):
            return
        self._told = threading.Event()
        self._callbacks = callbacks
        if batch is not None:
            batch.add_done_callback(self._tell)
        elif error is not None:
            self._tell()
        else:
            self._told.set()  # as in the standard pools: nobody is called for nothing

    def _outcome(self):
        with self._settling:
            if self._settled is None:
                values, error = self._batch.take(self._chunked)
                settled = (values, None) if error is None else (None, own_error(error))
                self._settled, self._batch = settled, None
        return self._settled

    def ready(self):
        """Whether all of it is done."""
        if self._told is not None:
            return self._told.is_set()
        batch = self._batch
        return batch is None or batch.done()

    def wait(self, timeout=None):
        """Waits until all of it is done, for `timeout` seconds at most."""
        try:
            self._wait(timeout)
        except context.TimeoutError:
            return

    def _wait(self, timeout):
        if self._told is not None:
            if not self._told.wait(timeout):
                raise context.TimeoutError
        elif (batch := self._batch) is not None:
            try:
                batch.wait(timeout)
            except TimeoutError:
                raise context.TimeoutError from None

    def get(self, timeout=None):
        """The list of values, or the first error, raised.

        Raises:
            TimeoutError: Not all is done in time (`multiprocessing.TimeoutError`).
            WorkerCrashed: A worker ended without an answer.
        """
        self._wait(timeout)
        value, error = self._outcome()
        if error is None:
            return value
        try:
            raise error
        finally:
            del self, error
