"""`oxgang.pipeline`: stages of each kind, both faces."""

import asyncio
import os
import threading
import time

import calls
import oxgang
import pytest
from oxgang import pipeline, stage
from oxgang.errors import BrokenProcessPool, TaskTimeout, WorkerCrashed
from tasks import Folder, wait_for_go

OTHERS = ["process", "thread"]


async def plus_one(number):
    await asyncio.sleep(0)
    return number + 1


def double(number):
    return 2 * number


def here(number):
    return number, os.getpid(), threading.get_ident()


async def later(number):
    await asyncio.sleep(0.01 if number == 0 else 0)
    return number


def by_iteration(pipe, items, **options):
    return list(pipe.map(items, **options))


def by_loop(pipe, items, **options):
    async def main():
        return [result async for result in pipe.amap(items, **options)]

    return asyncio.run(main())


@pytest.fixture(params=[by_iteration, by_loop])
def results_of(request):
    return request.param


def test_each_stage_in_its_own_kind(results_of):
    pipe = pipeline(plus_one, stage(here, model="process"), stage(here, model="thread"))
    results = results_of(pipe, range(50))
    assert [number for ((number, _, _), _, _) in results] == list(range(1, 51))
    assert os.getpid() not in {pid for ((_, pid, _), _, _) in results}
    assert {pid for (_, pid, _) in results} == {os.getpid()}
    assert threading.get_ident() not in {thread for (_, _, thread) in results}


def test_without_further_words_by_the_kind_of_function():
    assert [one.model for one in pipeline(plus_one, double).stages] == ["coroutine", "process"]
    assert repr(pipeline(plus_one, double)) == "<oxgang.pipeline plus_one | double>"
    assert repr(stage(double, model="thread", limit=3)) == (
        "<oxgang.stage double model='thread' limit=3>"
    )


def test_as_they_come(results_of):
    results = results_of(pipeline(later, plus_one), range(20), ordered=False)
    assert sorted(results) == list(range(1, 21)) and results[0] != 1


def test_a_failure_ends_it_and_says_where(results_of):
    pipe = pipeline(plus_one, stage(calls.fail, model="thread"))
    with pytest.raises(LookupError) as caught:
        results_of(pipe, [1])
    assert caught.value.__notes__ == ["in the stage fail of a pipeline"]


def fails_at_three(number):
    if number == 3:
        raise ValueError("three")
    return number


def test_failures_as_results(results_of):
    pipe = pipeline(stage(fails_at_three, model="thread"), plus_one)
    results = results_of(pipe, range(6), return_exceptions=True)
    assert [type(one) is ValueError for one in results] == [False] * 3 + [True] + [False] * 2
    assert results[4] == 5


@pytest.mark.parametrize("model", ["coroutine", "process", "thread"])
def test_a_slow_stage_holds_up_the_input(model, results_of):
    """No stage gets further ahead than the room that there is."""
    taken = 0

    def items():
        nonlocal taken
        while taken < 500:
            taken += 1
            yield taken

    slow = {
        "coroutine": stage(waits, limit=1),
        "thread": stage(blocks, model="thread", limit=1),
        "process": stage(blocks, model="process", limit=1),
    }[model]
    first = stage(plus_one, limit=3)
    pipe = pipeline(first, slow)
    if results_of is by_loop:

        async def main():
            results = pipe.amap(items())
            async for _ in results:
                break
            seen = taken
            await results.aclose()
            return seen

        seen = asyncio.run(main())
    else:
        results = pipe.map(items())
        next(results)
        seen = taken
        results.close()
    # what is in the stages and unread (twice that many; `map` looks a little further ahead)
    assert 1 <= seen <= 5 * (first.room + slow.room)


async def waits(number):
    await asyncio.sleep(0.02)
    return number


def blocks(number):
    time.sleep(0.02)
    return number


def test_no_more_at_once_than_the_limit(results_of):
    most = now = 0
    lock = threading.Lock()

    def counts(number):
        nonlocal most, now
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.002)
        with lock:
            now -= 1
        return number

    many = stage(plus_one, limit=50)
    results_of(pipeline(many, stage(counts, model="thread", limit=3)), range(60))
    assert 2 <= most <= 3


def test_limits_and_retries_of_a_stage(results_of, tmp_path):
    tries = tmp_path / "tries"
    pipe = pipeline(
        stage(hangs_once, model="process", timeout=0.2, retries=2, retry_on=TaskTimeout)
    )
    assert results_of(pipe, [str(tries)]) == [2]
    with pytest.raises(TimeoutError):
        results_of(pipeline(stage(sleeps, timeout=0.05)), [1])
    with pytest.raises(WorkerCrashed):
        results_of(pipeline(stage(dies, model="process")), [1])


def hangs_once(path):
    with open(path, "a") as file:
        file.write("x")
    if os.path.getsize(path) == 1:
        time.sleep(60)
    return os.path.getsize(path)


async def sleeps(number):
    await asyncio.sleep(60)


def dies(number):
    os._exit(3)


def test_an_input_that_fails_comes_after_what_was_before(results_of):
    def items():
        yield 1
        raise KeyError("input")

    seen = []
    pipe = pipeline(plus_one)
    if results_of is by_loop:

        async def main():
            async for one in pipe.amap(items()):
                seen.append(one)

        with pytest.raises(KeyError):
            asyncio.run(main())
    else:
        with pytest.raises(KeyError):
            for one in pipe.map(items()):
                seen.append(one)
    assert seen == [2]


def test_workers_are_kept_within_a_block():
    with pipeline(stage(here, model="process", limit=1)) as pipe:
        first, second = (next(iter(pipe.map([1]))) for _ in range(2))
        assert first[1] == second[1]

    async def main():
        async with pipe:
            pids = {pid async for _, pid, _ in pipe.amap([1])}
            return pids | {pid async for _, pid, _ in pipe.amap([1])}

    assert len(asyncio.run(main())) == 1
    without = {next(iter(pipe.map([1])))[1] for _ in range(2)}
    assert len(without) == 2


def test_workers_are_kept_until_the_outermost_block_ends():
    pipe = pipeline(here)

    def pids():
        with pipe:
            return {result[1] for result in pipe.map(range(20))}

    with pytest.raises(LookupError, match="of the block"), pipe:
        workers = pids()
        assert pids() & workers
        raise LookupError("of the block")
    assert not pids() & workers

    async def main():
        with pytest.raises(LookupError, match="of the block"):
            async with pipe:
                async with pipe:
                    workers = {result[1] async for result in pipe.amap(range(20))}
                assert {result[1] async for result in pipe.amap(range(20))} & workers
                raise LookupError("of the block")
        assert not pids() & workers

    asyncio.run(main())


def test_an_asynchronous_input():
    async def items():
        for number in range(5):
            yield number

    assert by_loop(pipeline(plus_one, plus_one), items()) == [2, 3, 4, 5, 6]


def test_left_early_ends_what_runs():
    pipe = pipeline(stage(sleeps_in_process, model="process"))
    results = pipe.map([0, 60, 60])
    assert next(results) == 0
    results.close()  # does not wait a minute: the watchdog would bark


def sleeps_in_process(seconds):
    time.sleep(seconds)
    return seconds


@pytest.mark.parametrize(
    "make",
    [
        pipeline,
        lambda: pipeline(5),
        lambda: stage(double, model="coroutine"),
        lambda: stage(plus_one, model="process"),
        lambda: stage(double, model="fibre"),
        lambda: stage(double, limit=0),
        lambda: stage(double, limit=4, room=3),
        lambda: stage(plus_one, memory_limit="1GiB"),
        lambda: stage(double, timeout=-1),
        lambda: stage(double, retry_on="x"),
    ],
)
def test_bad_stages(make):
    with pytest.raises((TypeError, ValueError)):
        make()


def test_a_coroutine_awaits_other_models_of_its_executor():
    async def both(number):
        _, pid, _ = await executor.submit_to("process", here, number)
        _, _, thread = await executor.submit_to("thread", here, number)
        return pid, thread

    with oxgang.Executor("coroutine", 10) as executor:
        futures = [executor.submit(both, number) for number in range(30)]
    # leaving the block has waited, and the others were there as long as they were needed
    results = [future.result() for future in futures]
    assert os.getpid() not in {pid for pid, _ in results}
    assert threading.get_ident() not in {thread for _, thread in results}
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit_to("thread", here, 1).result()
    with pytest.raises(ValueError, match="fibre"):
        executor.submit_to("fibre", here, 1)


def test_other_models_end_with_an_executor_that_is_not_waited_for(tmp_path):
    folder = Folder(tmp_path)
    executor = oxgang.Executor("coroutine", 10)
    running = [executor.submit_to(model, wait_for_go, folder, model) for model in OTHERS]
    executor.shutdown(wait=False)
    for model in OTHERS:
        with pytest.raises(RuntimeError, match="after shutdown"):
            executor.submit_to(model, here, 1)
    folder.mark("go")
    assert [future.result() for future in running] == OTHERS
    executor.shutdown()


@pytest.mark.parametrize("how", ["kill_workers", "terminate_workers"])
def test_other_models_are_stopped_with_an_executor(tmp_path, how):
    folder = Folder(tmp_path)
    executor = oxgang.Executor("coroutine", 10)
    process, thread = (executor.submit_to(model, wait_for_go, folder, model) for model in OTHERS)
    for model in OTHERS:
        folder.wait_for(f"begun-{model}")
    getattr(executor, how)()
    for model in OTHERS:
        with pytest.raises(RuntimeError, match=r"after shutdown|pool was (killed|terminated)"):
            executor.submit_to(model, here, 1)
    assert isinstance(process.exception(), BrokenProcessPool)
    assert not thread.done()  # it cannot be stopped
    folder.mark("go")
    assert thread.result() == "thread"
    executor.shutdown()


def test_its_own_model_is_its_own_pool():
    with oxgang.Executor("thread", 1) as executor:
        threads = {executor.submit_to("thread", here, 1).result()[2] for _ in range(3)}
        assert threads == {executor.submit(here, 1).result()[2]}


def test_public():
    assert oxgang.pipeline is pipeline and oxgang.stage is stage
