"""The beginning of a drop-in for `multiprocessing`: contexts, and what else an executor needs.

For now these are the standard library's own objects, so that
``ProcessPoolExecutor(mp_context=oxgang.multiprocessing.get_context("spawn"))`` reads as it should.
`Process`, `Pool`, `Queue` and the rest are not here yet: asking for one says so.
"""

from multiprocessing import (
    cpu_count,
    current_process,
    get_all_start_methods,
    get_context,
    get_start_method,
    parent_process,
    set_start_method,
)

__all__ = [
    "cpu_count",
    "current_process",
    "get_all_start_methods",
    "get_context",
    "get_start_method",
    "parent_process",
    "set_start_method",
]


def __getattr__(name):
    import multiprocessing

    if not name.startswith("_") and hasattr(multiprocessing, name):
        raise AttributeError(
            f"oxgang.multiprocessing has no {name} yet; use multiprocessing.{name}"
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
