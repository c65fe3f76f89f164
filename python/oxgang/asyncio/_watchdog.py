"""Who notices that a loop stands still.

A coroutine that blocks (`time.sleep`, a long computation, a file on a slow disk) stops all others
of its loop, and its time limits with them. The watchdog is a thread that asks the loop for a sign
of life, again and again; one that takes longer than `seconds` is a *stall*, told once, as a record
of the logger ``oxgang.asyncio``, with the coroutine and where the loop's thread is at that moment.

It costs two wake-ups per period, so it is off where nobody asks for it. C code that keeps the
interpreter to itself keeps it from the watchdog too: such a stall is not told of.
"""

import asyncio
import logging
import sys
import threading

from oxgang._limits import stack_of
from oxgang._options import _seconds

_LOGGER = logging.getLogger("oxgang.asyncio")


def checked(seconds):
    """`watch_blocking`, if it is a time or None.

    Raises:
        TypeError, ValueError: it is something else.
    """
    return None if seconds is None else _seconds(seconds, "watch_blocking", zero=False)


class Watchdog:
    """Watches the loop that runs in this thread.

    Args:
        loop: The loop.
        seconds: How long it may stand still.
        name_of_task: What a task is called.
    """

    def __init__(self, loop, seconds, name_of_task):
        self._loop = loop
        self._seconds = seconds
        self._name_of_task = name_of_task
        self._watched = threading.get_ident()
        self._over = threading.Event()
        self._alive = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="oxgang-watchdog", daemon=True)
        self._thread.start()

    def stop(self):
        """Ends it."""
        self._over.set()
        self._alive.set()
        self._thread.join()

    def _watch(self):
        while not self._over.is_set():
            self._alive.clear()
            try:
                self._loop.call_soon_threadsafe(self._alive.set)
            except RuntimeError:
                return  # it is closed
            if not self._alive.wait(self._seconds):
                self._tell()
                self._alive.wait()  # one stall is told of once
            self._over.wait(self._seconds / 2)

    def _tell(self):
        frame = sys._current_frames().get(self._watched)
        task = asyncio.current_task(self._loop)
        if frame is None or self._alive.is_set():
            return
        code = frame.f_code
        _LOGGER.warning(
            "%s has blocked its event loop for more than %g s: it is in %s (%s, line %d)\n%s",
            "a callback" if task is None else self._name_of_task(task),
            self._seconds,
            code.co_name,
            code.co_filename,
            frame.f_lineno,
            stack_of(frame).rstrip(),
        )
