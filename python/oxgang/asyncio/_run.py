"""Which loop, and calls in processes from it."""

import asyncio
import logging
import os
import threading
from importlib import import_module

_LOGGER = logging.getLogger("oxgang.asyncio")
_FAST = ("uvloop", "rloop")  # the first that is installed is taken

_processes = None
_lock = threading.Lock()


def loop_factory(loop="auto"):
    """What makes loops.

    Args:
        loop: "auto": uvloop or rloop if one is installed, else asyncio's own. The name of one of
            the three. Or a callable that makes loops: that one.

    Raises:
        ValueError: no such name.
        ImportError: it is not installed.
    """
    if callable(loop):
        return loop
    if loop == "asyncio":
        return asyncio.new_event_loop
    if loop == "auto":
        for name in _FAST:
            try:
                return import_module(name).new_event_loop
            except ImportError:
                continue
        return asyncio.new_event_loop
    if loop not in _FAST:
        names = ", ".join(map(repr, ("auto", "asyncio", *_FAST)))
        raise ValueError(f"loop must be one of {names}, or a function that makes one; not {loop!r}")
    return import_module(loop).new_event_loop


class Runner(asyncio.Runner):
    """As `asyncio.Runner`, and with a `loop` as `run` has it. If neither that nor a `loop_factory`
    is given, the loop is the standard one's choice, and not the fastest: test cases are made of
    runners, and may expect what only asyncio's own loop has.
    """

    def __init__(self, *, debug=None, loop_factory=None, loop=None):
        if loop_factory is None and loop is not None:
            loop_factory = _chosen(loop, debug)
        super().__init__(debug=debug, loop_factory=loop_factory)


def _chosen(loop, debug):
    factory = loop_factory(loop)
    if debug:
        _LOGGER.info("event loops are made by %s.%s", factory.__module__, factory.__qualname__)
    return factory


def run(main, *, debug=None, loop_factory=None, loop="auto"):
    """Runs a coroutine in a fresh loop; as `asyncio.run`.

    Args:
        main: The coroutine.
        debug: Turns the loop's debug mode on or off. On, the choice of the loop is logged to
            ``oxgang.asyncio``.
        loop_factory: As the standard one's of Python 3.12; comes before `loop`.
        loop: "auto" (uvloop or rloop if one is installed, else asyncio's own), "asyncio", "uvloop",
            "rloop", or a function that makes a loop.

    Raises:
        RuntimeError: a loop runs in this thread already.
        ValueError, ImportError: there is no such loop.
    """
    if asyncio._get_running_loop() is not None:
        raise RuntimeError("asyncio.run() cannot be called from a running event loop")
    with Runner(debug=debug, loop_factory=loop_factory, loop=loop) as runner:
        return runner.run(main)


async def to_process(fn, /, *args, **kwargs):
    """Runs ``fn(*args, **kwargs)`` in a worker process and gives its result; as `to_thread`, for
    what keeps a CPU busy. If the wait is cancelled, the call is terminated.

    The processes are one pool for the whole program, one per CPU that it may use.

    Raises:
        whatever the call raises; see `oxgang.concurrent.futures.ProcessPoolExecutor`.
    """
    return await _pool().submit(fn, *args, **kwargs).terminating()


def _pool():
    global _processes
    with _lock:
        if _processes is None:
            from oxgang.concurrent.futures import ProcessPoolExecutor

            _processes = ProcessPoolExecutor()
        return _processes


def _after_fork_in_child():
    global _processes, _lock
    _processes, _lock = None, threading.Lock()


os.register_at_fork(after_in_child=_after_fork_in_child)
