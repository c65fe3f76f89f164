"""Event loops, and how futures reach them; the crossing itself is `oxgang._core.LoopPort`."""

import os
import sys
import threading
import weakref

from oxgang import _core

_ports = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def port_of(loop):
    """The port of a loop; one per loop."""
    port = _ports.get(loop)
    if port is None:
        with _lock:  # other threads may post to it
            port = _ports.get(loop)
            if port is None:
                port = _ports[loop] = _core.LoopPort(weakref.ref(loop), _drops(loop))
    return port


def _drops(loop):
    """Whether it lets go of what it was to call when it is closed."""
    asyncio = sys.modules.get("asyncio")
    ours = asyncio is not None and isinstance(loop, asyncio.BaseEventLoop)
    return ours or type(loop).__module__.partition(".")[0] == "uvloop"


def _after_fork_in_child():
    global _lock
    _lock = threading.Lock()
    # it shares the parent's eventfds; what it makes of the loop, it makes with its own
    _ports.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)


def elsewhere(future, terminate):
    """What awaits a future where no loop of asyncio runs.

    Raises:
        RuntimeError: nor any other that is known.
    """
    trio = sys.modules.get("trio")
    if trio is None or not trio.lowlevel.in_trio_run():
        raise RuntimeError(
            "an oxgang future can be awaited under a running asyncio loop (uvloop and others of "
            "its kind too) or under trio; call its result() to wait without"
        )
    return _under_trio(trio, future, terminate).__await__()


async def _under_trio(trio, future, terminate):
    port = _core.LoopPort(None, True)
    port.expect(future)
    try:
        while not future.done():
            await trio.lowlevel.wait_readable(port.fileno())
            port.drain()
    except BaseException:
        if not (terminate and _terminated(future)):
            future.cancel()
        raise
    return future.result()


def _terminated(future):
    try:
        return future.terminate()
    except RuntimeError:
        return False  # it runs in a thread
