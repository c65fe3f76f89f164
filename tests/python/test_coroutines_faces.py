"""Pools of coroutines through their other faces: `Executor`, maps, and who holds the loop up."""

import asyncio
import functools
import logging
import os

import coroutines
import oxgang
import pytest
from oxgang.asyncio import CoroutinePoolExecutor
from oxgang.errors import TaskTimeout

pytestmark = pytest.mark.usefixtures("no_complaint")


# -- the faces ---------------------------------------------------------------------------------


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("retries", [0, 2])
def test_executor_map(shape, ordered, retries, tmp_path):
    with oxgang.Executor("coroutine", 20, **shape) as pool:
        assert pool._max_workers == 20
        results = pool.map(coroutines.same, range(500), ordered=ordered, retries=retries)
        assert sorted(results) == list(range(500))
        if retries:
            paths = [tmp_path / str(n) for n in range(3)]
            results = pool.map(coroutines.count_and_fail, paths, [2] * 3, retries=retries)
            assert list(results) == [3] * 3
        failing = pool.map(
            coroutines.fail, ["a", "b"], return_exceptions=True, ordered=ordered, progress=True
        )
        assert sorted(str(error) for error in failing) == ["a", "b"]
        late = pool.map(coroutines.nap, [60], task_timeout=0.05)
        with pytest.raises(TaskTimeout):
            next(late)


def test_seeds(shape):
    def numbers(options):
        with oxgang.Executor("coroutine", **options) as pool:
            return list(pool.map(coroutines.seeded, range(20), seed=7))

    assert numbers(shape) == numbers({})
    assert len(set(numbers(shape))) == 20


def test_map_chooses_by_the_function():
    assert list(oxgang.map(coroutines.pid, range(3))) == [os.getpid()] * 3
    assert list(oxgang.map(functools.partial(coroutines.nap, 0), range(3))) == [0, 1, 2]
    for model in ("process", "thread"):
        with pytest.raises(TypeError, match="is a coroutine function; use model='coroutine'"):
            oxgang.map(coroutines.pid, range(3), model=model)
    with pytest.raises(TypeError, match="plain function"):
        oxgang.map(coroutines.plain, range(3), model="coroutine")


def test_map_that_is_left_early(tmp_path):
    async def first_ends(number):
        if number:
            await coroutines.clean_up(tmp_path)
        while not list(tmp_path.glob("begun-*")):
            await asyncio.sleep(0.005)

    results = oxgang.map(first_ends, range(3), ordered=False)
    next(results)
    results.close()
    assert (tmp_path / "cleaned").exists()


def test_map_over_endless_input():
    def endless():
        n = 0
        while True:
            yield n
            n += 1

    results = oxgang.map(coroutines.same, endless(), max_workers=5)
    assert [next(results) for _ in range(1000)] == list(range(1000))
    results.close()


def test_options_of_other_models():
    for options in ({"processes": 2}, {"watch_blocking": 1}, {"loop": "asyncio"}):
        with pytest.raises(ValueError, match="is for coroutines; use model='coroutine'"):
            oxgang.Executor("thread", **options)
    for options in ({"start_method": "spawn"}, {"concurrency": 3}):
        with pytest.raises(ValueError, match=r"for (worker )?processes"):
            oxgang.Executor("coroutine", **options)
    for options in ({"processes": 0}, {"max_workers": 0}, {"watch_blocking": 0}):
        with pytest.raises(ValueError, match=r"more than 0|greater than 0"):
            oxgang.Executor("coroutine", **options)


# -- who blocks the loop --------------------------------------------------------------------------


def test_blocking_is_named_once(caplog):
    with (
        caplog.at_level(logging.WARNING, "oxgang.asyncio"),
        CoroutinePoolExecutor(watch_blocking=0.1) as pool,
    ):
        pool.submit(coroutines.nap, 0.3).result()
        assert caplog.records == []
        pool.submit(coroutines.block, 0.6).result()
        pool.submit(coroutines.same, 1).result()
    (record,) = caplog.records
    line = coroutines.block.__code__.co_firstlineno + 1
    assert record.getMessage().startswith("block has blocked its event loop for more than 0.1 s")
    assert f"in block ({coroutines.__file__}, line {line})" in record.getMessage()


def test_blocking_in_processes_is_named(caplog):
    with (
        caplog.at_level(logging.WARNING, "oxgang.asyncio"),
        oxgang.Executor("coroutine", processes=1, watch_blocking=0.1, forward_logs=True) as pool,
    ):
        pool.submit(coroutines.block, 0.5).result()
    assert [r.getMessage().partition(" ")[0] for r in caplog.records] == ["block"]
