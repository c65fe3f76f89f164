"""Calls from an event loop."""

import asyncio
import concurrent.futures
import functools
import threading
import time

from benches import work
from benches.contenders import futures_of

_IN_FLIGHT = 100
_BURST = 3000


async def _flight(pool, count, ours):
    loop = asyncio.get_running_loop()

    async def some(numbers):
        for number in numbers:
            if ours:
                answer = await pool.submit(work.nothing, number)
            else:
                answer = await loop.run_in_executor(pool, work.nothing, number)
            if answer != number:
                raise AssertionError("wrong results: the figure would be worthless")

    began = time.perf_counter()
    await asyncio.gather(*[some(range(start, count, _IN_FLIGHT)) for start in range(_IN_FLIGHT)])
    return (time.perf_counter() - began) / count


def in_flight(open_pool, ours, contender, scale):
    """`ours`: oxgang's futures are awaited; else `run_in_executor` for both."""
    count = max(_IN_FLIGHT, int(20_000 * scale))
    with open_pool(contender) as pool:
        asyncio.run(_flight(pool, 2 * _IN_FLIGHT, ours and contender.is_oxgang))
        return {"call": asyncio.run(_flight(pool, count, ours and contender.is_oxgang))}


async def _burst(futures, wrap):
    async def awaiting(future):
        await wrap(future)

    tasks = [asyncio.ensure_future(awaiting(future)) for future in futures]
    await asyncio.sleep(0.01)
    began = []

    def complete():
        began.append(time.perf_counter())
        for future in futures:
            future.set_result(None)

    thread = threading.Thread(target=complete)
    thread.start()
    await asyncio.gather(*tasks)
    seconds = time.perf_counter() - began[0]
    thread.join()
    return seconds / len(futures)


def burst(contender, scale):
    """A thread completes futures that tasks await: until all have gone on."""
    count = max(100, int(_BURST * scale))
    if contender.is_oxgang:
        make, wrap = futures_of(contender).Future, lambda future: future
    else:
        make, wrap = concurrent.futures.Future, asyncio.wrap_future
    return {"completion": asyncio.run(_burst([make() for _ in range(count)], wrap))}


async def _posts(post, count):
    done = asyncio.Event()
    left = count
    began = []

    def take():
        nonlocal left
        left -= 1
        if not left:
            done.set()

    def send():
        began.append(time.perf_counter())
        for _ in range(count):
            post(take)

    loop = asyncio.get_running_loop()
    post = post(loop)
    await asyncio.sleep(0.01)
    thread = threading.Thread(target=send)
    thread.start()
    await done.wait()
    seconds = time.perf_counter() - began[0]
    thread.join()
    return seconds / count


def posts(contender, scale):
    """A thread has a loop call something, so many times: until all have been called."""
    count = max(100, int(_BURST * scale))
    post = _ours if contender.is_oxgang else (lambda loop: loop.call_soon_threadsafe)
    asyncio.run(_posts(post, count))
    return {"call": asyncio.run(_posts(post, count))}


def _ours(loop):
    from oxgang.asyncio import call_soon_threadsafe

    return functools.partial(call_soon_threadsafe, loop)


async def _fetch(number):
    await asyncio.sleep(0)
    return number


async def _by_hand(items, limit):
    semaphore = asyncio.Semaphore(limit)

    async def one(item):
        async with semaphore:
            return await _fetch(item)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(item)) for item in items]
    return sum(task.result() for task in tasks)


async def _by_map(items, limit):
    from oxgang.asyncio import map

    return sum([number async for number in map(_fetch, items, limit=limit)])


def many_items(contender, scale):
    """A coroutine function over many items, a hundred at a time."""
    count = max(_IN_FLIGHT, int(100_000 * scale))
    way = _by_map if contender.is_oxgang else _by_hand
    asyncio.run(way(range(1000), _IN_FLIGHT))
    began = time.perf_counter()
    total = asyncio.run(way(range(count), _IN_FLIGHT))
    seconds = time.perf_counter() - began
    if total != sum(range(count)):
        raise AssertionError("wrong results: the figure would be worthless")
    return {"item": seconds / count}
