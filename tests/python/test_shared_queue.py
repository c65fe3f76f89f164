"""`oxgang.Queue` and `oxgang.Channel`: for threads, processes and coroutines at once."""

import asyncio
import multiprocessing
import os
import signal
import threading
import time
from queue import Empty, Full

import numpy
import oxgang
import pytest
from oxgang.errors import ShutDown
from test_threading import Interrupted, Threads

METHODS = ["fork", "spawn", "forkserver"]


def put_range(queue, start, count):
    for number in range(start, start + count):
        queue.put(number)


def echo(queue, back):
    for item in queue:
        back.put(item)
    back.shutdown()


def take_and_die(queue, ready):
    queue.get()
    ready.put("taken")
    os.kill(os.getpid(), signal.SIGKILL)


def answer(channel):
    with channel:
        for item in channel:
            channel.send(item * 2)


@pytest.fixture(params=["local", "shared"])
def make(request):
    """Makes queues that were never anywhere else, or are in use between processes."""

    def maker(*arguments):
        queue = oxgang.Queue(*arguments)
        if request.param == "shared":
            with oxgang.Executor("process", 1) as executor:
                assert executor.submit(oxgang.Queue.qsize, queue).result() == 0
        return queue

    return maker


def test_as_a_queue(make):
    queue = make(2)
    assert (queue.maxsize, queue.qsize(), queue.empty(), queue.full()) == (2, 0, True, False)
    queue.put("a")
    queue.put_nowait({"b": [1, (2, None)]})
    assert queue.full()
    with pytest.raises(Full):
        queue.put_nowait("c")
    with pytest.raises(Full):
        queue.put("c", timeout=0.01)
    assert queue.get() == "a"
    queue.task_done()
    assert queue.get_nowait() == {"b": [1, (2, None)]}
    with pytest.raises(Empty):
        queue.get_nowait()
    with pytest.raises(Empty):
        queue.get(timeout=0.01)
    queue.task_done()
    queue.join()
    with pytest.raises(ValueError):
        queue.task_done()
    assert "0 items" in repr(queue)


def test_shutdown_and_iteration(make):
    queue = make()
    put_range(queue, 0, 3)
    queue.shutdown()
    assert queue.is_shutdown
    with pytest.raises(ShutDown):
        queue.put(1)
    assert list(queue) == [0, 1, 2]
    with pytest.raises(ShutDown):
        queue.get()
    other = make()
    other.put(1)
    other.shutdown(immediate=True)
    assert list(other) == []


def test_threads(make):
    queue, got = make(5), []

    def consumer():
        for item in queue:
            got.append(item)

    with Threads(consumer, consumer):
        with Threads(lambda: put_range(queue, 0, 500), lambda: put_range(queue, 1000, 500)):
            pass
        queue.shutdown()
    assert sorted(got) == [*range(500), *range(1000, 1500)]


@pytest.mark.parametrize("method", METHODS)
def test_processes(method):
    context = multiprocessing.get_context(method)
    queue, back = oxgang.Queue(), oxgang.Queue()
    queue.put("before")
    process = context.Process(target=echo, args=(queue, back))
    process.start()
    array = numpy.arange(100_000)
    queue.put(array)
    queue.put("after")
    queue.shutdown()
    found = list(back)
    process.join()
    assert (found[0], found[2]) == ("before", "after")
    assert numpy.array_equal(found[1], array)


def test_workers_of_pools():
    queue = oxgang.Queue()
    with oxgang.Executor("process", 2) as executor:
        for start in (0, 1000, 2000):
            executor.submit(put_range, queue, start, 200)
    queue.shutdown()
    assert sorted(queue) == [start + n for start in (0, 1000, 2000) for n in range(200)]


def test_one_that_dies_harms_no_other():
    queue, ready = oxgang.Queue(), oxgang.Queue()
    put_range(queue, 0, 5)
    context = multiprocessing.get_context("fork")
    process = context.Process(target=take_and_die, args=(queue, ready))
    process.start()
    assert ready.get() == "taken"
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert [queue.get(timeout=10) for _ in range(4)] == [1, 2, 3, 4]


# -- from local to shared ------------------------------------------------------------------------


class Stubborn:
    """Cannot be pickled."""

    def __reduce__(self):
        raise TypeError("stubborn")


def test_a_local_queue_keeps_objects_as_they_are():
    queue, item = oxgang.Queue(), Stubborn()
    queue.put(item)
    assert queue.get() is item
    before = len(os.listdir("/proc/self/fd"))
    queues = [oxgang.Queue() for _ in range(50)]
    assert len(os.listdir("/proc/self/fd")) == before
    assert all(queue.empty() for queue in queues)


def test_what_is_in_it_goes_along():
    queue = oxgang.Queue(5)
    put_range(queue, 0, 4)
    assert queue.get() == 0
    with oxgang.Executor("process", 1) as executor:
        assert executor.submit(oxgang.Queue.get, queue).result() == 1
        assert executor.submit(oxgang.Queue.qsize, queue).result() == 2
    assert (queue.maxsize, queue.qsize()) == (5, 2)
    for _ in range(4):
        queue.task_done()
    queue.join()
    with pytest.raises(ValueError):
        queue.task_done()
    assert [queue.get(), queue.get()] == [2, 3]


def test_one_that_is_shut_down_goes_along():
    queue = oxgang.Queue()
    queue.put(1)
    queue.shutdown()
    with oxgang.Executor("process", 1) as executor:
        assert executor.submit(list, queue).result() == [1]


@pytest.mark.parametrize("what", ["get", "put", "join", "aget"])
def test_who_waits_goes_on_when_it_becomes_shared(what):
    queue, ends = oxgang.Queue(1), []
    if what in ("put", "join"):
        queue.put("first")
    calls = {
        "get": queue.get,
        "put": lambda: queue.put("second", timeout=50),
        "join": queue.join,
        "aget": lambda: asyncio.run(queue.aget()),
    }
    with (
        oxgang.Executor("process", 1) as executor,
        Threads(lambda: ends.append(calls[what]())) as threads,
    ):
        threads.wait_until_asleep()
        count = executor.submit(oxgang.Queue.qsize, queue).result()
        assert count == (what in ("put", "join"))
        threads.wait_until_asleep()
        assert not ends
        if what in ("put", "join"):
            assert executor.submit(oxgang.Queue.get, queue).result() == "first"
            queue.task_done()
        else:
            executor.submit(oxgang.Queue.put, queue, "there").result()
    assert ends == ["there" if what in ("get", "aget") else None]


def test_many_use_it_while_it_becomes_shared():
    with oxgang.Executor("process", 1) as executor:
        for turn in range(10):
            queue, got = oxgang.Queue(turn % 2 * 3), []

            def share(queue=queue, turn=turn):
                time.sleep(turn * 0.0003)
                executor.submit(oxgang.Queue.qsize, queue).result()

            with Threads(lambda queue=queue, got=got: got.extend(queue), share, share):
                with Threads(
                    lambda queue=queue: put_range(queue, 0, 200),
                    lambda queue=queue: put_range(queue, 1000, 200),
                ):
                    pass
                queue.shutdown()
            assert [item for item in got if item < 1000] == list(range(200))
            assert [item for item in got if item >= 1000] == list(range(1000, 1200))


def test_what_cannot_be_pickled_keeps_it_local():
    queue, item = oxgang.Queue(), Stubborn()
    queue.put(1)
    queue.put(item)
    with oxgang.Executor("process", 1) as executor:
        for _ in range(2):
            with pytest.raises(TypeError, match="stubborn"):
                executor.submit(oxgang.Queue.qsize, queue).result()
    assert queue.get() == 1
    assert queue.get() is item


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_shares_what_it_can():
    fine, stubborn, item = oxgang.Queue(), oxgang.Queue(), Stubborn()
    stubborn.put(item)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            fine.put("from the child")
            try:
                stubborn.get()
            except RuntimeError as error:
                status = 0 if "stubborn" in str(error) else 2
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    assert fine.get() == "from the child"
    assert stubborn.get() is item


# -- coroutines ----------------------------------------------------------------------------------


def test_a_thread_gives_to_coroutines(make):
    queue, got = make(), []

    async def consumer():
        async for item in queue:
            got.append(item)

    async def main():
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(consumer())
            await asyncio.sleep(0.01)
            await asyncio.to_thread(put_range, queue, 0, 2000)
            queue.shutdown()

    asyncio.run(main())
    assert sorted(got) == list(range(2000))


def test_coroutines_give_to_a_thread(make):
    queue, got = make(3), []

    async def main():
        async with asyncio.TaskGroup() as group:
            for start in (0, 100):
                group.create_task(produce(start))
        queue.shutdown()

    async def produce(start):
        for number in range(start, start + 60):
            await queue.aput(number)

    with Threads(lambda: got.extend(queue)):
        asyncio.run(main())
    assert sorted(got) == [*range(60), *range(100, 160)]


def test_a_process_gives_to_a_coroutine():
    queue = oxgang.Queue(10)

    async def main():
        process = multiprocessing.get_context("fork").Process(
            target=put_range, args=(queue, 0, 300)
        )
        process.start()
        got = [await queue.aget(timeout=30) for _ in range(300)]
        process.join()
        return got

    assert asyncio.run(main()) == list(range(300))


def test_coroutines_wait_in_order(make):
    queue, got = make(), []

    async def consumer(number):
        got.append((number, await queue.aget()))

    async def main():
        async with asyncio.TaskGroup() as group:
            for number in range(4):
                group.create_task(consumer(number))
                await asyncio.sleep(0.005)
            for item in "abcd":
                queue.put(item)
                await asyncio.sleep(0.02)

    asyncio.run(main())
    assert got == [(0, "a"), (1, "b"), (2, "c"), (3, "d")]


def test_a_cancelled_coroutine_takes_nothing(make):
    queue = make()

    async def main():
        for number in range(200):
            task = asyncio.create_task(queue.aget())
            await asyncio.sleep(0)
            put = threading.Thread(target=queue.put, args=(number,))
            put.start()
            if number % 2:
                await asyncio.sleep(0)
            task.cancel()
            try:
                got = await task
            except asyncio.CancelledError:
                got = await queue.aget(timeout=30)
            put.join()
            assert got == number
        assert queue.empty()

    asyncio.run(main())


def test_time_limits_of_coroutines(make):
    queue = make(1)

    async def main():
        with pytest.raises(Empty):
            await queue.aget(timeout=0.02)
        await queue.aput(1, timeout=0.02)
        with pytest.raises(Full):
            await queue.aput(2, timeout=0.02)
        assert await queue.aget(timeout=5) == 1
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await queue.aget()

    asyncio.run(main())


def test_shutdown_tells_coroutines(make):
    async def main():
        queue, full = make(), make(1)
        full.put(1)
        tasks = [asyncio.create_task(one) for one in (queue.aget(), queue.aget(), full.aput(2))]
        await asyncio.sleep(0.02)
        queue.shutdown()
        full.shutdown()
        for task in tasks:
            with pytest.raises(ShutDown):
                await task

    asyncio.run(main())


def test_loops_come_and_go(make):
    queue = make()

    async def take():
        return await queue.aget(timeout=30)

    for number in range(5):
        timer = threading.Timer(0.01, queue.put, (number,))
        timer.start()
        assert asyncio.run(take()) == number
        timer.join()
    got = []
    with Threads(*[lambda: got.append(asyncio.run(take()))] * 3) as threads:
        threads.wait_until_asleep()
        for number in range(3):
            queue.put(number)
    assert sorted(got) == [0, 1, 2]


def test_a_signal_handler_that_raises_ends_a_wait(make):
    def handler(_signal, _frame):
        raise Interrupted

    queue = make()
    before = signal.signal(signal.SIGUSR1, handler)

    def interrupt():
        time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGUSR1)

    try:
        with Threads(interrupt), pytest.raises(Interrupted):
            queue.get()
    finally:
        signal.signal(signal.SIGUSR1, before)


# -- channels ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_a_channel_between_processes(method):
    here, there = oxgang.Channel.pair()
    context = multiprocessing.get_context(method)
    process = context.Process(target=answer, args=(there,))
    process.start()
    for number in range(20):
        here.send(number)
        assert here.receive(timeout=30) == 2 * number
    here.close()
    process.join()
    assert process.exitcode == 0
    with pytest.raises(ShutDown):
        here.send(1)


def test_a_channel_of_coroutines():
    async def side(channel):
        with channel:
            async for item in channel:
                await channel.asend(item + 1)

    async def main():
        here, there = oxgang.Channel.pair(2)
        task = asyncio.create_task(side(there))
        for number in range(10):
            await here.asend(number)
            assert await here.areceive(timeout=30) == number + 1
        here.close()
        await task
        with pytest.raises(ShutDown):
            await here.areceive()
        assert "0 to receive" in repr(here)

    asyncio.run(main())
