"""How an iteration ends: closed, dropped, over its time, by Ctrl-C, by a worker's death.

Every test also ends with the check that no process is left (tests/conftest.py).
"""

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
from functools import partial
from itertools import count, islice

import oxgang
import oxgang.concurrent.futures as ours
import pytest
from oxgang._map import Call, outcomes
from oxgang.errors import BrokenProcessPool, WorkerCrashed
from tasks import (
    counted_but_first_waits,
    crash_once,
    interrupt_owner,
    square,
    wait_for_go,
    wait_until,
)

standard_pool = ours.ProcessPoolExecutor.__module__.startswith("concurrent.")
needs_engine = pytest.mark.skipif(
    standard_pool, reason="the standard pool does not survive the death of a worker"
)


@pytest.fixture
def no_thread_left():
    before = set(threading.enumerate())
    yield
    left = [thread for thread in threading.enumerate() if thread not in before]
    assert left == []


# Closed and dropped.


def test_closing_early_leaves_nothing(model, engine, stoppable, no_thread_left):
    results = oxgang.map(square, count(), model=model, max_workers=2, **engine)
    next(results)
    results.close()
    assert list(results) == []


def test_closing_before_the_first_result_leaves_nothing(model, engine, stoppable, no_thread_left):
    oxgang.map(square, count(), model=model, max_workers=2, **engine).close()


def test_leaving_the_loop_leaves_nothing(model, engine, stoppable, no_thread_left):
    for result in oxgang.map(square, count(), model=model, max_workers=2, **engine):
        if result > 100:
            break


def test_reading_to_the_end_leaves_nothing(model, engine, no_thread_left):
    assert sum(1 for _ in oxgang.map(square, range(50), model=model, **engine)) == 50


def test_closing_cancels_what_has_not_begun(model, engine, folder):
    """On a pool that stays open. A hundred are submitted, one runs."""
    with oxgang.Executor(model, 1) as pool:
        task = partial(counted_but_first_waits, folder)
        results = pool.map(task, range(100), chunksize=100, **engine)
        wait_until(lambda: folder.ran() == 1, "the first one runs")
        results.close()
        folder.mark("go")
    assert folder.ran() < 20  # what the worker had been handed already may still run


def test_closing_outcomes_cancels_what_has_not_begun(model, engine, folder):
    with oxgang.Executor(model, 1) as pool:
        task = partial(counted_but_first_waits, folder)
        calls = [Call((number,), {}) for number in range(100)]
        results = outcomes(pool, task, calls, chunksize=100, **engine)
        wait_until(lambda: folder.ran() == 1, "the first one runs")
        results.close()
        folder.mark("go")
    assert folder.ran() < 20


def test_closing_ends_workers_that_run(folder, stoppable, no_thread_left):
    """The tasks would wait for a mark that never comes; in a process they are ended."""
    results = oxgang.map(partial(wait_for_go, folder), range(4), model="process", max_workers=2)
    folder.wait_for("begun-0")
    results.close()
    assert not folder.marked("go")


def test_dropped_in_a_worker_thread_it_does_not_wait_for_itself(no_thread_left, monkeypatch):
    """The iterator is closed by a garbage collection in a thread of its own pool."""
    complaints = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)

    class Holder:
        pass

    def collect_at_three(number):
        if number == 3:
            dropped.wait()
            gc.collect()
            collected.set()
        return number

    dropped, collected = threading.Event(), threading.Event()
    threads = set(threading.enumerate())
    gc.disable()
    try:
        holder = Holder()
        holder.cycle = holder
        holder.results = oxgang.map(collect_at_three, range(6), model="thread", max_workers=1)
        del holder
        dropped.set()
        collected.wait()
    finally:
        gc.enable()
    wait_until(lambda: set(threading.enumerate()) <= threads, "the pool's thread ended by itself")
    assert complaints == []


# Over its time.


def test_timeout_does_not_wait_for_processes_that_run(folder, stoppable, no_thread_left):
    task = partial(wait_for_go, folder)
    with pytest.raises(TimeoutError, match="not every item is done"):
        list(oxgang.map(task, range(3), model="process", max_workers=2, timeout=0.3))
    assert not folder.marked("go")


def test_timeout_does_not_wait_for_threads_that_run(folder):
    task = partial(wait_for_go, folder)
    before = set(threading.enumerate())
    with pytest.raises(TimeoutError, match="not every item is done"):
        list(oxgang.map(task, range(3), model="thread", max_workers=2, timeout=0.3))
    assert not folder.marked("go")
    folder.mark("go")
    wait_until(lambda: set(threading.enumerate()) <= before, "the threads ended")


def test_timeout_in_every_engine(engine, folder):
    with oxgang.Executor("thread", 1) as pool:
        with pytest.raises(TimeoutError, match="not every item is done"):
            list(pool.map(partial(wait_for_go, folder), range(3), timeout=0.1, **engine))
        folder.mark("go")


# Ctrl-C.


def test_ctrl_c_while_waiting_for_a_result(model, engine, folder, stoppable):
    before = set(threading.enumerate())
    task = partial(interrupt_owner, folder, os.getpid())
    with pytest.raises(KeyboardInterrupt):
        list(oxgang.map(task, count(), model=model, max_workers=2, **engine))
    assert not folder.marked("go")  # the tasks that ran were not waited for
    folder.mark("go")
    wait_until(lambda: set(threading.enumerate()) <= before, "the threads ended")


def test_ctrl_c_in_the_loop_body(folder, stoppable, no_thread_left):
    def consume():
        task = partial(wait_from_two, folder)
        for _ in oxgang.map(task, count(), model="process", max_workers=2):
            folder.wait_for("begun-2")
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        consume()
    assert not folder.marked("go")


def wait_from_two(folder, number):
    if number >= 2:
        folder.mark(f"begun-{number}")
        folder.wait_for("go")
    return number


def test_ctrl_c_in_a_with_block(folder, stoppable, no_thread_left):
    def consume():
        with oxgang.Executor("process", 2) as pool:
            pool.submit(wait_for_go, folder, 1)
            folder.wait_for("begun-1")
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        consume()
    assert not folder.marked("go")


def test_ctrl_c_while_a_with_block_ends(folder, stoppable):
    before = set(threading.enumerate())

    def consume():
        with oxgang.Executor("process", 1) as pool:
            pool.submit(interrupt_owner, folder, os.getpid(), 0)

    with pytest.raises(KeyboardInterrupt):
        consume()
    assert not folder.marked("go")
    # Up to 3.12 an interrupted Thread.join takes the thread for ended; it ends soon after.
    wait_until(lambda: set(threading.enumerate()) <= before, "the pool's threads ended")


def test_ctrl_c_in_outcomes_leaves_the_pool_open(folder):
    with oxgang.Executor("thread", 2) as pool:
        task = partial(interrupt_owner, folder, os.getpid())
        with pytest.raises(KeyboardInterrupt):
            list(outcomes(pool, task, (Call((number,), {}) for number in count())))
        folder.mark("go")
        assert pool.submit(square, 3).result() == 9


def test_input_that_is_interrupted(engine):
    def numbers():
        yield from range(30)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(oxgang.map(square, numbers(), model="thread", **engine))


# The end of the program.


@pytest.mark.parametrize("how", ["", "raise SystemExit(3)", "1 / 0"])
def test_program_ends_with_a_map_half_read(model, how):
    program = f"""
        import itertools, oxgang
        if __name__ == "__main__":
            results = oxgang.map(abs, itertools.count(), model={model!r}, max_workers=2)
            print(next(results))
            {how}
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "0\n"
    assert done.returncode == {"": 0, "raise SystemExit(3)": 3, "1 / 0": 1}[how]
    if how != "1 / 0":
        assert done.stderr == ""


# A worker's death.


@needs_engine
def test_killed_worker_costs_one_item(engine, folder):
    calls = [Call((number,), {}) for number in range(200)]
    options = engine | {"retries": 0}
    with oxgang.Executor("process", 2) as pool:
        got = list(outcomes(pool, partial(crash_once, folder, 100), calls, **options))
    failed = [outcome for outcome in got if outcome.error is not None]
    assert [outcome.index for outcome in failed] == [100]
    assert isinstance(failed[0].error, WorkerCrashed)
    assert sorted(outcome.value for outcome in got if outcome.error is None) == [
        number for number in range(200) if number != 100
    ]


@needs_engine
def test_killed_worker_costs_nothing_with_retries(engine, folder):
    options = engine | {"retries": 1}
    task = partial(crash_once, folder, 100)
    results = oxgang.map(task, range(200), model="process", max_workers=2, **options)
    assert sorted(results) == list(range(200))


@needs_engine
def test_killed_worker_ends_the_map_in_its_turn(folder):
    results = oxgang.map(partial(crash_once, folder, 100), range(200), model="process")
    assert list(islice(results, 100)) == list(range(100))
    with pytest.raises(WorkerCrashed):
        next(results)


def test_killed_worker_with_retries_ends_clearly_on_a_pool_that_breaks(folder):
    """Whatever the pool promises, it is an answer, not a hang."""
    task = partial(crash_once, folder, 3)
    calls = [Call((number,), {}) for number in range(10)]
    with oxgang.Executor("process", 2) as pool:
        got = []
        try:
            got.extend(outcomes(pool, task, calls, retries=2))
        except BrokenProcessPool:
            assert standard_pool
        else:
            assert len(got) == 10
