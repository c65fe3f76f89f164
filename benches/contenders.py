"""Who takes part, and how each opens its pools."""

import concurrent.futures
import multiprocessing
from contextlib import contextmanager
from typing import NamedTuple

WORKERS = 2


class Contender(NamedTuple):
    name: str
    env: dict  # variables of the measuring process
    is_oxgang: bool = False


CONTENDERS = {
    contender.name: contender
    for contender in (
        Contender("standard", {}),
        Contender("control", {}),  # the reference once more: its spread is the machine's noise
        Contender("mp.Pool", {}),
        Contender("ideal", {}),
        Contender("janus", {}),
        Contender("aiomultiprocess", {}),
        Contender("oxgang", {}, is_oxgang=True),
        Contender("oxgang-parked", {"OXGANG_SPIN": "0"}, is_oxgang=True),
    )
}


def futures_of(contender):
    if contender.is_oxgang:
        import oxgang.concurrent.futures

        return oxgang.concurrent.futures
    return concurrent.futures


@contextmanager
def process_pool(contender, workers=WORKERS):
    with futures_of(contender).ProcessPoolExecutor(workers) as pool:
        yield pool


@contextmanager
def thread_pool(contender, workers=WORKERS):
    with futures_of(contender).ThreadPoolExecutor(workers) as pool:
        yield pool


@contextmanager
def chunk_mapper(contender, workers=WORKERS):
    """A function (fn, items, chunksize) -> list of results, on an open pool.

    ``chunksize=None`` asks for what the library does when nothing is said: oxgang adapts to the
    measured time of a task, the standard executor takes one item at a time.
    """
    if contender.name == "mp.Pool":
        with multiprocessing.Pool(workers) as pool:
            yield pool.map
        return
    if contender.is_oxgang:
        import oxgang

        with oxgang.Executor(model="process", max_workers=workers) as pool:
            yield lambda fn, items, size: list(pool.map(fn, items, chunksize=size or "auto"))
        return
    with concurrent.futures.ProcessPoolExecutor(workers) as pool:
        yield lambda fn, items, size: list(pool.map(fn, items, chunksize=size or 1))
