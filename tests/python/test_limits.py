"""Limits that stop the task, for all start methods: what they cost, and whom."""

import asyncio
import gc
import math
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from concurrent.futures import CancelledError
from concurrent.futures.process import BrokenProcessPool

import calls
import oxgang
import pytest
from oxgang import TaskOptions
from oxgang.concurrent.futures import ProcessPoolExecutor
from oxgang.errors import (
    MemoryLimitExceeded,
    TaskTerminated,
    TaskTimeout,
    WorkerCrashed,
)

METHODS = ("template", "fork", "spawn", "forkserver")
MIB = 1 << 20


def make(method, workers=2, **options):
    context = None if method == "template" else multiprocessing.get_context(method)
    return ProcessPoolExecutor(workers, context, **options)


@pytest.fixture(params=METHODS)
def method(request):
    return request.param


def assert_alive(pool):
    assert list(pool.map(calls.same, range(20))) == list(range(20))


def wait_until_running(future):
    while not future.running():
        assert not future.done()
        time.sleep(0.002)


# Time limits.


def test_python_code_gets_an_exception(method):
    with make(method, task_timeout=0.2, timeout_grace=60) as pool:
        pid = pool.submit(calls.pid).result()
        begun = time.monotonic()
        with pytest.raises(TaskTimeout, match=r"time limit of 0\.2 s") as caught:
            pool.submit(calls.spin, 60).result()
        assert time.monotonic() - begun >= 0.2
        error = caught.value
        assert isinstance(error, TimeoutError)
        assert (error.limit, error.pid) in [(0.2, one["pid"]) for one in workers(pool)]
        assert "calls.py" in error.stack and " in spin" in error.stack
        assert "in spin" in str(error.__cause__)  # the traceback, as of any exception
        assert pickle.loads(pickle.dumps(error)).stack == error.stack
        # the worker is kept
        assert pid in {one["pid"] for one in workers(pool)}
        counts = pool.statistics()
        assert (counts["stopped"], counts["crashed"], counts["lost"]) == (0, 0, 0)


def workers(pool):
    return pool.statistics()["workers"]


def test_blocking_calls_are_interrupted(method):
    with make(method, task_timeout=0.5, timeout_grace=60) as pool:
        for function, args in [(calls.nap, (60,)), (calls.wait_for_lock, ()), (calls.select, ())]:
            with pytest.raises(TaskTimeout):
                pool.submit(function, *args).result()
        assert_alive(pool)


def test_c_code_that_never_returns_is_ended(method):
    with make(method, task_timeout=0.5, timeout_grace=0.1) as pool:
        before = {one.result() for one in [pool.submit(calls.pid) for _ in range(4)]}
        begun = time.monotonic()
        with pytest.raises(TaskTimeout) as caught:
            pool.submit(calls.stuck_in_c).result()
        assert time.monotonic() - begun >= 0.6
        error = caught.value
        assert error.pid in before and error.function == "stuck_in_c" and error.limit == 0.5
        assert "Current thread" in error.stack and "in stuck_in_c" in error.stack
        assert "in stuck_in_c" in error.__notes__[0]
        assert "stuck_in_c" in str(error) and f"pid {error.pid}" in str(error)
        (death,) = error.deaths
        assert death.pid == error.pid and death.seconds >= 0.6 and death.exitcode < 0
        again = pickle.loads(pickle.dumps(error))
        assert (again.stack, again.deaths, str(again)) == (error.stack, error.deaths, str(error))
        assert_alive(pool)
        assert error.pid not in {one["pid"] for one in workers(pool)}
        counts = pool.statistics()
        assert (counts["stopped"], counts["crashed"], counts["lost"]) == (1, 0, 0)


def test_a_task_that_catches_it_and_goes_on_is_ended(method):
    with make(method, task_timeout=0.5, timeout_grace=0.2) as pool:
        with pytest.raises(TaskTimeout) as caught:
            pool.submit(calls.go_on_regardless).result()
        assert "go_on_regardless" in caught.value.stack
        assert_alive(pool)


def test_a_stopped_worker_is_ended():
    """It can neither be asked nor write down its stack."""
    with make("template", 1, task_timeout=0.5, timeout_grace=0.1) as pool:
        with pytest.raises(TaskTimeout) as caught:
            pool.submit(calls.die, signal.SIGSTOP).result()
        assert caught.value.stack == "" and caught.value.deaths[0].exitcode == -signal.SIGKILL
        assert_alive(pool)


def test_a_task_may_clean_up(method, tmp_path):
    with make(method, task_timeout=0.5, timeout_grace=60) as pool:
        future = pool.submit(calls.clean_up, tmp_path / "cleaned", None)
        with pytest.raises(TaskTimeout):
            future.result()
        assert (tmp_path / "cleaned").exists()
        # what it returns counts, and so does what else it raises
        assert pool.submit(calls.clean_up, tmp_path / "again", "half").result() == "half"
        with pytest.raises(LookupError) as caught:
            pool.submit(calls.raise_instead).result()
        assert "TaskTimeout" in str(caught.value.__cause__)
        assert_alive(pool)


def test_arguments_that_take_too_long_to_load(method):
    with make(method, task_timeout=0.5, timeout_grace=60) as pool:
        with pytest.raises(TaskTimeout):
            pool.submit(calls.same, calls.LoadsForEver()).result()
        with pytest.raises(TaskTimeout):
            pool.submit(calls.make_slow_to_dump).result()
        assert_alive(pool)


def test_the_clock_starts_when_the_task_begins():
    with make("template", 1, task_timeout=0.5) as pool:
        # together they take longer than the limit of each
        assert [one.result() for one in [pool.submit(calls.nap, 0.2) for _ in range(5)]] == [
            0.2
        ] * 5


def test_limits_of_single_calls():
    quick = TaskOptions(timeout=0.5, timeout_grace=0)
    with make("template", 2) as pool:
        long = pool.submit(calls.nap, 0.5)
        with pytest.raises(TaskTimeout):
            pool.submit_with(quick, calls.nap, 60).result()
        assert pool.submit_with(quick, calls.keywords, 1, a=2).result() == ((1,), {"a": 2})
        assert long.result() == 0.5
    with make("template", 1, task_timeout=0.5, timeout_grace=0.1) as pool:
        no_limit = TaskOptions(timeout=math.inf)
        assert pool.submit_with(no_limit, calls.nap, 0.7).result() == 0.7
        with pytest.raises(TaskTimeout):
            pool.submit_with(TaskOptions(retries=0), calls.nap, 60).result()


def test_an_earlier_limit_than_the_one_that_is_waited_for():
    with make("template", 2) as pool:
        assert [one.result() for one in [pool.submit(calls.nap, 0.1) for _ in range(4)]] == [
            0.1
        ] * 4
        long = pool.submit_with(TaskOptions(timeout=3600), calls.nap, 3600)
        wait_until_running(long)
        time.sleep(0.2)  # the pool sleeps for an hour, as far as it knows
        with pytest.raises(TaskTimeout):
            pool.submit_with(TaskOptions(timeout=0.1), calls.nap, 3600).result()
        assert long.terminate()


def test_a_limit_hits_its_task_and_no_other():
    """Tasks that end at about their limit: each is done, or told so, and none is told of
    another's limit."""
    with make("template", 2) as pool:
        options = TaskOptions(timeout=0.02, timeout_grace=60)
        futures = []
        for index in range(300):
            futures.append(pool.submit_with(options, calls.spin, 0.0198 + (index % 5) * 0.0001))
            futures.append(pool.submit(calls.spin, 0.0005))  # no limit: never interrupted
        outcomes = [future.exception() for future in futures]
        assert all(error is None for error in outcomes[1::2])
        assert {type(error) for error in outcomes} == {type(None), TaskTimeout}
        counts = pool.statistics()
        assert (counts["stopped"], counts["crashed"]) == (0, 0)


def test_what_waits_behind_a_stuck_task_runs_elsewhere():
    with make("template", 2) as pool:
        list(pool.map(calls.same, range(2000)))  # short tasks are sent far ahead
        options = TaskOptions(timeout=0.6, timeout_grace=0.3)
        stuck = pool.submit_with(options, calls.stuck_in_c)
        rest = [pool.submit_with(options, calls.same, index) for index in range(500)]
        assert [one.result() for one in rest] == list(range(500))
        with pytest.raises(TaskTimeout):
            stuck.result()
        assert pool.statistics()["lost"] == 0


def test_what_waits_behind_a_stuck_task_of_the_only_worker(method):
    with make(method, 1, task_timeout=0.5, timeout_grace=0.1) as pool:
        futures = [pool.submit(calls.same, 1)]
        for _ in range(3):
            futures += [pool.submit(calls.stuck_in_c)] + [pool.submit(calls.same, 1)] * 5
        for future in futures:
            error = future.exception()
            assert error is None or type(error) is TaskTimeout
        assert pool.statistics()["stopped"] == 3


def test_nobody_need_wait_for_a_limit(tmp_path):
    """The pool sees to it by itself, and an idle pool sleeps."""
    with make("template", 1, task_timeout=0.5, timeout_grace=60) as pool:
        pool.submit(calls.clean_up, tmp_path / "cleaned", None)
        calls.wait_for_file(tmp_path / "cleaned")
        pool.submit(calls.same, 1).result()
        driver = pool._driver.native_id
        time.sleep(0.8)  # it may look once more, when the last call's limit would have come
        before = switches(driver)
        time.sleep(0.5)
        assert switches(driver) == before


def switches(thread):
    with open(f"/proc/self/task/{thread}/status") as status:
        return [line for line in status if "ctxt_switches" in line]


@pytest.mark.parametrize("inner", METHODS)
def test_pools_in_workers_have_limits_of_their_own(inner):
    with make("template", 1, task_timeout=60) as pool:
        error = pool.submit(calls.nested_limit, inner).exception()
    assert type(error) is TaskTimeout and "in stuck_in_c" in error.stack


def test_a_pool_that_closes_keeps_its_limits():
    pool = make("template", 1, task_timeout=0.5, timeout_grace=0.1)
    futures = [pool.submit(calls.stuck_in_c), pool.submit(calls.nap, 60), pool.submit(calls.pid)]
    pool.shutdown()
    assert [type(one.exception(timeout=0)) for one in futures] == [
        TaskTimeout,
        TaskTimeout,
        type(None),
    ]


def test_map_has_the_pools_limit():
    with make("template", 2, task_timeout=0.5, timeout_grace=60) as pool:
        results = pool.map(calls.nap, [0.01, 0.02, 60])
        assert [next(results), next(results)] == [0.01, 0.02]
        with pytest.raises(TaskTimeout):
            next(results)


def test_under_asyncio():
    async def main():
        with make("template", 1, task_timeout=0.5, timeout_grace=60) as pool:
            loop = asyncio.get_running_loop()
            with pytest.raises(TaskTimeout):
                await loop.run_in_executor(pool, calls.nap, 60)
            return await loop.run_in_executor(pool, calls.same, 7)

    assert asyncio.run(main()) == 7


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("retries", [0, 1])
def test_of_oxgang_map(model, ordered, retries):
    options = {"model": model, "ordered": ordered, "retries": retries, "task_timeout": 0.2}
    naps = [0.01, 60, 0.02]
    results = list(oxgang.map(calls.spin, naps, return_exceptions=True, **options))
    results.sort(key=lambda result: (type(result) is not TaskTimeout, result))
    assert type(results[0]) is TaskTimeout and results[1:] == [0.01, 0.02]
    with oxgang.Executor(model, 2) as pool, pytest.raises(TaskTimeout):
        list(pool.map(calls.spin, naps, task_timeout=0.2, retries=retries, ordered=ordered))


def test_of_an_executor(model):
    with oxgang.Executor(model, 1, task_timeout=0.2, timeout_grace=60) as pool:
        with pytest.raises(TaskTimeout):
            pool.submit(calls.spin, 60).result()
        no_limit = TaskOptions(timeout=math.inf)
        assert pool.submit_with(no_limit, calls.nap, 0.3).result() == 0.3
        with pytest.raises(TaskTimeout):
            list(pool.map(calls.spin, [60]))


def test_an_executor_that_knows_no_limits():
    class Plain(oxgang.Executor):
        submit_with = None

        def submit(self, fn, /, *args, **kwargs):
            return super().submit(fn, *args, **kwargs)

    with Plain("thread", 1) as pool, pytest.raises(TypeError, match="has no limits"):
        list(pool.map(calls.same, [1], task_timeout=1))


def test_memory_limits_of_maps():
    with pytest.raises(MemoryLimitExceeded):
        list(oxgang.map(calls.call, [calls.fill], memory_limit="150MiB"))
    with oxgang.Executor("process", 1, memory_limit="150MiB") as pool:
        with pytest.raises(MemoryLimitExceeded):
            pool.submit(calls.fill).result()
        assert next(pool.map(calls.same, [3], memory_limit=math.inf)) == 3
    with pytest.raises(ValueError, match="for processes"):
        oxgang.Executor("thread", 1, memory_limit="150MiB")
    with pytest.raises(ValueError, match="for processes"):
        oxgang.map(calls.same, [1], model="thread", memory_limit="150MiB")


# Memory limits.


@pytest.mark.parametrize("limit", [150 * MIB, "150MiB"])
def test_a_memory_limit_ends_the_task(method, limit):
    with make(method, memory_limit=limit) as pool:
        assert pool.submit(calls.make_bytes, 10 * MIB).result() == b"x" * (10 * MIB)
        with pytest.raises(MemoryLimitExceeded) as caught:
            pool.submit(calls.fill).result()
        error = caught.value
        assert isinstance(error, MemoryError)
        assert error.limit == 150 * MIB < error.used <= error.peak
        assert error.function == "fill" and "150 MiB" in str(error)
        assert "in fill" in error.stack
        assert error.deaths[0].pid == error.pid
        assert pickle.loads(pickle.dumps(error)).peak == error.peak
        assert_alive(pool)


def test_memory_that_is_filled_while_c_code_runs():
    with make("template", 1) as pool:
        options = TaskOptions(memory_limit="200MiB")
        with pytest.raises(MemoryLimitExceeded):
            pool.submit_with(options, calls.fill_in_c).result()
        assert_alive(pool)


def test_what_a_fork_has_from_its_parent_does_not_count():
    ballast = bytearray(os.urandom(1 << 20)) * 256  # pages of ours, which a fork shares
    with open("/proc/self/statm") as statm:
        ours = int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    # the fork has all of it, and shares all of it with one: half of it counts
    with make("fork", 1, memory_limit=ours * 3 // 4) as pool:
        assert pool.submit(calls.spin, 0.5).result() == 0.5
    del ballast
    gc.collect()


# Terminate.


def test_terminate_ends_the_running_task(method):
    with make(method) as pool:
        bystander = pool.submit(calls.nap, 0.5)
        future = pool.submit(calls.stuck_in_c)
        wait_until_running(future)
        assert future.cancel() is False  # as ever
        assert future.terminate() is True
        assert future.done() and not future.cancelled() and not future.running()
        with pytest.raises(TaskTerminated, match="stuck_in_c was running") as caught:
            future.result(timeout=0)
        assert isinstance(caught.value, WorkerCrashed)
        assert isinstance(caught.value, BrokenProcessPool)
        assert not isinstance(caught.value, CancelledError)
        assert future.terminate() is False
        assert bystander.result() == 0.5
        assert_alive(pool)
        counts = pool.statistics()
        assert (counts["stopped"], counts["crashed"], counts["lost"]) == (1, 0, 0)


def test_terminate_takes_back_what_has_not_begun():
    with make("template", 1) as pool:
        first = pool.submit(calls.nap, 0.3)
        waiting = pool.submit(calls.nap, 60)
        assert waiting.terminate() is True
        assert waiting.cancelled()
        assert first.result() == 0.3
        assert first.terminate() is False
        with pytest.raises(CancelledError):
            waiting.result()


def test_terminate_and_results_race():
    with make("template", 2) as pool:
        for round_ in range(150):
            future = pool.submit(calls.same, round_)
            behind = [pool.submit(calls.same, index) for index in range(3)]
            time.sleep((round_ % 30) * 20e-6)
            ended = future.terminate()
            assert future.done()
            if future.cancelled() or future.exception() is not None:
                assert ended
                assert future.cancelled() or type(future.exception()) is TaskTerminated
            else:
                assert not ended and future.result() == round_
            assert [one.result() for one in behind] == [0, 1, 2]


def test_terminate_tells_everybody():
    with make("template", 1) as pool:
        told = threading.Event()
        future = pool.submit(calls.nap, 60)
        future.add_done_callback(lambda done: told.set())
        waiter = threading.Thread(target=future.exception)
        waiter.start()
        wait_until_running(future)
        assert future.terminate()
        assert told.wait(60)
        waiter.join()


# What is refused.


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"task_timeout": 0}, ValueError, "more than 0 seconds"),
        ({"task_timeout": -1}, ValueError, "more than 0 seconds"),
        ({"task_timeout": math.nan}, ValueError, "more than 0 seconds"),
        ({"task_timeout": "1"}, TypeError, "number of seconds, not str"),
        ({"timeout_grace": -1}, ValueError, "0 or more"),
        ({"memory_limit": 0}, ValueError, "more than 0 bytes"),
        ({"memory_limit": "2 gibbons"}, ValueError, '"512MiB"'),
        ({"memory_limit": 1.5}, TypeError, "number of bytes"),
        ({"retries": -1}, ValueError, "0 or more"),
        ({"retries": 1.5}, TypeError, "whole number"),
        ({"retry_on": 7}, TypeError, "exception class"),
    ],
)
def test_bad_options(options, error, said):
    with pytest.raises(error, match=said):
        ProcessPoolExecutor(1, **options)
    options["timeout"] = options.pop("task_timeout", None)
    with pytest.raises(error, match=said):
        TaskOptions(**options)


def test_task_options():
    options = TaskOptions(3, memory_limit="1.5GB", retry_on=OSError)
    assert (options.timeout, options.memory_limit) == (3.0, 1_500_000_000)
    assert options.retry_on == (OSError,) and options.retries is None
    assert options == TaskOptions(3, memory_limit=1_500_000_000, retry_on=(OSError,))
    with pytest.raises(AttributeError):
        options.timeout = 4
    with ProcessPoolExecutor(1) as pool, pytest.raises(TypeError, match=r"TaskOptions.*got dict"):
        pool.submit_with({"timeout": 3}, calls.pid)
    assert oxgang.TaskOptions is TaskOptions


def test_far_limits_are_no_limits():
    with make("template", 1, task_timeout=sys.float_info.max, memory_limit=1 << 62) as pool:
        assert_alive(pool)
