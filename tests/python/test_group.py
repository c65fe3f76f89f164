"""`oxgang.TaskGroup`: tasks that end together."""

import concurrent.futures as standard
import signal
import sys
import threading
import time

import oxgang
import pytest
from oxgang.errors import TaskCancelled, WorkerCrashed
from tasks import square


def fail(text):
    raise ValueError(text)


def endless():
    while True:
        time.sleep(0.001)


def die():
    import os

    os.kill(os.getpid(), signal.SIGKILL)


def test_leaving_waits_for_all(model):
    with oxgang.TaskGroup(model, 2) as group:
        futures = [group.start(square, number) for number in range(20)]
        assert not group.stopping
    assert all(future.done() for future in futures)
    assert [future.result() for future in futures] == [number**2 for number in range(20)]
    with pytest.raises(RuntimeError, match="over"):
        group.start(square, 1)


@pytest.mark.parametrize("workers", [1, 3])
def test_the_first_failure_stops_the_others(model, workers):
    with pytest.raises(ExceptionGroup) as caught, oxgang.TaskGroup(model, workers) as group:
        failing = group.start(fail, "the first")
        running = [group.start(endless) for _ in range(5)]
    assert [str(error) for error in caught.value.exceptions] == ["the first"]
    assert failing.done() and all(future.done() for future in running)


def test_a_failure_is_noticed_while_the_block_goes_on(model):
    with pytest.raises(ExceptionGroup), oxgang.TaskGroup(model, 2) as group:
        running = group.start(endless)
        group.start(fail, "x")
        while not running.done():
            time.sleep(0.001)
        assert group.stopping
        with pytest.raises(RuntimeError, match="stopping"):
            group.start(square, 2)


def test_an_exception_of_the_block_stops_all(model):
    with pytest.raises(LookupError, match="of the block"), oxgang.TaskGroup(model, 2) as group:
        running = [group.start(endless) for _ in range(3)]
        raise LookupError("of the block")
    assert all(future.done() for future in running)


def test_both_failures_are_told(model):
    with pytest.raises(ExceptionGroup) as caught, oxgang.TaskGroup(model, 2) as group:
        failing = group.start(fail, "of a task")
        while not failing.done() or not group.stopping:
            time.sleep(0.001)
        raise LookupError("of the block")
    assert [type(error) for error in caught.value.exceptions] == [LookupError, ValueError]


def test_interruption_passes_as_it_is(model):
    with pytest.raises(KeyboardInterrupt), oxgang.TaskGroup(model, 2) as group:
        group.start(endless)
        raise KeyboardInterrupt


def test_a_deadline_ends_all(model):
    began = time.monotonic()
    with (
        pytest.raises(ExceptionGroup) as caught,
        oxgang.TaskGroup(model, 2, deadline=0.3) as group,
    ):
        running = [group.start(endless) for _ in range(3)]
    assert time.monotonic() - began >= 0.3
    (error,) = caught.value.exceptions
    assert isinstance(error, TimeoutError) and "0.3 s" in str(error)
    assert all(future.done() for future in running)
    with oxgang.TaskGroup(model, 2, deadline=50) as group:
        assert group.start(square, 3).result() == 9


def test_to_cancel_is_no_failure(model):
    with oxgang.TaskGroup(model, 2) as group:
        running = [group.start(endless) for _ in range(4)]
        group.cancel()
    assert all(future.done() for future in running)


def test_a_given_executor_stays_open(model):
    with oxgang.Executor(model, 2) as executor:
        for _ in range(3):
            with pytest.raises(ExceptionGroup), oxgang.TaskGroup(executor=executor) as group:
                group.start(endless)
                group.start(fail, "x")
            assert [executor.submit(square, 4).result() for _ in range(8)] == [16] * 8


def test_a_crash_is_a_failure():
    with pytest.raises(ExceptionGroup) as caught, oxgang.TaskGroup("process", 2) as group:
        group.start(endless)
        group.start(die)
    assert [type(error) for error in caught.value.exceptions] == [WorkerCrashed]


def test_tasks_in_threads_start_tasks():
    seen = []

    def grow(group, depth):
        seen.append(depth)
        if depth:
            for _ in range(2):
                group.start(grow, group, depth - 1)

    with oxgang.TaskGroup("thread") as group:
        group.start(grow, group, 5)
    assert sorted(seen) == sorted(depth for depth in range(6) for _ in range(2 ** (5 - depth)))


def test_tasks_in_threads_can_clean_up():
    cleaned = []

    def careful():
        try:
            endless()
        except Exception:
            cleaned.append("no")
        except TaskCancelled:
            cleaned.append("yes")
            raise

    with pytest.raises(ExceptionGroup), oxgang.TaskGroup("thread") as group:
        for _ in range(3):
            group.start(careful)
        group.start(fail, "x")
    assert set(cleaned) <= {"yes"}


def test_threads_are_told_nothing_after_their_task():
    """Groups that fail over and over, on threads that go on with other work."""
    before = threading.active_count()
    with oxgang.Executor("thread", 4) as executor:
        for _ in range(200):
            with pytest.raises(ExceptionGroup), oxgang.TaskGroup(executor=executor) as group:
                for number in range(3):
                    try:
                        group.start(square, number)
                    except RuntimeError:
                        break
                    if number == 1:
                        group.start(fail, "x")
            assert executor.submit(sum, range(100)).result() == 4950
    assert threading.active_count() <= before


def test_a_thread_is_told_while_it_waits_for_the_books():
    """What is raised in it as it gets the group's lock must not leave that taken."""
    go, told = threading.Event(), []

    def task():
        told.append(threading.get_ident())
        go.wait()

    with oxgang.TaskGroup("thread") as group:
        group.start(task)
        while not told:
            time.sleep(0.001)
        with group._changed:  # as any other thread that is in the books
            go.set()
            while sys._current_frames()[told[0]].f_code.co_name not in ("_leave", "__enter__"):
                time.sleep(0.001)
            time.sleep(0.05)  # it is there, and soon waits; if not yet, this test shows nothing
            group.cancel()
    taken = []
    other = threading.Thread(target=lambda: taken.append(group._changed.acquire(False)))
    other.start()
    other.join()
    assert taken == [True]


def test_futures_that_cannot_be_stopped_are_waited_for(caplog):
    """The first failure is told, though stopping the others goes wrong."""

    class Wrapped(oxgang.Executor):
        def submit(self, fn, /, *args, **kwargs):
            future = super().submit(fn, *args, **kwargs)

            def refuse():
                raise NotImplementedError("this one cannot be ended")

            future.terminate = refuse
            return future

    running = threading.Event()
    with Wrapped("process", 2) as executor:
        with pytest.raises(ExceptionGroup) as caught, oxgang.TaskGroup(executor=executor) as group:
            napping = group.start(time.sleep, 1)
            napping.add_done_callback(lambda _: running.set())
            while not napping.running():
                time.sleep(0.001)
            group.start(fail, "x")
        assert running.is_set() and napping.exception() is None
    assert [str(error) for error in caught.value.exceptions] == ["x"]
    assert "this one cannot be ended" in caplog.text


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="deadline"):
        oxgang.TaskGroup(deadline=-1)
    with pytest.raises(ValueError, match="leave the other options out"):
        oxgang.TaskGroup("thread", executor=oxgang.Executor("thread", 1))
    with pytest.raises(TypeError, match="cannot stop tasks of a concurrent"):
        oxgang.TaskGroup(executor=standard.ThreadPoolExecutor(1))
    with pytest.raises(RuntimeError, match="enter"):
        oxgang.TaskGroup().start(square, 1)
    with oxgang.TaskGroup("thread") as group, pytest.raises(RuntimeError, match="once"):
        group.__enter__()
