"""Calls that are run again: what is, how often, and what is told in the end."""

import multiprocessing
import os
import signal
import time

import calls
import oxgang
import pytest
from oxgang import TaskOptions
from oxgang.concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from oxgang.errors import (
    MemoryLimitExceeded,
    TaskTerminated,
    TaskTimeout,
    WorkerCrashed,
)
from tasks import crash_once, die_at_go, fail_at_go, fail_times

METHODS = ("template", "fork", "spawn", "forkserver")


@pytest.fixture(params=METHODS)
def method(request):
    return request.param


def make(method, workers=2, **options):
    context = None if method == "template" else multiprocessing.get_context(method)
    return ProcessPoolExecutor(workers, context, **options)


def test_a_lost_task_runs_again(method, folder):
    with make(method, retries=1) as pool:
        futures = [pool.submit(crash_once, folder, 3, number) for number in range(10)]
        assert [one.result() for one in futures] == list(range(10))
        assert folder.calls(3) == 2
        counts = pool.statistics()
        assert (counts["lost"], counts["retried"], counts["crashed"]) == (1, 1, 1)


def test_a_poison_task_fails_for_good_with_its_history(method, folder):
    with make(method) as pool:
        bystanders = [pool.submit(calls.same, number) for number in range(50)]
        options = TaskOptions(retries=2)
        poison = pool.submit_with(options, calls.count_and_die, folder.path / "runs", 15)
        with pytest.raises(WorkerCrashed, match="It has ended 3 workers") as caught:
            poison.result()
        error = caught.value
        assert (folder.path / "runs").stat().st_size == 3
        assert [death.exitcode for death in error.deaths] == [-signal.SIGTERM] * 3
        assert len({death.pid for death in error.deaths}) == 3
        assert error.pid == error.deaths[-1].pid
        for death in error.deaths:
            assert death.seconds >= 0 and "SIGTERM" in death.reason
            assert f"pid {death.pid} was killed by signal 15" in str(error)
        assert [one.result() for one in bystanders] == list(range(50))
        assert pool.statistics()["lost"] == 3


def test_without_retries_a_lost_task_is_lost(folder):
    with make("template") as pool:
        with pytest.raises(WorkerCrashed) as caught:
            pool.submit(crash_once, folder, 3, 3).result()
        assert len(caught.value.deaths) == 1 and "has ended" not in str(caught.value)


def test_listed_exceptions_run_again(method, folder):
    with make(method, retries=3, retry_on=(ConnectionError, LookupError)) as pool:
        assert pool.submit(fail_times, folder, 3, 7).result() == 7
        with pytest.raises(ConnectionError, match="8 failed 4 times"):
            pool.submit(fail_times, folder, 9, 8).result()
        with pytest.raises(LookupError):
            pool.submit(calls.fail, "x").result()
        with pytest.raises(TypeError):  # not listed
            pool.submit(calls.count_in).result()
        counts = pool.statistics()
        assert (counts["retried"], counts["answered"]) == (3 + 3 + 3, 4)


def test_a_subclass_of_a_listed_exception_is_listed(folder):
    with make("template", retries=1, retry_on=OSError) as pool:
        assert pool.submit(fail_times, folder, 1, 7).result() == 7


def test_without_a_list_exceptions_stand(folder):
    with make("template", retries=3) as pool:
        with pytest.raises(ConnectionError):
            pool.submit(fail_times, folder, 1, 7).result()
        assert folder.calls(7) == 1


class Mine(Exception):
    pass


def raise_mine():
    raise Mine


@pytest.mark.parametrize("listed", [Mine, Exception, (KeyError, Mine), BaseException])
def test_exceptions_of_any_module(method, listed):
    with make(method, retries=2, retry_on=listed) as pool:
        with pytest.raises(Mine):
            pool.submit(raise_mine).result()
        assert pool.statistics()["retried"] == 2


def test_limits_run_again_if_listed(folder):
    options = {"timeout": 0.5, "timeout_grace": 0.1}
    with make("template", 2) as pool:
        for listed, runs in [(None, 1), (TaskTimeout, 3), (TimeoutError, 3), (KeyError, 1)]:
            path = folder.path / f"runs-{listed}"
            asked = TaskOptions(**options, retries=2, retry_on=listed)
            with pytest.raises(TaskTimeout) as caught:
                pool.submit_with(asked, calls.count_and_get_stuck, path).result()
            assert path.stat().st_size == runs == len(caught.value.deaths)
            path.unlink()
            with pytest.raises(TaskTimeout):  # the soft limit: no death
                pool.submit_with(asked, calls.count_and_nap, path).result()
            assert path.stat().st_size == runs
        asked = TaskOptions(memory_limit="100MiB", retries=1, retry_on=MemoryLimitExceeded)
        with pytest.raises(MemoryLimitExceeded) as caught:
            pool.submit_with(asked, calls.fill).result()
        assert len(caught.value.deaths) == 2


def test_a_terminated_task_is_not_run_again(folder):
    with make("template", 1, retries=5, retry_on=BaseException) as pool:
        future = pool.submit(calls.count_and_nap, folder.path / "runs")
        calls.wait_for_mark(folder.path / "runs")
        assert future.terminate()
        with pytest.raises(TaskTerminated):
            future.result()
        assert pool.submit(calls.same, 1).result() == 1
        assert (folder.path / "runs").stat().st_size == 1


def test_what_waits_for_its_next_try_can_be_cancelled():
    with make("template", 1, retries=10**6) as pool:
        future = pool.submit(calls.die, signal.SIGKILL)
        while not future.cancel():
            time.sleep(0.001)
        assert future.cancelled()
        assert pool.submit(calls.same, 1).result() == 1


def test_a_pause_is_no_idle_worker(folder):
    """While one waits for its next try the others go on, on the same worker."""
    with make("template", 1, retries=2, retry_on=ConnectionError) as pool:
        failing = pool.submit(fail_times, folder, 2, 7)
        assert [pool.submit(calls.same, i).result() for i in range(100)] == list(range(100))
        assert failing.result() == 7


def test_a_pool_that_closes_still_runs_it_again(folder):
    pool = make("template", 1, retries=3, retry_on=ConnectionError)
    future = pool.submit(fail_times, folder, 3, 7)
    pool.shutdown()
    assert future.result(timeout=0) == 7


def test_shutdown_can_cancel_what_waits(folder):
    pool = make("template", 1, retries=10**6)
    future = pool.submit(calls.die, signal.SIGKILL)
    while pool.statistics()["retried"] < 3:
        time.sleep(0.001)
    pool.shutdown(cancel_futures=True)
    assert future.cancelled() or type(future.exception()) is WorkerCrashed


@pytest.mark.parametrize("make_pool", [ProcessPoolExecutor, ThreadPoolExecutor])
def test_what_fails_after_a_shutdown_that_cancels_is_not_tried_again(make_pool, folder):
    pool = make_pool(1, retries=10**6, retry_on=ConnectionError)
    future = pool.submit(fail_at_go, folder, 7)
    folder.wait_for("begun-7")
    pool.shutdown(wait=False, cancel_futures=True)
    folder.mark("go")
    pool.shutdown()
    assert type(future.exception(timeout=0)) is ConnectionError
    assert folder.calls(7) == 1


def test_a_task_lost_after_a_shutdown_that_cancels_is_not_tried_again(folder):
    pool = make("template", 1, retries=10**6)
    future = pool.submit(die_at_go, folder, 7)
    folder.wait_for("begun-7")
    pool.shutdown(wait=False, cancel_futures=True)
    folder.mark("go")
    pool.shutdown()
    assert type(future.exception(timeout=0)) is WorkerCrashed
    assert folder.calls(7) == 1


def test_a_killed_pool_forgets_what_waits():
    pool = make("template", 1, retries=10**6)
    future = pool.submit(calls.die, signal.SIGKILL)
    while pool.statistics()["retried"] < 3:
        time.sleep(0.001)
    pool.kill_workers()
    assert future.exception(timeout=60) is not None


def test_many_at_once(folder):
    """Exact accounts: every one of them runs as often as it must, and ends right."""
    with make("template", 3, retries=3, retry_on=ConnectionError) as pool:
        futures = [pool.submit(fail_times, folder, number % 5, number) for number in range(300)]
        for number, future in enumerate(futures):
            if number % 5 == 4:
                assert type(future.exception()) is ConnectionError
            else:
                assert future.result() == number
            assert folder.calls(number) == min(number % 5 + 1, 4)


def test_attempts_have_their_own_limit(folder):
    """A try's time begins anew, and a late signal of one try does not hit the next."""
    with make("template", 1) as pool:
        asked = TaskOptions(timeout=1.0, timeout_grace=60, retries=3, retry_on=TaskTimeout)
        assert pool.submit_with(asked, calls.slow_at_first, folder, 2).result() == 3
        assert pool.statistics()["started"] == 1


@pytest.mark.parametrize("ordered", [True, False])
def test_map_tells_of_every_worker_that_an_item_has_cost(ordered):
    with pytest.raises(WorkerCrashed) as caught:
        list(oxgang.map(calls.die, [signal.SIGTERM], retries=2, ordered=ordered))
    deaths = caught.value.deaths
    assert len({death.pid for death in deaths}) == 3
    assert "It has ended 3 workers: pid" in caught.value.__notes__[0]


def test_pids_of_a_history_are_gone(folder):
    with make("template", 1, retries=1) as pool:
        error = pool.submit(calls.die, signal.SIGKILL).exception()
        for death in error.deaths:
            with pytest.raises(ProcessLookupError):
                os.kill(death.pid, 0)
