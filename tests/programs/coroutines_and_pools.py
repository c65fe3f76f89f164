"""asyncio beside threads and processes."""

import asyncio
import concurrent.futures
import functools
import queue
import threading
import time


def crunch(n):
    return sum(i * i for i in range(n))


def fail():
    raise LookupError("in a worker")


async def main():
    loop = asyncio.get_running_loop()
    print(await loop.run_in_executor(None, crunch, 10))
    print(await asyncio.to_thread(functools.partial(max, 1, 2)))
    with concurrent.futures.ProcessPoolExecutor(2) as processes:
        jobs = [loop.run_in_executor(processes, crunch, n) for n in range(5)]
        print(await asyncio.gather(*jobs))
        try:
            await loop.run_in_executor(processes, fail)
        except LookupError as error:
            print("LookupError:", error)
        wrapped = asyncio.wrap_future(processes.submit(crunch, 4))
        print(await asyncio.wait_for(wrapped, 30))
    threads = concurrent.futures.ThreadPoolExecutor(2)
    loop.set_default_executor(threads)
    print(await loop.run_in_executor(None, lambda: threading.current_thread().name[:18]))
    with concurrent.futures.ThreadPoolExecutor(1) as other:
        try:
            await asyncio.wait_for(loop.run_in_executor(other, time.sleep, 0.1), 0.01)
        except TimeoutError:
            print("TimeoutError")

    async def double(n):
        await asyncio.sleep(0)
        return n * 2

    answers = queue.SimpleQueue()

    def from_thread():
        future = asyncio.run_coroutine_threadsafe(double(21), loop)
        answers.put((future.result(30), isinstance(future, concurrent.futures.Future)))

    thread = threading.Thread(target=from_thread)
    thread.start()
    while thread.is_alive():
        await asyncio.sleep(0.001)
    print(answers.get())
    events = asyncio.Queue()
    threading.Timer(0.01, lambda: loop.call_soon_threadsafe(events.put_nowait, "ring")).start()
    print(await events.get())


if __name__ == "__main__":
    asyncio.run(main())
