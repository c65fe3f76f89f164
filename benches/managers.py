"""The scenarios of managers: what a call of a proxy costs, and a proxy."""

import multiprocessing
import time

CALLS = 5_000
OBJECTS = 100


def manager_of(contender):
    if contender.is_oxgang:
        import oxgang.multiprocessing

        return oxgang.multiprocessing.get_context("fork").Manager()
    return multiprocessing.get_context("fork").Manager()


def dict_calls(contender, scale):
    """One thread sets items of a dict in a manager, and gets them."""
    count = max(200, int(CALLS * scale))
    with manager_of(contender) as manager:
        items = manager.dict()
        for number in range(200):
            items[number] = items.get(number)
        began = time.perf_counter()
        for number in range(count):
            items["key"] = number
        between = time.perf_counter()
        for _ in range(count):
            items["key"]
        ended = time.perf_counter()
        if items["key"] != count - 1:
            raise AssertionError("wrong results: the figure would be worthless")
    return {"set": (between - began) / count, "get": (ended - between) / count}


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
