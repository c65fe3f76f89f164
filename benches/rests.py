"""Calls one by one, each after a rest that is not counted."""

import time

REST_S = 0.005  # longer than anybody spins


def mean_seconds(call, count, pause_s):
    """What `call(number)` takes, on the average."""
    spent = 0.0
    for number in range(count):
        if pause_s:
            time.sleep(pause_s)
        began = time.perf_counter()
        answer = call(number)
        spent += time.perf_counter() - began
        if answer != number:
            raise AssertionError("wrong results: the figure would be worthless")
    return spent / count
