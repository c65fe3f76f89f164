"""Random numbers that do not depend on who runs a task, or when.

Task number n of a `map` with ``seed=s`` begins with generators that are seeded with a number made
from s and n alone: `random`'s, and numpy's legacy one if numpy is installed. A further try begins
with the same. Threads and coroutines share those generators, so there they are left alone;
`task_seed` gives each task its number, for generators of its own.
"""

import random
import sys
from contextvars import ContextVar
from functools import partial
from hashlib import blake2b
from importlib.util import find_spec

_seed = ContextVar("oxgang task seed")


def task_seed() -> int:
    """The seed of the running task, a number of 128 bits: for generators of its own, as in
    ``random.Random(oxgang.task_seed())`` or ``numpy.random.default_rng(oxgang.task_seed())``.

    Raises:
        LookupError: the caller does not run in a task of a `map` with ``seed=``.
    """
    try:
        return _seed.get()
    except LookupError:
        raise LookupError("no task with a seed runs here: give map() a seed=") from None


def seeded(fn, seed, model):
    """A function of a task's number and its arguments that runs `fn` with the task's seed."""
    if not isinstance(seed, int):
        raise TypeError(f"seed must be a whole number, not {type(seed).__name__}")
    return partial(run_coroutine if model == "coroutine" else run, fn, seed, model == "process")


async def run_coroutine(fn, seed, _alone, number, /, *args):
    """Awaits `fn` as task `number`, in a context of its own."""
    _seed.set(_own(seed, number))
    return await fn(*args)


def _own(seed, number):
    digest = blake2b(f"{seed}:{number}".encode(), digest_size=16).digest()
    return int.from_bytes(digest, "little")


def run(fn, seed, alone, number, /, *args):
    """Runs `fn` as task `number`; `alone`: the generators of this process are its own."""
    own = _own(seed, number)
    if alone:
        _seed_generators(own)
    token = _seed.set(own)
    try:
        return fn(*args)
    finally:
        _seed.reset(token)


def _seed_generators(own):
    random.seed(own)
    # also where the task is the first to import it, or the numbers would depend on the worker
    if "numpy" in sys.modules or find_spec("numpy") is not None:
        import numpy

        # the same algorithm as `random`'s: from the same seed it would give the same numbers
        other = int.from_bytes(blake2b(b"%d" % own, digest_size=16).digest(), "little")
        numpy.random.seed([other >> shift & 0xFFFFFFFF for shift in range(0, 128, 32)])
