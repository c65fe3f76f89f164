"""Large data to a worker and back. Every argument is a new object, and whoever receives an array
reads a number of every page, so that nothing is only promised."""

import concurrent.futures
import multiprocessing
import time
from itertools import count

from benches.contenders import futures_of

_PAGE_OF_FLOATS = 512
_MIB_OF_FLOATS = 1 << 17
_new = count(1)


def _pool(contender):
    """One worker; for the standard library by fork, where a worker costs least."""
    if contender.is_oxgang:
        return futures_of(contender).ProcessPoolExecutor(1)
    context = multiprocessing.get_context("fork")
    return concurrent.futures.ProcessPoolExecutor(1, mp_context=context)


def touched(array):
    """The array, when one number of every page has been read."""
    array[::_PAGE_OF_FLOATS].sum()
    return array


def returned(value):
    return value


def _there_and_back(pool, make, check):
    value = make()
    began = time.perf_counter()
    back = pool.submit(touched if hasattr(value, "dtype") else returned, value).result()
    if hasattr(back, "dtype"):
        touched(back)
    seconds = time.perf_counter() - began
    if not check(back):
        raise AssertionError("what came back is not what was sent")
    return seconds


def _median(pool, make, check, rounds):
    _there_and_back(pool, make, check)
    times = sorted(_there_and_back(pool, make, check) for _ in range(rounds))
    return times[len(times) // 2]


def arrays(contender, scale):
    import numpy

    figures = {}
    for mib in (1, 10, 100):
        number = next(_new)

        def make(size=mib * _MIB_OF_FLOATS, number=number):
            return numpy.full(size, float(number))

        def check(back, number=number, size=mib * _MIB_OF_FLOATS):
            return len(back) == size and back[0] == back[-1] == number

        with _pool(contender) as pool:
            pool.submit(touched, numpy.ones(8)).result()  # the worker has numpy
            figures[f"{mib} MiB, first"] = _there_and_back(pool, make, check)
            rounds = max(3, int(1000 * scale / (5 + mib)))
            figures[f"{mib} MiB"] = _median(pool, make, check, rounds)
    return figures


def shared_array(contender, scale):
    """For the standard library an array as any; for oxgang one in shared memory."""
    import numpy

    array = numpy.ones(100 * _MIB_OF_FLOATS)
    if contender.is_oxgang:
        import oxgang.shared

        array = oxgang.shared.array(array)
    rounds = max(3, int((1000 if contender.is_oxgang else 4) * scale))
    with _pool(contender) as pool:
        pool.submit(returned, 1).result()
        pool.submit(returned, array).result()
        began = time.perf_counter()
        for _ in range(rounds):
            back = pool.submit(returned, array).result()
        seconds = (time.perf_counter() - began) / rounds
    if len(back) != len(array) or back[-1] != 1:
        raise AssertionError("what came back is not what was sent")
    return {"100 MiB": seconds}


def objects(contender, scale):
    def blobs():
        return [bytes([number % 256]) * 10_000 for number in range(1000)]

    def entries():
        return {f"key {number}": (number, number * 0.5) for number in range(100_000)}

    rounds = max(3, int(20 * scale))
    with _pool(contender) as pool:
        return {
            "1,000 x 10 kB": _median(pool, blobs, lambda back: back == blobs(), rounds),
            "dict of 100,000": _median(pool, entries, lambda back: len(back) == 100_000, rounds),
        }
