"""Log records and warnings of worker processes, in the process that owns them.

In a worker the root logger has one handler, the standard `QueueHandler`, and warnings go the same
way: into a queue between processes, which keeps what a worker has put although it dies. A thread of
the owner takes them out and hands them to the loggers of the same names and to `warnings`, as
if they had come about here.
"""

import logging
import logging.handlers
import threading
import warnings

from oxgang.multiprocessing.queues import SimpleQueue

_RECORD, _WARNING = range(2)


class Forwarder:
    """The owner's side: a queue, and the thread that empties it."""

    def __init__(self):
        self._queue = SimpleQueue()
        self._registry = {}  # which warnings were shown
        self._thread = threading.Thread(target=self._run, name="oxgang-logs", daemon=True)
        self._thread.start()

    def initializer(self, initializer, initargs):
        """An initializer for workers, and its arguments, which goes on to the one given."""
        level = logging.getLogger().getEffectiveLevel()
        return install, (self._queue, level, initializer, initargs)

    def close(self):
        """To be called when the workers have ended: waits until everything has arrived."""
        self._queue.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self):
        while (item := self._queue.get()) is not None:
            kind, content = item
            try:
                if kind == _RECORD:
                    logger = logging.getLogger(content.name)
                    if logger.isEnabledFor(content.levelno):
                        logger.handle(content)
                else:
                    warnings.warn_explicit(*content, registry=self._registry)
            except Exception:
                # a handler that raises, or a filter that makes an error of a warning: here is
                # nobody to raise it to
                logging.getLogger("oxgang").exception("a worker's record could not be handled")


class _Handler(logging.handlers.QueueHandler):
    def enqueue(self, record):
        """Puts a record, made ready for pickling, into the queue."""
        self.queue.put((_RECORD, record))


def install(queue, level, initializer, initargs):
    """In a worker: sends records and warnings away, then goes on to the user's initializer."""
    root = logging.getLogger()
    root.handlers[:] = [_Handler(queue)]
    root.setLevel(level)

    def showwarning(message, category, filename, lineno, *_where):
        queue.put((_WARNING, (str(message), category, filename, lineno)))

    warnings.showwarning = showwarning
    # what a coroutine function gives is awaited by who called this
    return None if initializer is None else initializer(*initargs)
