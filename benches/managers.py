"""The scenarios of managers: what a call of a proxy costs, and a proxy."""

import multiprocessing
import time

from benches.rests import mean_seconds

CALLS = 5_000
RESTED_CALLS = 400
OBJECTS = 100


def manager_of(contender):
    if contender.is_oxgang:
        import oxgang.multiprocessing

        return oxgang.multiprocessing.get_context("fork").Manager()
    return multiprocessing.get_context("fork").Manager()


def dict_calls(pause_s, contender, scale):
    """One thread sets items of a dict in a manager, and gets them."""
    count = max(200, int((RESTED_CALLS if pause_s else CALLS) * scale))

    with manager_of(contender) as manager:
        items = manager.dict()
        for number in range(200):
            items[number] = items.get(number)

        def put(number):
            items["key"] = number
            return number

        def get(number):
            return number if items["key"] == count - 1 else None

        return {
            "set": mean_seconds(put, count, pause_s),
            "get": mean_seconds(get, count, pause_s),
        }


def arrays(contender, scale):
    """One thread sets an array in a dict in a manager, and gets it and reads of every page."""
    import numpy

    figures = {}
    with manager_of(contender) as manager:
        items = manager.dict()
        for name, calls, size in (("1 MB", 60, 10**6), ("10 MB", 12, 10**7)):
            count, array = max(3, int(calls * scale)), numpy.full(size, 3, "u1")
            items["key"] = array
            began = time.perf_counter()
            for _ in range(count):
                items["key"] = array
            between = time.perf_counter()
            for _ in range(count):
                if items["key"][::4096].max() != 3:
                    raise AssertionError("wrong results: the figure would be worthless")
            ended = time.perf_counter()
            figures[f"set {name}"] = (between - began) / count
            figures[f"get {name}"] = (ended - between) / count
    return figures


def objects(contender, scale):
    """One thread makes dicts in a manager, and lets them go."""
    count = max(10, int(OBJECTS * scale))
    with manager_of(contender) as manager:
        kept = manager.dict()
        began = time.perf_counter()
        for _ in range(count):
            manager.dict()
        ended = time.perf_counter()
        if len(kept) != 0:
            raise AssertionError("wrong results: the figure would be worthless")
    return {"object": (ended - began) / count}
