"""Pools of `multiprocessing` for tests: one test body for the standard library's and ours."""

import contextlib
import multiprocessing as standard
from multiprocessing import pool as standard_pool

import oxgang.multiprocessing as ours
import pytest
from oxgang.multiprocessing import pool as own_pool

METHODS = ("fork", "spawn", "forkserver", "template")
MAKERS = {
    "standard-fork": standard.get_context("fork").Pool,
    "standard-thread": standard_pool.ThreadPool,
    "oxgang-thread": own_pool.ThreadPool,
    **{f"oxgang-{method}": ours.get_context(method).Pool for method in METHODS},
}
OWN = [name for name in MAKERS if name.startswith("oxgang")]
PROCESSES = [name for name in MAKERS if not name.endswith("thread")]
OWN_PROCESSES = [name for name in OWN if not name.endswith("thread")]


@contextlib.contextmanager
def making(name):
    """What makes pools, which are ended at the end."""
    made = []

    def one(*args, **options):
        made.append(MAKERS[name](*args, **options))
        return made[-1]

    one.name = name
    yield one
    for pool in made:
        pool.terminate()
        pool.join()


def only(*names):
    return pytest.mark.parametrize("make", names, indirect=True)
