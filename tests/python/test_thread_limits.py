"""Limits of calls in threads: what can be done, and that the rest is said."""

import gc
import subprocess
import sys
import threading
import time
import weakref

import calls
import pytest
from oxgang import TaskOptions, _thread_limits
from oxgang.concurrent.futures import ThreadPoolExecutor
from oxgang.errors import TaskTimeout
from tasks import fail_times


def test_python_code_gets_an_exception():
    with ThreadPoolExecutor(2, task_timeout=0.1, timeout_grace=60) as pool:
        begun = time.monotonic()
        with pytest.raises(TaskTimeout, match=r"time limit of 0\.1 s") as caught:
            pool.submit(calls.spin, 60).result()
        assert time.monotonic() - begun >= 0.1
        error = caught.value
        assert (error.limit, error.function) == (0.1, "spin")
        assert "in spin" in error.stack
        assert pool.submit(calls.same, 7).result() == 7


def test_a_task_may_clean_up(tmp_path):
    def clean_up(path):
        try:
            calls.spin(60)
        except TimeoutError:
            path.touch()
            return "half"

    with ThreadPoolExecutor(1, task_timeout=0.1, timeout_grace=60) as pool:
        assert pool.submit(clean_up, tmp_path / "cleaned").result() == "half"
        assert (tmp_path / "cleaned").exists()


def test_a_call_that_blocks_fails_at_its_limit_and_goes_on():
    release = threading.Event()
    ended = threading.Event()

    def block():
        release.wait()
        ended.set()

    with ThreadPoolExecutor(1, task_timeout=0.1, timeout_grace=0.1) as pool:
        blocked = pool.submit(block)
        with pytest.raises(TaskTimeout, match="cannot be ended: this one goes on") as caught:
            blocked.result()
        assert "in block" in caught.value.stack and "process pool" in str(caught.value)
        assert not ended.is_set()
        # another thread has taken its place
        assert pool.submit(calls.same, 7).result() == 7
        release.set()
    # what it was told to raise, it raises when it is back in Python
    assert not ended.is_set()
    with pytest.raises(TaskTimeout):
        blocked.result()


def test_a_thread_that_ends_while_its_future_is_told_is_abandoned_no_more():
    release, ended = threading.Event(), threading.Event()

    def told(_):
        release.set()
        for thread in threads:
            thread.join()
        ended.set()

    with ThreadPoolExecutor(1, task_timeout=0.1, timeout_grace=0.1) as pool:
        blocked = pool.submit(release.wait)
        threads = list(pool._threads)
        blocked.add_done_callback(told)
        with pytest.raises(TaskTimeout):
            blocked.result()
        ended.wait()
        assert pool.statistics()["abandoned"] == 0
        assert pool.submit(calls.same, 7).result() == 7


@pytest.mark.parametrize("trouble", ["stack", "callback"])
def test_what_goes_wrong_for_one_call_harms_no_other(folder, monkeypatch, trouble):
    """Its future fails in any case, and limits and further tries of others go on."""
    reports, release = [], threading.Event()
    monkeypatch.setattr(sys, "unraisablehook", lambda report: reports.append(report.exc_type))

    def no_stack(frame):
        raise LookupError("no stack today")

    def leave(_):
        raise SystemExit(3)

    limited = TaskOptions(timeout=0.05, timeout_grace=0.05)
    again = TaskOptions(retries=3, retry_on=ConnectionError)
    with ThreadPoolExecutor(2) as pool:
        blocked = pool.submit_with(limited, release.wait)
        if trouble == "stack":
            monkeypatch.setattr(_thread_limits, "stack_of", no_stack)
        else:
            blocked.add_done_callback(leave)
        with pytest.raises(LookupError if trouble == "stack" else TaskTimeout):
            blocked.result(timeout=30)
        assert pool.submit_with(again, fail_times, folder, 3, 7).result(timeout=30) == 7
        with pytest.raises((TaskTimeout, LookupError)):
            pool.submit_with(limited, calls.nap, 0.3).result(timeout=30)
        release.set()
    assert reports == ([] if trouble == "stack" else [SystemExit])


def test_a_call_that_was_told_to_raise_fails_even_if_there_is_no_stack_to_tell(monkeypatch):
    reports = []
    monkeypatch.setattr(sys, "unraisablehook", lambda report: reports.append(report.exc_type))

    def no_stack(frame):
        raise LookupError("no stack today")

    with ThreadPoolExecutor(1, task_timeout=0.1, timeout_grace=60) as pool:
        monkeypatch.setattr(_thread_limits, "stack_of", no_stack)
        with pytest.raises(TaskTimeout):
            pool.submit(calls.spin, 60).result(timeout=30)
        assert pool.submit(calls.same, 7).result(timeout=30) == 7
    assert reports == [LookupError]


def test_the_limit_of_one_call_never_hits_another():
    """Calls that end at about their limit, and calls without one, on the same threads."""
    options = TaskOptions(timeout=0.005, timeout_grace=60)
    with ThreadPoolExecutor(2) as pool:
        futures = []
        for index in range(400):
            futures.append(pool.submit_with(options, calls.spin, 0.0045 + (index % 10) * 0.0001))
            futures.append(pool.submit(calls.spin, 0.0005))
        errors = [future.exception() for future in futures]
    assert all(error is None for error in errors[1::2])
    assert {type(error) for error in errors} == {type(None), TaskTimeout}


def test_threads_survive_late_exceptions():
    """The very end of a call, again and again: an exception that comes late must not end a
    thread, nor come up in the next call."""

    def end_at(moment):
        while time.monotonic() < moment:
            pass

    options = TaskOptions(timeout=0.002, timeout_grace=60)
    with ThreadPoolExecutor(1) as pool:
        for index in range(300):
            limited = pool.submit_with(options, end_at, time.monotonic() + 0.002 + index * 1e-6)
            assert pool.submit(calls.same, index).result() == index
            assert type(limited.exception()) in (type(None), TaskTimeout)
        assert pool.statistics()["threads"] == 1


def test_cancel_and_terminate():
    release = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(release.wait)
        waiting = pool.submit(calls.same, 1)
        while not running.running():
            time.sleep(0.001)
        assert waiting.terminate() is True
        assert waiting.cancelled()
        with pytest.raises(RuntimeError, match="thread, which cannot be ended"):
            running.terminate()
        release.set()
        assert running.result() is True
        assert running.terminate() is False


def test_memory_limits_are_refused():
    with pytest.raises(ValueError, match="memory_limit is for processes"):
        ThreadPoolExecutor(1, memory_limit="1GiB")
    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(ValueError, match="memory_limit is for processes"):
            pool.submit_with(TaskOptions(memory_limit=1 << 30), calls.same, 1)
        with pytest.raises(TypeError, match="TaskOptions"):
            pool.submit_with(3, calls.same, 1)


def test_listed_exceptions_run_again(folder):
    with ThreadPoolExecutor(2, retries=2, retry_on=ConnectionError) as pool:
        futures = [pool.submit(fail_times, folder, number % 4, number) for number in range(40)]
        for number, future in enumerate(futures):
            if number % 4 == 3:
                with pytest.raises(ConnectionError, match="failed 3 times"):
                    future.result()
            else:
                assert future.result() == number
            assert folder.calls(number) == min(number % 4 + 1, 3)
        with pytest.raises(LookupError):
            pool.submit(calls.fail, "not listed").result()


def test_timeouts_run_again_if_listed(folder):
    options = TaskOptions(timeout=0.1, timeout_grace=60, retries=2, retry_on=TaskTimeout)

    def slow_at_first():
        if folder.count_call("slow") <= 2:
            calls.spin(60)
        return "at last"

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit_with(options, slow_at_first).result() == "at last"


def test_a_pool_that_closes_still_runs_it_again(folder):
    pool = ThreadPoolExecutor(2, retries=3, retry_on=ConnectionError)
    future = pool.submit(fail_times, folder, 3, 7)
    pool.shutdown()
    assert future.result(timeout=0) == 7


def test_shutdown_that_cancels_leaves_the_last_failure(folder):
    pool = ThreadPoolExecutor(1, retries=10**6, retry_on=ConnectionError)
    future = pool.submit(fail_times, folder, 10**9, 7)
    while folder.calls(7) < 3:
        time.sleep(0.001)
    pool.shutdown(cancel_futures=True)
    assert type(future.exception(timeout=60)) is ConnectionError


def test_an_executor_that_becomes_garbage_ends_with_its_threads():
    before = set(threading.enumerate())
    pool = ThreadPoolExecutor(2, task_timeout=60)
    assert pool.submit(calls.same, 1).result() == 1
    gone = weakref.ref(pool)
    del pool
    gc.collect()
    assert gone() is None
    while set(threading.enumerate()) - before:
        time.sleep(0.001)


def test_results_are_not_kept_for_the_limit():
    class Result:
        pass

    with ThreadPoolExecutor(1, task_timeout=60) as pool:
        future = pool.submit(Result)
        seen = weakref.ref(future.result())
        del future
        pool.submit(calls.same, 1).result()
        gc.collect()
        assert seen() is None


def test_no_thread_of_a_pool_without_limits():
    with ThreadPoolExecutor(1) as pool:
        pool.submit(calls.same, 1).result()
        assert not [one for one in threading.enumerate() if one.name.endswith("_timer")]


@pytest.mark.parametrize("broken", [False, True])
def test_a_program_ends(broken):
    """With a pool that was never shut down, also if its threads could not get ready."""
    program = f"""
from oxgang.concurrent.futures import ThreadPoolExecutor
pool = ThreadPoolExecutor(1, initializer=(lambda: 1 / 0) if {broken} else None, task_timeout=60)
print(type(pool.submit(len, "abc").exception()).__name__)
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    expected = "BrokenThreadPool" if broken else "NoneType"
    assert (done.returncode, done.stdout.strip()) == (0, expected)
