"""Pools of `multiprocessing`: one body, on the standard library's and on ours."""

import gc
import itertools
import multiprocessing as standard
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
import weakref
from multiprocessing import pool as standard_pool

import calls
import oxgang.multiprocessing as ours
import pytest
from mp_pools import MAKERS, OWN, OWN_PROCESSES, PROCESSES, making, only
from oxgang.errors import MemoryLimitExceeded, TaskTimeout, WorkerCrashed
from oxgang.multiprocessing import dummy
from oxgang.multiprocessing import pool as own_pool


@pytest.fixture(params=MAKERS)
def make(request):
    with making(request.param) as make:
        yield make


@pytest.fixture
def pool(make):
    return make(2)


def test_calls(pool):
    assert pool.apply(calls.keywords, (1, 2), {"a": 3}) == ((1, 2), {"a": 3})
    result = pool.apply_async(calls.same, (5,))
    assert result.get(60) == 5
    assert result.ready() and result.successful()
    with pytest.raises(LookupError, match="told"):
        pool.apply(calls.fail, ("told",))
    failed = pool.apply_async(calls.fail, ["told"])
    failed.wait()
    assert failed.ready() and not failed.successful()


@pytest.mark.parametrize("chunksize", [None, 1, 3, 1000])
@pytest.mark.parametrize("kind", [list, tuple, set, iter, str, dict.fromkeys])
def test_maps(pool, chunksize, kind):
    items = kind("abcdefgh")
    expected = list("abcdefgh") if kind is iter else list(items)
    assert pool.map(calls.same, items, chunksize) == expected
    items = kind("abcdefgh")
    assert pool.map_async(calls.same, items, chunksize).get() == expected
    pairs = [(letter, 1) for letter in expected]
    assert pool.starmap(calls.keywords, pairs, chunksize) == [(pair, {}) for pair in pairs]
    assert pool.starmap_async(calls.keywords, iter(pairs), chunksize).get() == [
        (pair, {}) for pair in pairs
    ]


def test_nothing_to_do(pool):
    assert pool.map(calls.same, []) == pool.map(calls.same, iter(()), 3) == []
    told = []
    result = pool.map_async(calls.same, [], callback=told.append)
    assert result.get() == [] and result.ready()


def test_an_input_that_fails_fails_the_map(pool):
    def failing():
        yield from range(3)
        raise LookupError("of the input")

    with pytest.raises(LookupError, match="of the input"):
        pool.map(calls.same, failing())


def test_time_limits_of_waiting(pool, tmp_path):
    path = str(tmp_path / "go")
    slow = pool.apply_async(calls.wait_for_file, (path,))
    with pytest.raises(standard.TimeoutError):
        slow.get(0.01)
    slow.wait(0.01)
    assert not slow.ready()
    with pytest.raises(ValueError, match="not ready"):
        slow.successful()
    mapped = pool.map_async(calls.wait_for_file, [path])
    with pytest.raises(standard.TimeoutError):
        mapped.get(0)
    for iterator in (pool.imap, pool.imap_unordered):
        results = iterator(calls.wait_for_file, [path])
        with pytest.raises(standard.TimeoutError):
            results.next(0.01)
    open(path, "w").close()
    assert slow.get() is None and mapped.get() == [None] and results.next(60) is None


def test_a_timeout_error_of_the_call_is_its_own(pool):
    with pytest.raises(TimeoutError):
        pool.apply_async(raise_timeout).get(60)


def raise_timeout():
    raise TimeoutError


@pytest.mark.parametrize("times", range(3))
def test_callbacks_come_before_those_who_wait_go_on(pool, times):
    told, failed = [], []
    options = {"callback": told.append, "error_callback": failed.append}
    pool.apply_async(calls.same, (1,), **options).wait()
    pool.map_async(calls.same, [1, 2], 1, **options).wait()
    pool.starmap_async(calls.same, [(3,)], **options).wait()
    pool.map_async(calls.same, [], **options).wait()
    assert (told, failed) == ([1, [1, 2], [3]], [])
    pool.apply_async(calls.fail, ("one",), **options).wait()
    pool.map_async(calls.fail, ["two"], **options).wait()
    assert len(told) == 3 and [str(error) for error in failed] == ["one", "two"]


@only(*OWN)
def test_a_callback_that_fails_stops_nobody(pool, caplog):
    def refuse(_value):
        raise ValueError("of the callback")

    one = pool.apply_async(calls.same, (1,), callback=refuse)
    several = pool.map_async(calls.same, [1, 2], 1, callback=refuse)
    assert (one.get(), several.get()) == (1, [1, 2])
    assert pool.apply(calls.same, (2,)) == 2
    while sum("callback" in record.getMessage() for record in caplog.records) < 2:
        time.sleep(0.001)


def test_a_map_waits_for_all_even_if_one_has_failed(pool, tmp_path):
    path = str(tmp_path / "marks")
    result = pool.map_async(fail_or_count, [None, path, path, path], 1)
    with pytest.raises(LookupError):
        result.get()
    assert (tmp_path / "marks").read_bytes() == b"..."


def fail_or_count(path):
    if path is None:
        raise LookupError("first")
    time.sleep(0.05)
    calls.count_in(path)


def test_the_end(make):
    pool = make(2)
    results = [pool.apply_async(calls.nap, (0.05,)) for _ in range(6)]
    with pytest.raises(ValueError, match="still running"):
        pool.join()
    pool.close()
    with pytest.raises(ValueError, match="not running"):
        pool.apply(calls.same, (1,))
    pool.join()
    assert [result.get(0) for result in results] == [0.05] * 6
    with pytest.raises(ValueError, match="not running"), pool:
        pass
    with pytest.raises(NotImplementedError):
        pool.__reduce__()
    pool.join()
    pool.terminate()


@only(*PROCESSES)
def test_terminate_ends_what_runs(make):
    with make(2) as pool:
        pool.map_async(calls.nap, [600] * 10, 1)
        workers = list(pool._pool)
    pool.join()
    assert len(workers) == 2


@only(*OWN_PROCESSES)
def test_who_waits_when_a_pool_is_terminated_is_told(make):
    pool = make(1)
    result = pool.apply_async(calls.nap, (600,))
    queued = pool.map_async(calls.same, [1, 2])
    iterator = pool.imap(calls.nap, [600, 600])
    waiter = threading.Timer(0.1, pool.terminate)
    waiter.start()
    for wait in (result.get, queued.get, iterator.__next__):
        with pytest.raises(Exception, match="the pool was terminated"):
            wait()
    waiter.join()
    pool.join()


@only("oxgang-thread")
def test_queued_calls_of_threads_are_given_up(make, tmp_path):
    pool = make(1)
    path = str(tmp_path / "go")
    running = pool.apply_async(calls.wait_for_file, (path,))
    queued = pool.apply_async(calls.same, (1,))
    while pool._engine.statistics()["queued"] != 1:
        time.sleep(0.001)
    pool.terminate()
    with pytest.raises(Exception, match="the pool was terminated"):
        queued.get()
    open(path, "w").close()
    pool.join()
    assert running.get() is None


@pytest.mark.parametrize("wrong", [0, -1])
def test_wrong_numbers(make, wrong):
    with pytest.raises(ValueError, match="at least 1"):
        make(wrong)
    with pytest.raises(TypeError, match="initializer"):
        make(1, initializer="no function")


@only(*PROCESSES)
@pytest.mark.parametrize("wrong", [0, -1, 0.5, "12"])
def test_wrong_lifetimes(make, wrong):
    with pytest.raises(ValueError, match="maxtasksperchild"):
        make(1, maxtasksperchild=wrong)


@only(*PROCESSES)
def test_workers_are_replaced_when_they_have_done_enough(make):
    pool = make(1, maxtasksperchild=2)
    pids = pool.map(calls.pid, range(6), chunksize=1)
    assert len(set(pids)) == 3
    assert [len(list(same)) for _, same in itertools.groupby(pids)] == [2, 2, 2]


def test_initializer(make):
    pool = make(2, calls.set_up, ("done",))
    assert set(pool.map(lambda_free_setting, range(10), 1)) == {"done"}


def lambda_free_setting(_):
    return calls.setting()


@only(*PROCESSES)
def test_workers_know_what_they_are(make):
    pool = make(1)
    name, has_parent = pool.apply(calls.in_worker)
    assert "PoolWorker" in name and has_parent
    assert pool.apply(is_daemon)
    (worker,) = pool._pool
    assert worker.pid == pool.apply(calls.pid) and worker.is_alive()


def is_daemon():
    return standard.current_process().daemon


@only(*PROCESSES)
def test_the_traceback_of_the_worker_is_the_cause(pool):
    for failing in (
        lambda: pool.apply(calls.fail, ("x",)),
        lambda: pool.map(calls.fail, ["x"]),
        lambda: next(pool.imap(calls.fail, ["x"])),
    ):
        with pytest.raises(LookupError) as caught:
            failing()
        cause = caught.value.__cause__
        assert type(cause) is standard_pool.RemoteTraceback
        assert "raise LookupError(text)" in cause.tb


@only(*PROCESSES)
def test_results_and_arguments_that_cannot_be_sent(pool):
    with pytest.raises(standard_pool.MaybeEncodingError) as caught:
        pool.apply(calls.lock)
    assert "lock" in caught.value.value and "pickle" in caught.value.exc
    with pytest.raises(TypeError):
        pool.apply(calls.same, (threading.Lock(),))
    assert pool.apply(calls.same, (1,)) == 1


class Counter:
    def __init__(self):
        self.calls = 0

    def count(self, _item):
        self.calls += 1
        return self.calls


@pytest.mark.parametrize("chunksize", [1, 4])
@only(*OWN_PROCESSES)
def test_who_is_interrupted_may_ask_again(make, chunksize):
    calls.interrupted.clear()
    answer = make(2).map_async(calls.interrupting, range(6), chunksize)
    with pytest.raises(KeyboardInterrupt):
        answer.get()
    assert answer.get() == answer.get() == [0, 1, 2, "after all", 4, 5]


@only("oxgang-thread", "oxgang-fork")
def test_many_may_wait_for_one_map(make):
    answer = make(2).map_async(calls.nap, [0.1] * 4, 1)
    seen = []
    threads = [threading.Thread(target=lambda: seen.append(answer.get())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [[0.1] * 4] * 4


@only(*PROCESSES)
def test_each_call_has_an_object_of_its_own(make):
    pool = make(1)
    counter = Counter()
    assert pool.map(counter.count, range(4), 1) == [1] * 4
    assert pool.map(counter.count, range(4), 2) == [1, 2, 1, 2]
    assert list(pool.imap(counter.count, range(4))) == [1] * 4
    assert counter.calls == 0


# -- what the standard pools cannot ------------------------------------------------------------


@only(*OWN_PROCESSES)
def test_a_lost_call_is_an_error_and_the_pool_goes_on(pool):
    with pytest.raises(WorkerCrashed) as caught:
        pool.apply_async(calls.die, (signal.SIGKILL,)).get()
    assert caught.value.exitcode == -signal.SIGKILL
    with pytest.raises(WorkerCrashed):
        pool.map(calls.leave, [3] * 4, 2)
    assert pool.map(calls.same, range(10), 1) == list(range(10))
    iterator = pool.imap_unordered(calls.leave, [3])
    with pytest.raises(WorkerCrashed):
        next(iterator)


@only(*OWN_PROCESSES)
def test_limits_and_retries(make, tmp_path):
    pool = make(1, task_timeout=0.2, timeout_grace=0.1)
    with pytest.raises(TaskTimeout):
        pool.apply(calls.nap, (600,))
    with pytest.raises(TaskTimeout):
        pool.map(calls.nap, [0, 600])
    pool = make(1, memory_limit="300MiB")
    with pytest.raises(MemoryLimitExceeded):
        pool.apply(calls.fill)
    pool = make(1, retries=2)
    path = str(tmp_path / "runs")
    with pytest.raises(WorkerCrashed):
        pool.apply(calls.count_and_die, (path, signal.SIGKILL))
    assert (tmp_path / "runs").read_bytes() == b"..."


@only(*OWN_PROCESSES)
def test_lambdas_and_closures(pool):
    number = 3
    assert pool.map(lambda item: item + number, range(4)) == [3, 4, 5, 6]
    assert pool.apply(lambda: number) == 3


@only(*OWN)
def test_a_pool_that_nobody_has_any_more_ends_without_a_word(make):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pool = MAKERS[make.name](2)
        assert pool.apply(calls.same, (1,)) == 1
        workers = [weakref.ref(pool), *(worker.name for worker in pool._pool)]
        result = pool.apply_async(calls.same, (2,))
        del pool
        gc.collect()
        assert result.get() == 2  # it is needed as long as somebody may ask
        del result
        gc.collect()
        assert workers[0]() is None
    # `conftest` sees to it that no process is left


@only(*OWN_PROCESSES)
def test_pools_nest(make):
    assert make(1).apply(pool_of_pool, (2,)) == [0, 1, 2]


def pool_of_pool(depth):
    if not depth:
        return [0]
    with ours.Pool(1) as pool:
        return [*pool.apply(pool_of_pool, (depth - 1,)), depth]


def test_a_pool_of_a_fork_is_the_parents(make):
    pool = make(1)
    pid = os.fork()
    if pid == 0:
        del pool
        gc.collect()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert pool.apply(calls.same, (1,)) == 1


ENDINGS = """
import os, sys, time
from oxgang.multiprocessing import Pool
from oxgang.multiprocessing.pool import ThreadPool
def nap(seconds): time.sleep(seconds); return seconds
def spin(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end: pass
pool = {maker}(4)
pool.map({work}, [0.01] * 4, 1)
results = pool.map_async({work}, [{seconds}] * 100, 1)
iterator = pool.imap_unordered({work}, iter([{seconds}] * 100))
time.sleep(0.02)
print("the end", flush=True)
"""


@pytest.mark.parametrize("work", ["nap", "spin"])
@pytest.mark.parametrize("maker", ["Pool", "ThreadPool"])
def test_a_program_may_end_with_pools_at_work(maker, work):
    seconds = 0.05 if maker == "ThreadPool" else 600
    text = ENDINGS.format(maker=maker, work=work, seconds=seconds)
    command = [sys.executable, "-c", text]
    for _ in range(4):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.stdout, done.stderr, done.returncode) == ("the end\n", "", 0)


# -- seams -------------------------------------------------------------------------------------


def test_processes_of_a_subclass():
    made = []

    class Pool(own_pool.Pool):
        def Process(self, ctx, *args, **kwds):
            made.append(ctx)
            return ctx.Process(*args, **kwds)

    pool = Pool(2, context=ours.get_context("fork"))
    assert pool.map(calls.same, [1, 2]) == [1, 2] and len(made) == 2
    known = weakref.ref(pool)
    del pool
    gc.collect()
    assert known() is None


def test_what_cannot_be_started_is_the_makers_error():
    started = []

    class Failing:
        name = "Process"
        pid = None

        def __init__(self, **_work):
            self.ended = False
            started.append(self)

        def start(self):
            if len(started) > 2:
                raise OSError("no more")

        def terminate(self):
            self.ended = True

        def join(self):
            assert self.ended or self is started[-1]

    class Context(type(ours.get_context("fork"))):
        Process = Failing

    with pytest.raises(OSError, match="no more"):
        own_pool.Pool(5, context=Context())
    assert all(process.ended for process in started[:2])


def test_dummy_is_of_threads():
    with dummy.Pool(2) as pool:
        assert isinstance(pool, own_pool.ThreadPool)
        assert pool.map(lambda item: item + 1, [1, 2]) == [2, 3]
    process = dummy.Process(target=calls.same, args=(1,))
    process.start()
    process.join()
    assert process.exitcode == 0
