"""A drop-in for `asyncio`: all of the standard module, and

| | |
|---|---|
| `run(main, loop="auto")` | in the fastest loop that is installed |
| `to_process(fn, ...)` | as `to_thread`, in a process |
| `map(fn, items, limit=...)` | a coroutine function over many items, so many at a time |
| `CoroutinePoolExecutor` | coroutine functions from where no loop runs, and over processes |
| `RateLimit(times, per)` | so many in so much time |
| `call_soon_threadsafe(loop, fn, ...)` | as the loop's own; a burst of calls wakes it once |
| `held(lock)` | a lock of any kind, in ``async with`` |
"""

import asyncio as _standard
from asyncio import *  # noqa: F403 - a drop-in has what it drops in for

from oxgang._core import call_soon_threadsafe
from oxgang.asyncio._locks import held
from oxgang.asyncio._map import map
from oxgang.asyncio._pool import CoroutinePoolExecutor
from oxgang.asyncio._rate import RateLimit
from oxgang.asyncio._run import Runner, run, to_process

_OWN = {
    "CoroutinePoolExecutor",
    "RateLimit",
    "call_soon_threadsafe",
    "held",
    "map",
    "to_process",
}
__all__ = sorted({*_standard.__all__, *_OWN})  # noqa: PLE0605


def __getattr__(name):
    # submodules, and what the standard module has without saying so
    return getattr(_standard, name)


assert run and Runner and held and map and RateLimit and to_process
assert CoroutinePoolExecutor and call_soon_threadsafe
