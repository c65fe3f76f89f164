"""Futures in event loops: awaited, gathered, cancelled; under every loop, from several at once."""

import asyncio
import concurrent.futures
import contextvars
import gc
import os
import subprocess
import sys
import threading
import time

import anyio
import calls
import pytest
import rloop
import trio
import uvloop
from oxgang import _core
from oxgang.concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor

LOOPS = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
    "rloop": rloop.new_event_loop,
}
POOLS = {"process": ProcessPoolExecutor, "thread": ThreadPoolExecutor}


@pytest.fixture(params=LOOPS)
def run(request):
    """Runs a coroutine in a fresh loop of each kind; nothing may be complained about."""
    complaints = []

    def run(main):
        loop = LOOPS[request.param]()
        loop.set_exception_handler(lambda _, context: complaints.append(context))
        try:
            return loop.run_until_complete(main)
        finally:
            loop.close()

    yield run
    gc.collect()
    assert complaints == []


@pytest.fixture(params=POOLS)
def pool(request):
    with POOLS[request.param](2) as pool:
        yield pool


def test_results_and_errors(run, pool):
    async def main():
        assert await pool.submit(calls.same, 5) == 5
        done = pool.submit(calls.same, 6)
        done.result()
        assert await done == await done == 6
        with pytest.raises(LookupError, match="so it is"):
            await pool.submit(calls.fail, "so it is")
        return "end"

    assert run(main()) == "end"


def test_many_in_flight(run, pool):
    async def worker(start):
        return [await pool.submit(calls.same, n) for n in range(start, start + 50)]

    async def main():
        return await asyncio.gather(*[worker(start * 50) for start in range(40)])

    assert [n for part in run(main()) for n in part] == list(range(2000))


def test_with_what_asyncio_has(run, pool):
    async def main():
        futures = [pool.submit(calls.same, n) for n in range(20)]
        assert await asyncio.gather(*futures) == list(range(20))
        done, pending = await asyncio.wait(set(futures))
        assert not pending and sum(one.result() for one in done) == 190
        slow = pool.submit(calls.nap, 0.4)
        quick = [pool.submit(calls.same, 1)]
        done, pending = await asyncio.wait([slow, *quick], return_when="FIRST_COMPLETED")
        assert done == set(quick) and pending == {slow}
        done, pending = await asyncio.wait([slow], timeout=0.01)
        assert not done
        assert await asyncio.shield(slow) == 0.4
        found = [await one for one in asyncio.as_completed([pool.submit(calls.same, 3)])]
        assert found == [3]
        assert await asyncio.wait_for(pool.submit(calls.same, 4), 60) == 4
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(pool.submit(calls.nap, 0.4), 0.01)
        async with asyncio.TaskGroup() as group, asyncio.timeout(60):
            tasks = [group.create_task(awaited(pool.submit(calls.same, n))) for n in range(9)]
        assert [task.result() for task in tasks] == list(range(9))

    run(main())


async def awaited(future):
    return await future


def test_run_in_executor(run, pool):
    async def main():
        loop = asyncio.get_running_loop()
        got = await asyncio.gather(*[loop.run_in_executor(pool, calls.same, n) for n in range(200)])
        assert got == list(range(200))
        with pytest.raises(LookupError, match="oh"):
            await loop.run_in_executor(pool, calls.fail, "oh")
        abandoned = loop.run_in_executor(pool, calls.nap, 0.2)
        abandoned.cancel()
        with pytest.raises(asyncio.CancelledError):
            await abandoned
        wrapped = asyncio.wrap_future(pool.submit(calls.same, 8))
        assert await wrapped == 8

    run(main())


def test_the_default_executor(run):
    async def main():
        pool = ThreadPoolExecutor(2, thread_name_prefix="ours")
        asyncio.get_running_loop().set_default_executor(pool)
        name = await asyncio.to_thread(lambda: threading.current_thread().name)
        assert name.startswith("ours")
        await asyncio.get_running_loop().shutdown_default_executor()

    run(main())


def test_a_cancelled_wait_cancels_what_has_not_begun(run, pool, tmp_path):
    async def main():
        gate = tmp_path / "gate"
        blockers = [pool.submit(calls.wait_for_file, gate) for _ in range(2)]
        while not all(one.running() for one in blockers):
            await asyncio.sleep(0.01)
        future = pool.submit(calls.same, 1)
        task = asyncio.create_task(awaited(future))
        running = asyncio.create_task(awaited(blockers[0]))
        await asyncio.sleep(0.05)
        assert task.cancel("enough") and running.cancel()
        with pytest.raises(asyncio.CancelledError, match="enough"):
            await task
        with pytest.raises(asyncio.CancelledError):
            await running
        assert future.cancelled() and blockers[0].running()
        gate.touch()
        await asyncio.gather(*blockers)
        late = pool.submit(calls.same, 2)
        late.cancel()
        if late.cancelled():
            with pytest.raises(asyncio.CancelledError):
                await late

    run(main())


def test_a_wait_that_terminates(run):
    async def main():
        with ProcessPoolExecutor(1) as pool:
            future = pool.submit(calls.nap, 3600)
            while not future.running():
                await asyncio.sleep(0.01)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await future.terminating()
            assert future.done()
            assert await pool.submit(calls.same, 1).terminating() == 1

    run(main())


def test_loops_in_several_threads(pool):
    failures = []

    def thread(make):
        async def main():
            for number in range(100):
                got = await asyncio.gather(*[pool.submit(calls.same, number) for _ in range(3)])
                assert got == [number] * 3

        loop = make()
        try:
            loop.run_until_complete(main())
        except BaseException as failure:
            failures.append(failure)
            raise
        finally:
            loop.close()

    threads = [threading.Thread(target=thread, args=(make,)) for make in LOOPS.values()]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert failures == []


def test_one_future_in_two_loops(pool, tmp_path):
    future = pool.submit(calls.wait_for_file, tmp_path / "gate")
    seen = []

    def thread():
        async def main():
            await future
            seen.append(threading.get_ident())

        asyncio.run(main())

    threads = [threading.Thread(target=thread) for _ in range(2)]
    for one in threads:
        one.start()
    (tmp_path / "gate").touch()
    for one in threads:
        one.join()
    assert len(set(seen)) == 2


def test_a_loop_closes_while_calls_run(pool, tmp_path):
    for name, make in LOOPS.items():
        gate = tmp_path / name

        async def main(gate=gate):
            future = pool.submit(calls.wait_for_file, gate)
            asyncio.get_running_loop().run_in_executor(pool, calls.wait_for_file, gate)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await future

        loop = make()
        loop.run_until_complete(main())
        loop.close()
        gate.touch()
    assert asyncio.run(awaited(pool.submit(calls.same, 2))) == 2


def test_an_idle_loop_has_nothing_of_ours(pool):
    async def main():
        loop = asyncio.get_running_loop()
        before = len(loop._selector.get_map())
        for _ in range(3):
            await pool.submit(calls.nap, 0.02)
            await asyncio.sleep(0)
            assert len(loop._selector.get_map()) == before

    asyncio.run(main())


@pytest.mark.parametrize("rest", [0, 0.05], ids=["it looked", "it slept"])
def test_a_call_that_outlives_its_loop_leaves_nothing_of_it(pool, tmp_path, rest):
    futures = [pool.submit(calls.nap, 0.05) for _ in range(2)]  # its workers are up
    left = []

    async def main():
        futures.append(pool.submit(calls.wait_for_file, tmp_path / "go"))
        left.append(asyncio.ensure_future(awaited(futures[-1])))
        for _ in range(3):
            await asyncio.sleep(0)
        await asyncio.sleep(rest)

    def known():
        concurrent.futures.wait(futures)
        futures.clear()
        left.clear()
        gc.collect()
        ports = sum(isinstance(one, _core.LoopPort) for one in gc.get_objects())
        return ports, len(os.listdir("/proc/self/fd"))

    before = known()
    for _ in range(5):
        asyncio.run(main())
    (tmp_path / "go").touch()
    assert known() == before


def test_descriptors_go_with_their_loops(pool):
    def descriptors():
        gc.collect()
        return len(os.listdir("/proc/self/fd"))

    asyncio.run(awaited(pool.submit(calls.nap, 0.02)))
    before = descriptors()
    for _ in range(20):
        asyncio.run(awaited(pool.submit(calls.nap, 0.01)))
    assert descriptors() <= before + 1


def test_the_context_of_a_task_is_its_own(run, pool):
    name = contextvars.ContextVar("name")

    async def work(number):
        name.set(number)
        for _ in range(5):
            await pool.submit(calls.same, 1)
            assert name.get() == number

    async def main():
        await asyncio.gather(*[work(number) for number in range(20)])

    run(main())


def test_callbacks_that_raise_are_reported_and_harm_no_other(pool, tmp_path):
    reported = []

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))
        gate = tmp_path / "gate"
        futures = [pool.submit(calls.wait_for_file, gate) for _ in range(2)]
        for future in futures:
            future.add_done_callback(asyncio_callback())
        gate.touch()
        await asyncio.gather(*futures)

    asyncio.run(main())
    assert [str(one) for one in reported] == ["as it does"] * 2


def asyncio_callback():
    """One of those that are told in the loop."""

    def callback(_):
        raise ValueError("as it does")

    callback.__module__ = "asyncio.tasks"
    return callback


def test_an_exit_in_one_task_loses_no_other(pool, tmp_path):
    gate = tmp_path / "gate"
    loop = asyncio.new_event_loop()

    async def leave(future):
        await future
        raise SystemExit(3)

    async def main():
        futures = [pool.submit(calls.wait_for_file, gate) for _ in range(2)]
        tasks = [loop.create_task(leave(futures[0]))]
        tasks += [loop.create_task(awaited(future)) for future in futures * 3]
        await asyncio.sleep(0.05)
        gate.touch()
        await asyncio.gather(*tasks[1:])
        return tasks

    task = loop.create_task(main())
    with pytest.raises(SystemExit):
        loop.run_until_complete(task)
    tasks = loop.run_until_complete(task)
    assert all(one.done() for one in tasks)
    assert isinstance(tasks[0].exception(), SystemExit)
    loop.close()


def test_futures_of_ones_own(run):
    async def main():
        future = Future()
        asyncio.get_running_loop().call_later(0.02, future.set_result, 7)
        assert await future == 7
        future = Future()
        threading.Timer(0.02, future.set_exception, [KeyError("k")]).start()
        with pytest.raises(KeyError):
            await future

    run(main())


def test_an_abandoned_future_is_collected():
    class Large:
        pass

    async def main():
        future = Future()
        task = asyncio.ensure_future(awaited(future))
        await asyncio.sleep(0)
        future.large = Large()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        del future, task

    asyncio.run(main())
    gc.collect()
    assert not [one for one in gc.get_objects() if isinstance(one, Large)]


def test_callbacks_can_be_taken_back(pool, tmp_path):
    seen = []
    future = pool.submit(calls.wait_for_file, tmp_path / "gate")
    future.add_done_callback(seen.append)
    future.add_done_callback(seen.append)
    assert future.remove_done_callback(print) == 0
    assert future.remove_done_callback(seen.append) == 2
    (tmp_path / "gate").touch()
    future.result()
    assert seen == []


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_under_anyio(backend, pool):
    async def main():
        assert await pool.submit(calls.same, 5) == 5
        with pytest.raises(LookupError, match="so"):
            await pool.submit(calls.fail, "so")
        future = pool.submit(calls.nap, 0.4)
        with anyio.move_on_after(0.05):
            await future
        got = []

        async def one(number):
            got.append(await pool.submit(calls.same, number))

        async with anyio.create_task_group() as group:
            for number in range(50):
                group.start_soon(one, number)
        assert sorted(got) == list(range(50))

    anyio.run(main, backend=backend)


def test_trio_terminates():
    async def main():
        with ProcessPoolExecutor(1) as pool:
            future = pool.submit(calls.nap, 3600)
            while not future.running():
                await trio.sleep(0.01)
            with trio.move_on_after(0.05):
                await future.terminating()
            assert future.done()

    trio.run(main)


def test_without_a_loop():
    with pytest.raises(RuntimeError, match="running asyncio loop"):
        awaited(Future()).send(None)


def test_a_fork_after_a_loop_ran():
    """The child's loops have ports of their own."""
    with ProcessPoolExecutor(1) as pool:
        asyncio.run(awaited(pool.submit(calls.same, 1)))
        child = os.fork()
        if not child:
            status = 1
            try:
                with ThreadPoolExecutor(1) as own:
                    status = asyncio.run(awaited(own.submit(calls.same, 42)))
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42
        assert asyncio.run(awaited(pool.submit(calls.same, 2))) == 2


def test_nothing_is_said_at_the_end(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        """
import asyncio, time
from oxgang.concurrent.futures import ProcessPoolExecutor

async def main():
    with ProcessPoolExecutor(2) as pool:
        print(sum(await asyncio.gather(*[pool.submit(abs, -n) for n in range(100)])))
        try:
            async with asyncio.timeout(0.1):
                await pool.submit(time.sleep, 0.3)
        except TimeoutError:
            print("time is up")

asyncio.run(main(), debug=True)
"""
    )
    command = [sys.executable, "-X", "dev", "-W", "error", script]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("4950\ntime is up\n", 0), done.stderr
    noise = [line for line in done.stderr.splitlines() if "took" not in line]
    assert noise == []


@pytest.mark.parametrize("spin", ["0", "40"])
def test_pool_after_pool(tmp_path, spin):
    """The loop sleeps for each of them, also for those that it has met only in this round."""
    script = tmp_path / "script.py"
    script.write_text(
        """
import asyncio, time
from oxgang.concurrent.futures import ProcessPoolExecutor

async def main():
    with ProcessPoolExecutor(1) as one, ProcessPoolExecutor(1) as other:
        for _ in range(3):
            for pool in (one, other):
                await pool.submit(time.sleep, 0.02)
    print("all")

asyncio.run(main())
"""
    )
    done = subprocess.run(
        [sys.executable, script],
        env=os.environ | {"OXGANG_SPIN": spin},
        check=False,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert (done.stdout, done.stderr) == ("all\n", "")


def test_waiting_threads_and_loops_at_once(pool):
    """Whoever looks for answers finds the other's too."""
    stop = time.monotonic() + 1.0
    counts = [0, 0]

    def thread():
        while time.monotonic() < stop:
            assert pool.submit(calls.same, 1).result() == 1
            counts[0] += 1

    async def main():
        while time.monotonic() < stop:
            assert await pool.submit(calls.same, 2) == 2
            counts[1] += 1

    one = threading.Thread(target=thread)
    one.start()
    asyncio.run(main())
    one.join()
    assert min(counts) > 0


def test_the_standard_executors_are_as_they_were():
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        future = pool.submit(calls.same, 1)
        assert not hasattr(future, "__await__") and future.result() == 1
