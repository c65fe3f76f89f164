"""What a fault costs: its own task, and nobody else's."""

import concurrent.futures as standard
import multiprocessing
import os
import pickle
import signal
import time
from concurrent.futures.process import BrokenProcessPool

import calls
import pytest
from oxgang.concurrent.futures import ProcessPoolExecutor
from oxgang.concurrent.futures.process import WorkerCrashed
from oxgang.errors import PayloadError

METHODS = ("template", "fork", "spawn", "forkserver")


@pytest.fixture(params=METHODS)
def pool(request):
    method = request.param
    context = None if method == "template" else multiprocessing.get_context(method)
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        yield pool


def assert_alive(pool):
    assert list(pool.map(calls.same, range(20))) == list(range(20))


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGSEGV", "SIGABRT", "SIGHUP"])
def test_a_killed_worker_costs_one_task(pool, name):
    number = getattr(signal, name)
    before = [pool.submit(calls.nap, 0.01) for _ in range(20)]
    lost = pool.submit(calls.die, number)
    after = [pool.submit(calls.same, i) for i in range(50)]
    with pytest.raises(WorkerCrashed) as caught:
        lost.result()
    error = caught.value
    assert error.exitcode == -number
    assert error.function == "die"
    assert f"pid {error.pid}" in str(error) and name in str(error) and "die" in str(error)
    assert isinstance(error, BrokenProcessPool)
    assert pickle.loads(pickle.dumps(error)).exitcode == -number
    assert [one.result() for one in before] == [0.01] * 20
    assert [one.result() for one in after] == list(range(50))
    assert_alive(pool)


def test_an_exit_code_is_told(pool):
    with pytest.raises(WorkerCrashed, match="exited with code 3") as caught:
        pool.submit(calls.leave, 3).result()
    assert caught.value.exitcode == 3
    assert_alive(pool)


def test_tasks_that_had_not_begun_run_exactly_once(tmp_path):
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(calls.same, range(1000)))  # short tasks are sent far ahead
        futures = []
        for index in range(300):
            if index % 50 == 25:
                args = calls.count_and_die, tmp_path / str(index), signal.SIGKILL
            else:
                args = calls.count_in, tmp_path / str(index)
            futures.append(pool.submit(*args))
        lost = [index for index, one in enumerate(futures) if one.exception()]
    assert lost == [25, 75, 125, 175, 225, 275]
    runs = {index: (tmp_path / str(index)).stat().st_size for index in range(300)}
    assert set(runs.values()) == {1}, {k: v for k, v in runs.items() if v != 1}


def test_system_exit_is_the_tasks_own(pool):
    with pytest.raises(SystemExit) as caught:
        pool.submit(calls.system_exit, 4).result()
    assert caught.value.code == 4
    assert_alive(pool)


def test_an_argument_that_cannot_be_pickled(pool):
    future = pool.submit(calls.same, calls.lock())
    with pytest.raises(TypeError, match="pickle"):
        future.result()
    assert_alive(pool)


def test_a_result_that_cannot_be_pickled(pool):
    with pytest.raises(TypeError, match="pickle"):
        pool.submit(calls.lock).result()
    assert_alive(pool)


def test_an_argument_that_cannot_be_unpickled(pool):
    with pytest.raises(PayloadError, match=r"arguments did not arrive.*will not be rebuilt"):
        pool.submit(calls.same, calls.RefusesToLoad()).result()
    assert_alive(pool)


def test_a_result_that_cannot_be_unpickled(pool):
    future = pool.submit(calls.refusing)
    with pytest.raises(PayloadError, match=r"result did not arrive.*will not be rebuilt") as caught:
        future.result()
    assert isinstance(caught.value, BrokenProcessPool)
    assert type(caught.value.__cause__) is ValueError
    assert future.exception() is caught.value
    assert_alive(pool)


def test_a_result_that_exits_when_unpickled(pool):
    with pytest.raises(PayloadError, match="SystemExit"):
        pool.submit(calls.exit_when_loaded).result()
    assert_alive(pool)


def test_exceptions_that_cannot_cross(pool):
    with pytest.raises(PayloadError, match=r"Unloadable.*7: raised in the task") as caught:
        pool.submit(calls.raise_unloadable).result()
    assert "raise_unloadable" in str(caught.value.__cause__)
    with pytest.raises(PayloadError, match=r"HoldsLock.*raised in the task"):
        pool.submit(calls.raise_undumpable).result()
    assert_alive(pool)


@pytest.mark.parametrize("how", ["terminate_workers", "kill_workers"])
def test_workers_can_be_stopped(how):
    pool = ProcessPoolExecutor(2)
    running = [pool.submit(calls.nap, 600) for _ in range(2)]
    waiting = [pool.submit(calls.nap, 600) for _ in range(10)]
    pids = [None]
    # a worker may begin a task before its owner is told which process it is
    while not all(one.running() for one in running) or None in pids:
        time.sleep(0.005)
        pids = [one["pid"] for one in pool.statistics()["workers"]]
    getattr(pool, how)()
    for one in running + waiting:
        with pytest.raises((BrokenProcessPool, standard.CancelledError)):
            one.result(timeout=60)
    pool.shutdown()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    with pytest.raises((RuntimeError, BrokenProcessPool)):
        pool.submit(calls.same, 1)


def test_a_with_block_left_by_ctrl_c_does_not_wait():
    future = None
    with pytest.raises(KeyboardInterrupt), ProcessPoolExecutor(2) as pool:
        future = pool.submit(calls.nap, 600)
        while not future.running():
            time.sleep(0.005)
        raise KeyboardInterrupt
    assert isinstance(future.exception(timeout=0), BrokenProcessPool)


def test_a_template_that_is_killed_is_replaced():
    from oxgang import _template

    with ProcessPoolExecutor(2) as pool:
        first = pool.submit(calls.pid).result()
        template = _template.get()
        os.kill(template.pid, signal.SIGKILL)
        while template.alive():
            time.sleep(0.005)
        # the worker lives on, and when it dies another comes from a new template
        assert pool.submit(calls.pid).result() == first
        with pytest.raises(WorkerCrashed):
            pool.submit(calls.die, signal.SIGKILL).result()
        assert_alive(pool)
        assert _template.get().pid != template.pid


def test_nobody_need_wait_for_tasks_to_reach_idle_workers(tmp_path):
    with ProcessPoolExecutor(3) as pool:
        for round_ in range(5):
            # nobody asks the pool for anything meanwhile: it sees to it by itself
            pool.submit(calls.wait_for_file, tmp_path / f"go-{round_}")
            for index in range(20):
                pool.submit(calls.count_in, tmp_path / f"{round_}-{index}")
            while len(list(tmp_path.glob(f"{round_}-*"))) < 20:
                time.sleep(0.005)
            (tmp_path / f"go-{round_}").touch()


@pytest.mark.parametrize("history", [0, 2000])
def test_tasks_begin_in_their_order(tmp_path, history):
    """The first two wait for each other: they must not be queued behind one another, nor the
    second behind later ones, whatever was known of tasks before."""
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(calls.same, range(history)))
        for round_ in range(10):
            names = [tmp_path / f"{round_}-{side}" for side in "ab"]
            pair = [pool.submit(calls.meet, *names), pool.submit(calls.meet, *reversed(names))]
            rest = [pool.submit(calls.same, i) for i in range(50)]
            assert [one.result() for one in pair + rest] == [True, True, *range(50)]


@pytest.mark.parametrize("method", ["template", "fork"])
def test_pools_that_close_while_their_workers_start(method):
    context = None if method == "template" else multiprocessing.get_context(method)
    for workers in range(1, 7):
        for _ in range(8):
            pool = ProcessPoolExecutor(workers, mp_context=context)
            futures = [pool.submit(calls.same, i) for i in range(workers + 1)]
            pool.shutdown()
            assert [one.result(timeout=0) for one in futures] == list(range(workers + 1))


def test_a_pool_full_of_cancelled_tasks_ends():
    with ProcessPoolExecutor(1) as pool:
        list(pool.map(calls.same, range(1000)))  # short tasks are sent far ahead
        first = pool.submit(calls.nap, 0.3)
        rest = [pool.submit(calls.same, b"x" * 10_000) for _ in range(500)]
        assert all(one.cancel() for one in rest[1:])
        first.result()


def test_slow_inputs_do_not_hold_up_their_tasks(tmp_path):
    def inputs():
        for number in range(3):
            yield tmp_path / str(number)
            while not (tmp_path / str(number)).exists():
                time.sleep(0.005)  # until the task has run: for ever, if it is held back

    with ProcessPoolExecutor(1) as pool:
        assert len(list(pool.map(calls.count_in, inputs()))) == 3


def test_a_function_with_much_to_carry_crosses_once():
    data = os.urandom(1 << 20)
    with ProcessPoolExecutor(2) as pool:
        assert list(pool.map(lambda i: data[i], range(500))) == list(data[:500])


def test_workers_that_cannot_start_break_the_pool_in_the_end():
    class Context:
        """A context whose processes end at once."""

        def get_start_method(self, allow_none=False):
            return "spawn"

        def Process(self, target, args):
            return multiprocessing.get_context("fork").Process(target=os._exit, args=(1,))

    with ProcessPoolExecutor(1, mp_context=Context()) as pool:
        future = pool.submit(calls.same, 1)
        with pytest.raises(BrokenProcessPool, match="end before they are ready"):
            future.result()
        with pytest.raises(BrokenProcessPool):
            pool.submit(calls.same, 1)
