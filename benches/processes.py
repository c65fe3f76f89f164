"""Pools and processes of `multiprocessing`, beside the standard ones."""

import importlib
import time

from benches import work
from benches.contenders import WORKERS

LONG, SHORT = 20_000, 2_000


def _module(contender):
    name = "oxgang.multiprocessing" if contender.is_oxgang else "multiprocessing"
    return importlib.import_module(name)


def _timed(way, expected):
    began = time.perf_counter()
    found = way()
    seconds = time.perf_counter() - began
    if found != expected:
        raise AssertionError("wrong results: the figure would be worthless")
    return seconds


def pool(contender, scale):
    """Each way to have calls run, on one open pool of forks."""
    many, few = max(200, int(LONG * scale)), max(50, int(SHORT * scale))
    items, answers = range(many), list(range(many))
    with _module(contender).get_context("fork").Pool(WORKERS) as open_pool:
        open_pool.map(work.nothing, range(200), chunksize=1)

        def one_by_one():
            return [open_pool.apply(work.nothing, (number,)) for number in range(few)]

        return {
            "map-1": _timed(lambda: open_pool.map(work.nothing, items, chunksize=1), answers)
            / many,
            "imap": _timed(lambda: list(open_pool.imap(work.nothing, items)), answers) / many,
            "apply": _timed(one_by_one, list(range(few))) / few,
        }


def start(contender, scale):
    """`Process(target=…)`, `start`, `join`, with numpy loaded; the first of each method is not
    counted."""
    import numpy  # noqa: F401 - what a program has loaded is what makes its forks slow

    module = _module(contender)
    methods = {"fork": "fork", "served": "template" if contender.is_oxgang else "forkserver"}
    if not contender.is_oxgang:
        module.set_forkserver_preload(["numpy"])
    figures = {}
    for figure, method in methods.items():
        context = module.get_context(method)
        seconds = []
        for _ in range(max(6, int(40 * scale))):
            process = context.Process(target=work.nothing, args=(0,))
            seconds.append(_timed(lambda one=process: (one.start(), one.join()), (None, None)))
        seconds = sorted(seconds[1:])
        figures[figure] = seconds[len(seconds) // 2]
    return figures
