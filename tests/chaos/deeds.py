"""What the tasks of the chaos suite do. Each counts its run first, in a file that all processes
map, at the byte of its number: so it is known of every task how often it was begun.
"""

import mmap
import os
import signal
import sys
import threading
import time

_maps = {}


def count(path, number):
    if path not in _maps:
        with open(path, "r+b") as file:
            _maps[path] = mmap.mmap(file.fileno(), 0)
    _maps[path][number] += 1


def same(path, number, value):
    count(path, number)
    return value


def nap(path, number, seconds):
    count(path, number)
    time.sleep(seconds)
    return seconds


def compute(path, number, rounds):
    count(path, number)
    return sum(i * i for i in range(rounds))


def overrun(path, number, deaf):
    """Runs until its time limit ends it; `deaf`: it does not listen to that."""
    count(path, number)
    while True:
        try:
            time.sleep(600)
        except TimeoutError:
            if not deaf:
                raise


def fail(path, number, text):
    count(path, number)
    raise LookupError(text)


def exits(path, number, code):
    count(path, number)
    sys.exit(code)


def die(path, number, signal_number):
    count(path, number)
    signal.pthread_kill(threading.get_ident(), signal_number)
    time.sleep(600)


def leave(path, number, code):
    count(path, number)
    os._exit(code)


def bad_result(path, number, _):
    count(path, number)
    return threading.Lock()


class Unloadable(Exception):
    """Pickles, and cannot be unpickled: __init__ wants two, args has one."""

    def __init__(self, code, text):
        super().__init__(f"{code}: {text}")


def bad_error(path, number, text):
    count(path, number)
    raise Unloadable(7, text)


def _refuse():
    raise ValueError("will not be rebuilt")


class RefusesToLoad:
    def __reduce__(self):
        return _refuse, ()


def refusing(path, number, _):
    count(path, number)
    return RefusesToLoad()


def nested(path, number, value):
    """Through a pool in this worker, and a pool in its worker."""
    count(path, number)
    return _through_pools(value, 2)


def _through_pools(value, depth):
    from oxgang.concurrent.futures import ProcessPoolExecutor

    if depth == 0:
        return value
    with ProcessPoolExecutor(1) as pool:
        return pool.submit(_through_pools, value, depth - 1).result()


def set_up(number):
    time.sleep(number / 1000)
