"""Pools of coroutines: how calls begin and end, one by one and many at once."""

import asyncio
import gc
import time
from functools import partial

import coroutines
import oxgang
import pytest
from oxgang.asyncio import CoroutinePoolExecutor, _service

SHAPES = {"thread": {}, "process": {"processes": 1}}


@pytest.fixture(params=SHAPES)
def shape(request):
    return SHAPES[request.param]


@pytest.fixture
def pool(shape):
    with CoroutinePoolExecutor(**shape) as pool:
        yield pool


def test_a_coroutine_that_returns_although_it_is_to_be_cancelled(pool):
    with pytest.raises(asyncio.CancelledError):
        pool.submit(coroutines.cancel_self_and_return).result()
    assert pool.submit(coroutines.same, 1).result() == 1


def test_a_coroutine_that_cancels_all_others(shape):
    """Also those that have not had their first step are told of."""
    with CoroutinePoolExecutor(100, **shape) as pool:
        naps = pool._submit_many(coroutines.nap, [(60,)] * 20)
        (ended,) = pool._submit_many(coroutines.cancel_others, [()])
        more = pool._submit_many(coroutines.same, [(n,) for n in range(20)])
        assert ended.result() >= 20
        for future in naps:
            with pytest.raises(asyncio.CancelledError):
                future.result()
        for n, future in enumerate(more):  # they may have begun, or not
            assert future.exception() is not None or future.result() == n


def test_the_task_of_a_call_is_like_any(shape):
    with CoroutinePoolExecutor(**shape) as pool:
        name = "look_at_own_task"
        assert pool.submit(coroutines.look_at_own_task).result() == (name, name, True, True)
        for fail, told in ((False, "lent"), (True, "LookupError('lent')")):
            lent = pool.submit(coroutines.lend_task, fail)
            assert pool.submit(coroutines.await_lent_task).result() == told
            assert (lent.exception() is not None) == fail


def test_task_factories(shape):
    with CoroutinePoolExecutor(initializer=coroutines.make_tasks_of_my_own, **shape) as pool:
        futures = pool._submit_many(coroutines.name_of_task, [()] * 5)
        assert {future.result() for future in futures} == {"of a factory"}


def test_a_task_factory_that_fails(shape):
    with CoroutinePoolExecutor(initializer=coroutines.make_no_tasks, **shape) as pool:
        for fn in (coroutines.same, coroutines.same, partial(coroutines.same)):
            futures = pool._submit_many(fn, [(n,) for n in range(5)])
            assert {type(future.exception()) for future in futures} == {ZeroDivisionError}


@pytest.mark.parametrize("loop", ["asyncio", "uvloop", "rloop"])
def test_errors_are_told_once(loop, caplog):
    """To the future; asyncio has nothing to add."""
    with CoroutinePoolExecutor(loop=loop) as pool:
        for fn in (coroutines.fail, partial(coroutines.fail), coroutines.raise_it):
            future = pool.submit(fn, LookupError("mine"))
            assert isinstance(future.exception(), LookupError)
        lent = pool.submit(coroutines.lend_task, True)
        assert isinstance(lent.exception(), LookupError)
        coroutines._tasks.clear()
        del lent, future
        pool.submit(coroutines.nap, 0.01).result()
    gc.collect()
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []


def test_in_a_burst_others_have_their_turn():
    turns, done = 0, False

    async def turn():
        nonlocal turns
        while not done:
            turns += 1
            await asyncio.sleep(0)

    async def nothing(_):
        return turns

    with CoroutinePoolExecutor(10_000, loop="asyncio") as pool:
        pool.submit(turn)
        seen = list(pool.map(nothing, range(5000)))
        done = True
    assert seen[-1] - seen[0] >= 5000 // _service._AT_A_TIME - 1


def test_calls_of_all_kinds_begin_in_order(shape):
    seen = []
    with CoroutinePoolExecutor(1, **shape) as pool:
        kinds = [
            lambda n: pool.submit(coroutines.same, n),
            lambda n: pool.submit(coroutines.same, value=n),
            lambda n: pool.submit(partial(coroutines.same, n)),
            lambda n: pool.submit_with(oxgang.TaskOptions(60), coroutines.same, n),
            lambda n: pool.submit(coroutines.nap, 0, [n]),
            lambda n: pool.submit(coroutines.nap, 0, "x" * 10_000 + str(n)),
        ]
        for n in range(120):
            kinds[n % 7 % 6](n).add_done_callback(lambda future: seen.append(future.result()))
    told = [one[0] if type(one) is list else int(str(one).lstrip("x")) for one in seen]
    assert told == list(range(120))


def test_what_is_set_by_hand_counts(shape, tmp_path):
    with CoroutinePoolExecutor(**shape) as pool:
        future = pool.submit(coroutines.meet, tmp_path, "here", "go")
        while not (tmp_path / "here").exists():
            time.sleep(0.005)
        future.set_result("by hand")
        (tmp_path / "go").touch()
        assert pool.submit(coroutines.same, 1).result() == 1
        assert future.result() == "by hand"
