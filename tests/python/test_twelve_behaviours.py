"""What a pool of processes must bear, one test for each, with each start method.

They are the questions on which process pools differ most: what a killed worker costs, what an
exception or a result costs that does not survive its way, who is left when the program is killed,
whether Ctrl-C ends the program, whether an endless input can be mapped, whether pools nest, what
becomes of a lock whose owner dies and of a task that takes too long. Each is asked here once and
plainly; the details are in the files of their own.
"""

import itertools
import multiprocessing
import os
import signal

import calls
import oxgang
import oxgang.multiprocessing
import pytest
from oxgang.concurrent.futures import ProcessPoolExecutor
from oxgang.concurrent.futures.process import WorkerCrashed
from oxgang.errors import PayloadError, TaskTimeout
from programs import HERE, Program

METHODS = ("template", "fork", "spawn", "forkserver")


@pytest.fixture(params=METHODS)
def method(request):
    return request.param


@pytest.fixture
def pool(method):
    context = None if method == "template" else multiprocessing.get_context(method)
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        yield pool
        # whatever happened, it goes on
        assert list(pool.map(calls.same, range(20))) == list(range(20))


@pytest.fixture
def program(tmp_path, method):
    started = []

    def start(state):
        folder = tmp_path / "marks"
        folder.mkdir()
        program = Program(tmp_path, HERE / "program_of_twelve.py", folder, method, state)
        started.append(program)
        program.wait_for_line("ready")
        return program

    yield start
    for one in started:
        one.destroy()


def test_a_worker_is_killed(pool):
    """It costs the task that it ran, which learns by what; every other is done."""
    before = [pool.submit(calls.nap, 0.01) for _ in range(5)]
    lost = pool.submit(calls.die, signal.SIGKILL)
    after = [pool.submit(calls.same, number) for number in range(20)]
    with pytest.raises(WorkerCrashed, match="SIGKILL") as caught:
        lost.result()
    assert caught.value.exitcode == -signal.SIGKILL
    assert [one.result() for one in before] == [0.01] * 5
    assert [one.result() for one in after] == list(range(20))


def test_an_exception_that_cannot_be_unpickled(pool):
    """The standard pool breaks; multiprocessing.Pool hangs."""
    with pytest.raises(PayloadError, match=r"Unloadable.*raised in the task"):
        pool.submit(calls.raise_unloadable).result()


def test_an_exception_that_cannot_be_pickled(pool):
    with pytest.raises(PayloadError, match=r"HoldsLock.*raised in the task"):
        pool.submit(calls.raise_undumpable).result()


def test_a_result_that_cannot_be_unpickled(pool):
    with pytest.raises(PayloadError, match="will not be rebuilt"):
        pool.submit(calls.refusing).result()


def test_a_result_whose_unpickling_exits(pool):
    with pytest.raises(PayloadError) as caught:
        pool.submit(calls.exit_when_loaded).result()
    assert type(caught.value.__cause__) is SystemExit


def test_a_result_that_cannot_be_pickled(pool):
    with pytest.raises(TypeError, match="pickle"):
        pool.submit(calls.lock).result()


def test_a_task_that_calls_sys_exit(pool):
    """Its own exception, as any other: neither the worker's end nor the program's."""
    with pytest.raises(SystemExit) as caught:
        pool.submit(calls.system_exit, 4).result()
    assert caught.value.code == 4


@pytest.mark.parametrize("state", ["idle", "busy"])
def test_the_program_is_killed(program, state):
    one = program(state)
    one.signal(signal.SIGKILL)
    assert one.end() == (-signal.SIGKILL, "")
    one.assert_nothing_left(fork_server=True)


@pytest.mark.parametrize("state", ["idle", "busy"])
def test_ctrl_c(program, state):
    """As a terminal sends it, to the workers too. One traceback, the program's own."""
    one = program(state)
    one.signal_all(signal.SIGINT)
    code, errors = one.end()
    assert code == -signal.SIGINT
    assert errors.count("Traceback") == 1 and errors.endswith("KeyboardInterrupt\n")
    one.assert_nothing_left()


def test_an_endless_input(method):
    with oxgang.Executor("process", 2, start_method=method) as pool:
        results = pool.map(calls.same, itertools.count())
        assert list(itertools.islice(results, 500)) == list(range(500))
        results.close()


def test_an_endless_input_with_a_buffer(pool):
    results = pool.map(calls.same, itertools.count(), buffersize=8)
    assert list(itertools.islice(results, 500)) == list(range(500))
    results.close()


def test_a_pool_in_a_worker(pool, method):
    pids = pool.submit(calls.nested, 2, method).result()
    assert len({os.getpid(), *pids}) == 4


def test_the_owner_of_a_lock_dies(pool):
    """The standard lock is lost for ever, and whoever wants it waits as long."""
    lock = oxgang.multiprocessing.Lock()
    with pytest.raises(WorkerCrashed):
        pool.submit(calls.die_with, lock).result()
    assert pool.submit(calls.take_and_release, lock).result() is True
    with lock:
        assert True


def test_a_task_is_over_its_time(pool):
    """Also in C code that never comes back; and only this task is ended."""
    options = oxgang.TaskOptions(timeout=0.2, timeout_grace=0.1)
    late = pool.submit_with(options, calls.stuck_in_c)
    others = [pool.submit(calls.same, number) for number in range(20)]
    with pytest.raises(TaskTimeout, match=r"(?s)stuck_in_c.*calls\.py"):
        late.result()
    assert [one.result() for one in others] == list(range(20))
