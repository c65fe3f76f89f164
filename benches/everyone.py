"""The scenarios of `oxgang.Queue`: items that a coroutine takes."""

import asyncio
import multiprocessing
import threading
import time

FROM_THREAD = 100_000
FROM_PROCESS = 20_000


async def _taken(count, take):
    """Seconds until `count` more items were taken, after the first."""
    total = await take()
    began = time.perf_counter()
    for _ in range(count):
        total += await take()
    seconds = time.perf_counter() - began
    if total != sum(range(count + 1)):
        raise AssertionError("wrong results: the figure would be worthless")
    return seconds


def put_all(put, count):
    for number in range(count + 1):
        put(number)


def thread_to_coroutine(contender, scale):
    count = max(500, int(FROM_THREAD * scale))

    async def main():
        if contender.is_oxgang:
            import oxgang

            queue = oxgang.Queue()
            put, take = queue.put, queue.aget
        else:
            import janus

            queue = janus.Queue()
            put, take = queue.sync_q.put, queue.async_q.get
        thread = threading.Thread(target=put_all, args=(put, count))
        thread.start()
        seconds = await _taken(count, take)
        thread.join()
        if not contender.is_oxgang:
            await queue.aclose()
        return {"item": seconds / count}

    return asyncio.run(main())


def put_into(queue, count):
    put_all(queue.put, count)


def process_to_coroutine(contender, scale):
    count = max(200, int(FROM_PROCESS * scale))
    context = multiprocessing.get_context("fork")

    async def main():
        if contender.is_oxgang:
            import oxgang

            queue = oxgang.Queue()
            take = queue.aget
        else:
            queue, loop = context.Queue(), asyncio.get_running_loop()

            def take():
                return loop.run_in_executor(None, queue.get)

        process = context.Process(target=put_into, args=(queue, count))
        process.start()
        seconds = await _taken(count, take)
        process.join()
        return {"item": seconds / count}

    return asyncio.run(main())
