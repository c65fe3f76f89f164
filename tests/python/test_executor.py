"""`oxgang.Executor`: the standard contract, what it adds, and what it refuses."""

import multiprocessing
import os
import threading
from concurrent.futures import CancelledError, Executor, Future, as_completed, wait
from functools import partial
from typing import ClassVar

import oxgang
import oxgang.concurrent.futures as ours
import pytest
from oxgang import _core, _executor
from oxgang.errors import BrokenProcessPool
from tasks import fail_times, set_environment, square, wait_for_go, wait_until

# What the standard executors promise as well.


def test_submit(make_pool):
    with make_pool() as pool:
        future = pool.submit(int, "ff", base=16)
        assert isinstance(future, Future)
        assert future.result() == 255


def test_submit_takes_any_keyword(make_pool):
    with make_pool() as pool:
        assert pool.submit(dict, fn=1, self=2).result() == {"fn": 1, "self": 2}


def test_failure_is_carried_by_the_future(make_pool):
    with make_pool() as pool:
        future = pool.submit(int, "nothing")
        assert isinstance(future.exception(), ValueError)
        with pytest.raises(ValueError, match="nothing"):
            future.result()


def test_standard_functions_take_its_futures(make_pool):
    with make_pool() as pool:
        futures = [pool.submit(square, number) for number in range(20)]
        assert wait(futures).not_done == set()
        assert sorted(future.result() for future in as_completed(futures)) == [
            number * number for number in range(20)
        ]


def test_leaving_the_with_block_finishes_everything(make_pool):
    with make_pool() as pool:
        futures = [pool.submit(square, number) for number in range(100)]
    assert all(future.done() for future in futures)
    assert [future.result() for future in futures] == [number * number for number in range(100)]


def test_exception_in_the_with_block_passes(make_pool):
    with pytest.raises(LookupError, match="of the block"), make_pool() as pool:
        future = pool.submit(square, 3)
        raise LookupError("of the block")
    assert future.result() == 9


def test_after_shutdown(make_pool):
    pool = make_pool()
    pool.shutdown()
    pool.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(square, 1)
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.map(square, [1])


def test_shutdown_cancels_when_asked(make_pool, folder):
    pool = make_pool(1)
    futures = [pool.submit(wait_for_go, folder, number) for number in range(50)]
    folder.wait_for("begun-0")
    closer = threading.Thread(target=pool.shutdown, kwargs={"cancel_futures": True})
    closer.start()
    wait_until(futures[-1].cancelled, "the last one is cancelled")
    folder.mark("go")
    closer.join()
    assert futures[0].result() == 0
    with pytest.raises(CancelledError):
        futures[-1].result()


def test_shutdown_without_waiting(make_pool, folder):
    pool = make_pool(1)
    future = pool.submit(wait_for_go, folder, 7)
    pool.shutdown(wait=False)
    assert not future.done()
    folder.mark("go")
    assert future.result() == 7


@pytest.mark.parametrize("workers", [0, -1])
def test_number_of_workers_is_checked(make_pool, workers):
    with pytest.raises(ValueError, match="max_workers must be greater than 0"):
        make_pool(workers)


def test_initializer(make_pool):
    # (a bound method of os.environ would be pickled, and set in a copy of it)
    with make_pool(1, initializer=set_environment, initargs=("OXGANG_TEST", "set")) as pool:
        assert pool.submit(os.getenv, "OXGANG_TEST").result() == "set"
    os.environ.pop("OXGANG_TEST", None)


def test_initializer_must_be_callable(make_pool):
    with pytest.raises(TypeError, match="initializer must be a callable"):
        make_pool(initializer=5)


# Ours.


def test_it_is_an_executor(model):
    with oxgang.Executor(model) as pool:
        assert isinstance(pool, Executor)
        assert repr(pool) == f"<oxgang.Executor model={model!r} max_workers={pool._max_workers}>"


def test_models():
    with oxgang.Executor("thread", 1) as pool:
        assert pool.submit(os.getpid).result() == os.getpid()
    with oxgang.Executor("process", 1) as pool:
        assert pool.submit(os.getpid).result() != os.getpid()
    with oxgang.Executor(max_workers=1) as pool:
        assert pool.model == "process"
        assert pool.submit(os.getpid).result() != os.getpid()


@pytest.mark.parametrize("model", ["interpreter"])
def test_models_of_later(model):
    with pytest.raises(ValueError, match=f"model '{model}' does not exist yet; use one of: auto"):
        oxgang.Executor(model)


@pytest.mark.parametrize("model", ["threads", "", None, 3])
def test_unknown_model(model):
    with pytest.raises(ValueError, match="use one of: auto, process, thread"):
        oxgang.Executor(model)


def test_default_number_of_workers(monkeypatch):
    monkeypatch.setattr(_executor, "usable_cpus", lambda: 3)
    with oxgang.Executor("process") as processes, oxgang.Executor("thread") as threads:
        assert (processes._max_workers, threads._max_workers) == (3, 7)
    monkeypatch.setattr(_executor, "usable_cpus", lambda: 60)
    with oxgang.Executor("thread") as threads:
        assert threads._max_workers == 32


@pytest.mark.parametrize("start_method", ["template", "spawn", "fork", "forkserver", None])
def test_start_methods(start_method):
    with oxgang.Executor("process", 1, start_method=start_method) as pool:
        assert pool.submit(square, 5).result() == 25


def test_start_method_reaches_the_pool(monkeypatch):
    given = []

    class Pool(ours.ProcessPoolExecutor):
        def __init__(self, *args, **options):
            given.append(options["mp_context"])
            super().__init__(*args, **options)

    monkeypatch.setattr(ours, "ProcessPoolExecutor", Pool)
    for start_method in ("spawn", "template", None):
        oxgang.Executor("process", 1, start_method=start_method).shutdown()
    assert given == [multiprocessing.get_context("spawn"), None, None]


def test_start_method_is_checked():
    with pytest.raises(ValueError, match="use one of: template, spawn, fork, forkserver"):
        oxgang.Executor("process", start_method="forks")
    with pytest.raises(ValueError, match="start_method is for processes"):
        oxgang.Executor("thread", start_method="spawn")


def test_retries_are_the_default_of_map(model, folder):
    with oxgang.Executor(model, 1, retries=1) as pool:
        assert list(pool.map(partial(fail_times, folder, 1), [1, 2])) == [1, 2]
        with pytest.raises(ConnectionError):
            list(pool.map(partial(fail_times, folder, 1), [3], retries=0))


def test_retries_are_checked():
    with pytest.raises(ValueError, match="retries must be 0 or more"):
        oxgang.Executor("thread", retries=-1)


def test_map_uses_submit_of_a_subclass():
    class Shifted(oxgang.Executor):
        def submit(self, fn, /, *args, **kwargs):
            return super().submit(fn, *(arg + 100 for arg in args), **kwargs)

    with Shifted("thread", 1) as pool:
        assert list(pool.map(square, [1, 2])) == [101 * 101, 102 * 102]


def test_statistics_is_a_dict(model):
    with oxgang.Executor(model, 1) as pool:
        pool.submit(square, 1).result()
        assert isinstance(pool.statistics(), dict)


def test_statistics_are_the_pools(monkeypatch):
    monkeypatch.setattr(
        ours.ThreadPoolExecutor, "statistics", lambda self: {"tasks": 5}, raising=False
    )
    with oxgang.Executor("thread", 1) as pool:
        assert pool.statistics() == {"tasks": 5}


@pytest.mark.parametrize("how", ["kill_workers", "terminate_workers"])
def test_threads_cannot_be_stopped(how):
    with (
        oxgang.Executor("thread", 1) as pool,
        pytest.raises(ValueError, match="use model='process'"),
    ):
        getattr(pool, how)()


def test_kill_workers(folder, stoppable):
    pool = oxgang.Executor("process", 1)
    future = pool.submit(wait_for_go, folder, 1)
    folder.wait_for("begun-1")
    pool.kill_workers()
    pool.shutdown()
    assert isinstance(future.exception(), BrokenProcessPool)
    assert not folder.marked("go")


def test_size_of_pool_is_the_window_of_map():
    """With one worker a map begins with few items, with eight it begins with more."""
    read = []
    for workers in (1, 8):
        inputs = iter(range(10_000))
        with oxgang.Executor("thread", workers) as pool:
            pool.map(square, inputs).close()
        read.append(next(inputs))
    assert read == [5, 40]


# Progress.


class Bar:
    made: ClassVar[list] = []

    def __init__(self, total, description, stream):
        self.begin = (total, description, stream)
        self.steps = []
        self.finished = 0
        Bar.made.append(self)

    def advance(self, ok):
        self.steps.append(ok)

    def finish(self):
        self.finished += 1


@pytest.fixture
def bars(monkeypatch):
    monkeypatch.setattr(Bar, "made", [])
    monkeypatch.setattr(_core, "Progress", Bar, raising=False)
    return Bar.made


def test_progress_tells_the_bar(bars, engine):
    results = oxgang.map(int, ["1", "x", "3"], progress=True, return_exceptions=True, **engine)
    assert len(list(results)) == 3
    (bar,) = bars
    assert bar.begin == (3, "int", "auto")
    assert sorted(bar.steps) == [False, True, True]
    assert bar.finished == 1


def test_progress_counts_a_failure_that_is_raised(bars):
    with oxgang.Executor("thread", 1) as pool, pytest.raises(ValueError, match="x"):
        list(pool.map(int, ["1", "x", "3"], progress="always"))
    (bar,) = bars
    assert (bar.begin[2], bar.steps, bar.finished) == ("always", [True, False], 1)


def test_progress_of_inputs_without_a_length(bars):
    with oxgang.Executor("thread", 1) as pool:
        list(pool.map(pow, iter([1, 2]), iter([3, 4]), progress=True))
        list(pool.map(pow, iter([1, 2]), [3, 4, 5], progress=True))
    assert [bar.begin[0] for bar in bars] == [None, 3]


def test_progress_ends_when_closed_early(bars):
    with oxgang.Executor("thread", 1) as pool:
        results = pool.map(square, range(100), progress=True)
        next(results)
        results.close()
    (bar,) = bars
    assert (bar.steps, bar.finished) == ([True], 1)


def test_without_progress_there_is_no_bar(bars):
    with oxgang.Executor("thread", 1) as pool:
        assert list(pool.map(square, [2])) == [4]
    assert bars == []


@pytest.mark.skipif(not hasattr(_core, "Progress"), reason="this build has no progress bar")
def test_progress_is_silent_where_stderr_is_no_terminal(model, capfd):
    assert list(oxgang.map(square, range(50), model=model, progress=True)) == [
        number * number for number in range(50)
    ]
    assert capfd.readouterr() == ("", "")


def test_progress_is_no_other_word():
    with pytest.raises(ValueError, match="\"always\", not 'alwayz'"):
        oxgang.map(square, [1], model="thread", progress="alwayz")


@pytest.mark.skipif(not hasattr(_core, "Progress"), reason="this build has no progress bar")
def test_progress_is_drawn_anyway_when_asked(capfd):
    assert list(oxgang.map(square, range(50), model="thread", progress="always"))
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "square" in captured.err
