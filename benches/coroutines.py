"""The scenarios of pools of coroutines."""

import asyncio
import random
import threading
import time
from contextlib import contextmanager

from benches import work
from benches.contenders import WORKERS

IN_FLIGHT = 100
THEIR_OWN = 16  # in flight in a process, if aiomultiprocess is not told otherwise
DEFAULT = "default"
_NAMES = {None: "one after the other", DEFAULT: "both at their defaults"}
SLEEPS, SHORTEST_S, LONGEST_S = 10_000, 0.1, 1.0
_SEED = 20


async def nothing(value):
    return value


async def handle(number):
    """A request that computes for 2 ms or so, between two waits."""
    await asyncio.sleep(0)
    prime = work.is_prime(number)
    await asyncio.sleep(0)
    return prime


async def nap(seconds):
    await asyncio.sleep(seconds)
    return 1


def _check(found, expected):
    if found != expected:
        raise AssertionError("wrong results: the figure would be worthless")


@contextmanager
def _loop_in_a_thread():
    """What one does without a pool."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield lambda fn, *args: asyncio.run_coroutine_threadsafe(fn(*args), loop)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextmanager
def _ours(in_flight, **shape):
    from oxgang.asyncio import CoroutinePoolExecutor

    with CoroutinePoolExecutor(in_flight, loop="asyncio", **shape) as pool:
        yield pool.submit


@contextmanager
def _our_map(in_flight, loop="asyncio", **shape):
    from oxgang.asyncio import CoroutinePoolExecutor

    with CoroutinePoolExecutor(in_flight, loop=loop, **shape) as pool:
        yield pool.map


def submitted(contender, scale):
    """From synchronous code, on asyncio's own loop for both."""
    count = max(100, int(20_000 * scale))
    with _ours(IN_FLIGHT) if contender.is_oxgang else _loop_in_a_thread() as submit:
        _check(submit(nothing, 1).result(), 1)
        began = time.perf_counter()
        futures = [submit(nothing, number) for number in range(count)]
        _check(sum(future.result() for future in futures), sum(range(count)))
        return {"call": (time.perf_counter() - began) / count}


async def _in_aiomultiprocess(count, concurrency):
    import aiomultiprocess

    options = {"processes": WORKERS}
    if concurrency is not DEFAULT:
        options["queuecount"] = WORKERS
    if isinstance(concurrency, int):
        options["childconcurrency"] = concurrency
    async with aiomultiprocess.Pool(**options) as pool:
        await pool.map(nothing, range(2 * WORKERS))
        if concurrency is None:
            began = time.perf_counter()
            for number in range(count):
                _check(await pool.apply(nothing, (number,)), number)
            return (time.perf_counter() - began) / count
        began = time.perf_counter()
        _check(sum(await pool.map(nothing, range(count))), sum(range(count)))
        return (time.perf_counter() - began) / count


def in_processes(contender, scale):
    """Two processes, each with so many in flight at most; or with what each library has if nothing
    but their number is said."""
    figures = {}
    shapes = (None, 200), (THEIR_OWN, 10_000), (IN_FLIGHT, 10_000), (DEFAULT, 10_000)
    for concurrency, count in shapes:
        count = max(20, int(count * scale))  # noqa: PLW2901 - at this scale
        if contender.name == "aiomultiprocess":
            seconds = asyncio.run(_in_aiomultiprocess(count, concurrency))
        else:
            seconds = _in_ours(count, concurrency)
        figures[_NAMES.get(concurrency, f"{concurrency} in flight")] = seconds
    return figures


async def _one_after_the_other(count):
    with _ours(WORKERS * THEIR_OWN, processes=WORKERS) as submit:
        await asyncio.gather(*[submit(nothing, number) for number in range(2 * WORKERS)])
        began = time.perf_counter()
        for number in range(count):
            _check(await submit(nothing, number), number)
        return (time.perf_counter() - began) / count


def _in_ours(count, concurrency):
    if concurrency is None:
        return asyncio.run(_one_after_the_other(count))
    if concurrency is DEFAULT:
        pool = _our_map(None, "auto", processes=WORKERS)
    else:
        pool = _our_map(WORKERS * concurrency, processes=WORKERS)
    with pool as run:
        _check(list(run(nothing, range(2 * WORKERS))), list(range(2 * WORKERS)))
        began = time.perf_counter()
        _check(sum(run(nothing, range(count))), sum(range(count)))
        return (time.perf_counter() - began) / count


async def _on_one_loop(numbers):
    iterator, primes = iter(numbers), []

    async def some():
        for number in iterator:
            primes.append(await handle(number))

    began = time.perf_counter()
    await asyncio.gather(*[some() for _ in range(IN_FLIGHT)])
    _check(sum(primes), len(primes))
    return {"all": time.perf_counter() - began}


def handlers(contender, scale):
    """600 requests that compute; on one loop, and on two processes."""
    from benches.numbers import primes

    numbers = primes(max(20, int(600 * scale)))
    if not contender.is_oxgang:
        return asyncio.run(_on_one_loop(numbers))
    with _ours(WORKERS * IN_FLIGHT, processes=WORKERS) as submit:
        futures = [submit(nothing, number) for number in range(8)]
        _check([future.result() for future in futures], list(range(8)))
        began = time.perf_counter()
        futures = [submit(handle, number) for number in numbers]
        _check(sum(future.result() for future in futures), len(numbers))
        return {"all": time.perf_counter() - began}


def naps(count):
    step = (LONGEST_S - SHORTEST_S) / max(1, count - 1)
    all_of_them = [SHORTEST_S + step * number for number in range(count)]
    random.Random(_SEED).shuffle(all_of_them)
    return all_of_them


async def _sleep_together(seconds):
    began = time.perf_counter()
    _check(sum(await asyncio.gather(*map(nap, seconds))), len(seconds))
    return time.perf_counter() - began


def _sleep_in_pool(seconds, **shape):
    with _ours(len(seconds), **shape) as submit:
        _check([f.result() for f in [submit(nothing, n) for n in range(8)]], list(range(8)))
        began = time.perf_counter()
        futures = [submit(nap, one) for one in seconds]
        _check(sum(future.result() for future in futures), len(seconds))
        return time.perf_counter() - began


def sleeps(contender, scale):
    """10,000 sleeps of 0.1 to 1 s at once, in an order of no meaning."""
    seconds = naps(max(50, int(SLEEPS * scale)))
    if not contender.is_oxgang:
        return {"one loop": asyncio.run(_sleep_together(seconds))}
    return {
        "one loop": _sleep_in_pool(seconds),
        "two processes": _sleep_in_pool(seconds, processes=WORKERS),
    }
