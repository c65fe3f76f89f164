"""`oxgang.asyncio`: what it adds to the standard module."""

import asyncio as standard
import contextlib
import gc
import multiprocessing
import threading
import time
import tracemalloc

import calls
import oxgang.multiprocessing
import oxgang.threading
import pytest
from oxgang import asyncio


def test_all_of_the_standard_module_is_there():
    for name in standard.__all__:
        ours = getattr(asyncio, name)
        assert ours is getattr(standard, name) or name in ("run", "Runner"), name
    assert asyncio.events is standard.events
    with pytest.raises(AttributeError):
        asyncio.nothing  # noqa: B018


# -- run -------------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", ["auto", "asyncio", "uvloop", "rloop"])
def test_run(loop, caplog):
    caplog.set_level("INFO", "oxgang.asyncio")

    async def main():
        await asyncio.sleep(0)
        return type(asyncio.get_running_loop()).__module__

    module = asyncio.run(main(), loop=loop, debug=True)
    wanted = "uvloop" if loop == "auto" else loop
    assert module.partition(".")[0] == wanted
    assert wanted in caplog.text
    with asyncio.Runner(loop=loop) as runner:
        assert runner.run(main()).partition(".")[0] == wanted


def test_run_with_what_there_is_not():
    main = asyncio.sleep(0)
    with pytest.raises(ValueError, match="one of 'auto', 'asyncio'"):
        asyncio.run(main, loop="fast")
    main.close()

    async def outer():
        inner = asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="running event loop"):
            asyncio.run(inner)
        inner.close()

    asyncio.run(outer(), loop_factory=standard.new_event_loop)


def test_to_process():
    async def main():
        one, other = await asyncio.gather(
            asyncio.to_process(calls.pid), asyncio.to_thread(calls.pid)
        )
        with pytest.raises(LookupError):
            await asyncio.to_process(calls.fail, "x")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await asyncio.to_process(calls.nap, 3600)
        return one, other

    process, thread = asyncio.run(main())
    assert process != thread == calls.pid()


# -- map -------------------------------------------------------------------------------------


async def double(number):
    await asyncio.sleep(0.001 * (number % 3))
    return 2 * number


async def collect(iterator):
    return [one async for one in iterator]


@pytest.mark.parametrize("limit", [1, 3, 100])
def test_map(limit):
    wanted = [2 * number for number in range(50)]
    assert asyncio.run(collect(asyncio.map(double, range(50), limit=limit))) == wanted
    unordered = asyncio.run(collect(asyncio.map(double, range(50), limit=limit, ordered=False)))
    assert sorted(unordered) == wanted
    assert asyncio.run(collect(asyncio.map(double, [], limit=limit))) == []
    assert asyncio.run(collect(asyncio.map(double, iter(()), limit=limit))) == []


def test_unordered_results_come_as_they_are_done():
    async def nap(seconds):
        await asyncio.sleep(seconds)
        return seconds

    naps = [0.2, 0.1, 0.0]
    assert asyncio.run(collect(asyncio.map(nap, naps, ordered=False))) == naps[::-1]


def test_several_and_asynchronous_inputs():
    async def numbers():
        for number in range(30):
            await asyncio.sleep(0)
            yield number

    async def both(one, other):
        return one, other

    async def main():
        pairs = await collect(asyncio.map(both, numbers(), "abcdef", limit=4))
        assert pairs == list(enumerate("abcdef"))
        assert await collect(asyncio.map(double, numbers(), limit=7)) == list(range(0, 60, 2))

    asyncio.run(main())


@pytest.mark.parametrize("ordered", [True, False])
def test_an_endless_input_and_a_slow_consumer(ordered):
    read, flying = [], []

    def endless():
        number = 0
        while True:
            read.append(number)
            yield number
            number += 1

    async def call(number):
        flying.append(1)
        assert len(flying) <= 5
        await asyncio.sleep(0)
        flying.pop()
        return number

    async def main():
        async with contextlib.aclosing(
            asyncio.map(call, endless(), limit=5, ordered=ordered)
        ) as results:
            taken = 0
            async for _ in results:
                taken += 1
                for _ in range(5):
                    await asyncio.sleep(0)
                assert len(read) <= taken + 2 * 5 + 1
                if taken == 50:
                    break

    asyncio.run(main())


def test_a_failure_ends_the_others():
    cancelled = []

    async def call(number):
        if number == 3:
            raise LookupError("three")
        if number > 3:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                cancelled.append(number)
                raise
        return number

    async def main():
        got = []
        with pytest.raises(LookupError, match="three"):
            async for one in asyncio.map(call, range(100), limit=10):
                got.append(one)
        assert got == [0, 1, 2] and cancelled
        both = asyncio.map(call, [2, 3], return_exceptions=True)
        two, three = await collect(both)
        assert two == 2 and isinstance(three, LookupError)
        assert len(asyncio.all_tasks()) == 1, "nobody is left"

    asyncio.run(main())


def test_an_input_that_raises():
    def numbers():
        yield 1
        yield 2
        raise OSError("the input")

    async def main():
        got = []
        with pytest.raises(OSError, match="the input"):
            async for one in asyncio.map(double, numbers()):
                got.append(one)
        assert got == [2, 4]

    asyncio.run(main())


async def cancelled_at_two(number):
    """As one that awaits a task which somebody cancels."""
    if number == 2:
        awaited = standard.ensure_future(standard.sleep(3600))
        awaited.cancel()
        await awaited
    return number


@pytest.mark.parametrize("options", [{}, {"retries": 1}, {"ordered": False}, {"limit": 1}])
def test_a_calls_own_cancellation_is_its_outcome(options):
    async def main():
        with pytest.raises(asyncio.CancelledError):
            await collect(asyncio.map(cancelled_at_two, range(5), **options))
        assert asyncio.current_task().cancelling() == 0
        results = asyncio.map(cancelled_at_two, range(5), return_exceptions=True, **options)
        results = await collect(results)
        (error,) = (one for one in results if isinstance(one, BaseException))
        assert isinstance(error, asyncio.CancelledError)
        assert sorted({*results} - {error}) == [0, 1, 3, 4]
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())


def test_the_inputs_own_cancellation_ends_it():
    async def numbers():
        yield 1
        await cancelled_at_two(2)

    async def main():
        seen = []
        with pytest.raises(asyncio.CancelledError):
            async for one in asyncio.map(double, numbers()):
                seen.append(one)
        assert seen == [2]

    asyncio.run(main())


@pytest.mark.parametrize("return_exceptions", [False, True])
def test_workers_that_others_cancel_end_it(return_exceptions):
    """As by a program that cancels all tasks there are, or a call that cancels its own."""

    async def cancels_its_task(number):
        asyncio.current_task().cancel()
        await asyncio.sleep(0)

    async def main():
        with pytest.raises(asyncio.CancelledError):
            await collect(
                asyncio.map(
                    cancels_its_task, range(5), limit=2, return_exceptions=return_exceptions
                )
            )
        assert len(asyncio.all_tasks()) == 1
        left = asyncio.map(double, range(1000), limit=2)
        await anext(left)
        return left  # its workers are cancelled by the end of the loop, and end

    asyncio.run(main())


def test_leaving_early_and_being_cancelled():
    async def main():
        async for _ in asyncio.map(double, range(1000), limit=10):
            break
        gc.collect()
        await asyncio.sleep(0.05)
        assert len(asyncio.all_tasks()) == 1
        task = asyncio.ensure_future(collect(asyncio.map(asyncio.sleep, [3600] * 20)))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())


def test_retries_and_time_limits():
    tries = {}

    async def flaky(number):
        tries[number] = tries.get(number, 0) + 1
        if tries[number] < 3:
            raise ConnectionError(number)
        return number

    async def main():
        assert await collect(asyncio.map(flaky, range(5), retries=2)) == list(range(5))
        assert set(tries.values()) == {3}
        tries.clear()
        with pytest.raises(ConnectionError):
            await collect(asyncio.map(flaky, [1], retries=1))
        tries.clear()
        with pytest.raises(ConnectionError):
            await collect(asyncio.map(flaky, [1], retries=5, retry_on=LookupError))
        assert tries == {1: 1}
        slow = asyncio.map(asyncio.sleep, [0, 3600], timeout=0.05, return_exceptions=True)
        quick, late = await collect(slow)
        assert quick is None and isinstance(late, TimeoutError)

    asyncio.run(main())


@pytest.mark.parametrize("limit", [None, 3600])
def test_retries_do_not_keep_it_from_being_cancelled(limit):
    tried = []

    async def nap(number):
        tried.append(number)
        await asyncio.sleep(3600)

    async def main():
        naps = asyncio.map(nap, [1, 2], retries=3, retry_on=BaseException, timeout=limit)
        task = asyncio.ensure_future(collect(naps))
        while len(tried) < 2:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert tried == [1, 2]

    asyncio.run(main())


def test_a_hundred_thousand_items():
    async def one(number):
        await asyncio.sleep(0)
        return number

    async def main():
        total = 0
        async for number in asyncio.map(one, iter(range(100_000)), limit=200):
            total += number
        return total

    tracemalloc.start()
    try:
        assert asyncio.run(main()) == sum(range(100_000))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # 200 tasks and 400 results of some kB at most; a task for each item would be 160 MB
    assert most < 4 << 20


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [
        ((5, [1]), {}, TypeError),
        ((double,), {}, TypeError),
        ((double, [1]), {"limit": 0}, ValueError),
        ((double, [1]), {"retries": -1}, ValueError),
        ((double, [1]), {"timeout": 0}, ValueError),
        ((double, [1]), {"retries": 1, "retry_on": 3}, TypeError),
        ((double, [1]), {"retries": 1, "retry_on": (LookupError, "x")}, TypeError),
    ],
)
def test_bad_arguments(arguments, options, error):
    with pytest.raises(error):
        asyncio.map(*arguments, **options)


# -- rates and locks ---------------------------------------------------------------------------


def test_a_rate():
    entries = []

    async def enter(limit):
        async with limit:
            entries.append(asyncio.get_running_loop().time())

    async def main():
        limit = asyncio.RateLimit(3, per=0.2)
        await asyncio.gather(*[enter(limit) for _ in range(12)])
        impatient = asyncio.ensure_future(enter(limit))
        await asyncio.sleep(0)
        impatient.cancel()
        with pytest.raises(asyncio.CancelledError):
            await impatient
        await asyncio.gather(*[enter(limit) for _ in range(3)])

    asyncio.run(main())
    assert len(entries) == 15 and entries == sorted(entries)
    for early, late in zip(entries, entries[3:], strict=False):
        assert late - early >= 0.19  # a loop may wake a little before its time


def test_a_rate_that_is_none():
    with pytest.raises(ValueError, match="positive"):
        asyncio.RateLimit(0)


LOCKS = {
    "threading": threading.Lock,
    "multiprocessing": multiprocessing.Lock,
    "oxgang.threading semaphore": oxgang.threading.Semaphore,
    "oxgang.multiprocessing": oxgang.multiprocessing.Lock,
}


@pytest.mark.parametrize("make", LOCKS.values(), ids=LOCKS)
def test_locks_of_any_kind_are_held(make):
    lock = make()
    inside = []

    async def work():
        for _ in range(5):
            async with asyncio.held(lock):
                inside.append(1)
                assert len(inside) == 1
                await asyncio.sleep(0)
                inside.pop()

    async def main():
        await asyncio.gather(*[work() for _ in range(5)])
        lock.acquire()
        ticks = 0
        task = asyncio.ensure_future(work())
        for _ in range(10):
            await asyncio.sleep(0.01)
            ticks += 1
        assert ticks == 10 and not task.done(), "the loop goes on meanwhile"
        abandoned = asyncio.ensure_future(work())
        await asyncio.sleep(0.01)
        abandoned.cancel()
        with pytest.raises(asyncio.CancelledError):
            await abandoned
        lock.release()
        await task
        assert lock.acquire(False)

    asyncio.run(main())


def test_locks_that_cannot_be_held():
    for lock in (threading.RLock(), oxgang.multiprocessing.RLock(), oxgang.threading.RLock()):
        with pytest.raises(TypeError, match="belongs to a thread"):
            asyncio.held(lock)
    with pytest.raises(TypeError, match="no lock"):
        asyncio.held(5)


def test_a_lock_that_another_process_holds():
    lock = oxgang.multiprocessing.get_context("fork").Lock()
    context = oxgang.multiprocessing.get_context("fork")
    ready = context.Event()

    def holder():
        with lock:
            ready.set()
            time.sleep(0.3)

    process = context.Process(target=holder)
    process.start()
    assert ready.wait(60)

    async def main():
        async with asyncio.held(lock):
            return True

    assert asyncio.run(main())
    process.join()
