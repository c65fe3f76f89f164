"""Pools of coroutines, on a loop in a thread or in worker processes."""

import asyncio
import concurrent.futures
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial

import coroutines
import oxgang
import pytest
from oxgang.asyncio import CoroutinePoolExecutor, _service
from oxgang.errors import TaskTerminated, TaskTimeout
from programs import Program

LOOPS = ["asyncio", "uvloop", "rloop"]

pytestmark = pytest.mark.usefixtures("no_complaint")


@pytest.fixture
def pool(shape):
    with CoroutinePoolExecutor(**shape) as pool:
        yield pool


def descriptors():
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


# -- what is called, and what comes back -----------------------------------------------------------


def test_results_and_errors(pool):
    assert pool.submit(coroutines.same, 5).result() == 5
    assert pool.submit(coroutines.nap, seconds=0.001, value=[6]).result() == [6]
    future = pool.submit(coroutines.fail, "so it is")
    with pytest.raises(LookupError, match="so it is"):
        future.result()
    assert isinstance(future, oxgang.concurrent.futures.Future)
    assert isinstance(future, concurrent.futures.Future)
    assert future.done()
    assert not future.cancel()
    assert not future.terminate()


@pytest.mark.parametrize(
    "fn",
    [
        partial(coroutines.same),
        partial(partial(coroutines.nap, 0)),
        coroutines.Asker(0).method,
        coroutines.Asker(0),
        coroutines.same_decorated,
        lambda value: coroutines.same(value),  # noqa: PLW0108 - that is the point
    ],
    ids=["partial", "partials", "method", "object", "decorated", "lambda"],
)
def test_what_gives_a_coroutine(pool, fn):
    assert pool.submit(fn, 4).result() == 4


@pytest.mark.parametrize("fn", [coroutines.plain, partial(coroutines.plain), len, time.sleep])
def test_plain_functions_are_refused(pool, fn):
    with pytest.raises(TypeError, match=r"is a plain function, .* model='thread'"):
        pool.submit(fn, [])


def test_what_turns_out_to_be_plain(pool):
    with pytest.raises(TypeError, match="gave no coroutine but a int; submit an async def"):
        pool.submit(lambda: 3).result()
    with pytest.raises(TypeError, match="needs a coroutine function, not int"):
        pool.submit(3)


@pytest.mark.parametrize("loop", LOOPS)
def test_every_loop(shape, loop):
    with CoroutinePoolExecutor(loop=loop, **shape) as pool:
        assert list(pool.map(coroutines.same, range(200))) == list(range(200))


def test_loops_that_are_not():
    with pytest.raises(ValueError, match="loop must be one of"):
        CoroutinePoolExecutor(loop="trio")


def test_many(pool):
    futures = [pool.submit(coroutines.same, n) for n in range(5000)]
    assert [future.result() for future in futures] == list(range(5000))


def test_standard_wait_and_callbacks(pool):
    futures = [pool.submit(coroutines.nap, 0.001 * n, n) for n in range(20)]
    seen = []
    for future in futures:
        future.add_done_callback(seen.append)
    done, pending = concurrent.futures.wait(futures)
    assert (len(done), pending) == (20, set())
    assert {f.result() for f in concurrent.futures.as_completed(futures)} == set(range(20))
    pool.shutdown()
    assert sorted(map(id, seen)) == sorted(map(id, futures))


def test_exceptions_in_callbacks(pool, caplog):
    def callback(_):
        raise ZeroDivisionError("in a callback")

    go = threading.Event()
    first = pool.submit(coroutines.nap, 0.05)
    first.add_done_callback(callback)
    first.add_done_callback(lambda _: go.set())
    assert go.wait()
    assert pool.submit(coroutines.same, 1).result() == 1
    assert "calling callback" in caplog.text


def test_awaited_in_another_loop(pool):
    async def main():
        futures = [pool.submit(coroutines.same, n) for n in range(100)]
        assert await asyncio.gather(*futures) == list(range(100))
        with pytest.raises(LookupError):
            await pool.submit(coroutines.fail, "there")
        async with asyncio.timeout(60):
            return await pool.submit(coroutines.nap, 0.01, "end")

    assert asyncio.run(main()) == "end"


def test_a_pool_within_a_pool():
    async def outer(inner, number):
        return await inner.submit(coroutines.same, number)

    with CoroutinePoolExecutor() as inner, CoroutinePoolExecutor() as pool:
        futures = [pool.submit(outer, inner, n) for n in range(100)]
        assert [future.result() for future in futures] == list(range(100))


def test_context_variables():
    with CoroutinePoolExecutor(1) as pool:
        token = coroutines.VARIABLE.set("mine")
        future = pool.submit(coroutines.variable, "theirs")
        coroutines.VARIABLE.reset(token)
        assert future.result() == "mine"
        assert pool.submit(coroutines.variable, "theirs").result() == "nothing"
    assert coroutines.VARIABLE.get() == "nothing"
    with oxgang.Executor("coroutine", context=False) as pool:
        coroutines.VARIABLE.set("mine")
        assert pool.submit(coroutines.variable, "theirs").result() == "nothing"


# -- how many at once ---------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [{}, {"processes": 1}], ids=["thread", "processes"])
def test_so_many_in_flight(shape, tmp_path):
    with CoroutinePoolExecutor(2, **shape) as pool:
        one = pool.submit(coroutines.meet, tmp_path, "1", "2")
        two = pool.submit(coroutines.meet, tmp_path, "2", "3")
        three = pool.submit(coroutines.meet, tmp_path, "3", "1")
        one.result()  # it needs the second, but not the third, which waits for a place
        assert [future.result() for future in (two, three)] == [one.result()] * 2


def test_the_rest_waits_in_order(shape):
    seen = []
    with CoroutinePoolExecutor(1, **{name: 1 for name in shape}) as pool:
        for n in range(100):
            future = pool.submit(coroutines.nap, 0.0005 * (n % 3), n)
            future.add_done_callback(lambda future: seen.append(future.result()))
    assert seen == list(range(100))


def test_ten_thousand_sleeps(shape):
    with CoroutinePoolExecutor(10_000, **shape) as pool:
        futures = [pool.submit(coroutines.nap, 0.1 + n % 10 / 10, n) for n in range(10_000)]
        assert sum(future.result() for future in futures) == sum(range(10_000))


# -- cancellation, termination, limits ---------------------------------------------------------


def test_cancel_what_has_not_begun(shape, tmp_path):
    with CoroutinePoolExecutor(1, **{name: 1 for name in shape}) as pool:
        running = pool.submit(coroutines.meet, tmp_path, "here", "go")
        waiting = pool.submit(coroutines.same, 1)
        while not (tmp_path / "here").exists():
            time.sleep(0.005)
        assert running.running()
        assert not running.cancel()
        assert waiting.cancel()
        (tmp_path / "go").touch()
        running.result()
        concurrent.futures.wait([waiting])
        with pytest.raises(concurrent.futures.CancelledError):
            waiting.result()
        assert pool.submit(coroutines.same, 2).result() == 2


def begun(pool, folder, fn=coroutines.clean_up):
    future = pool.submit(fn, folder)
    while not list(folder.glob("begun-*")):
        time.sleep(0.005)
    return future


def test_terminate(pool, tmp_path):
    future = begun(pool, tmp_path)
    assert future.terminate()
    with pytest.raises(TaskTerminated, match="clean_up was running when it was terminated"):
        future.result()
    assert (tmp_path / "cleaned").exists()
    assert pool.submit(coroutines.same, 1).result() == 1


def test_terminate_what_answers(pool, tmp_path):
    future = begun(pool, tmp_path, coroutines.answer_late)
    future.terminate()
    assert future.result() == "answered"


def test_a_cancelled_wait_terminates_if_asked(pool, tmp_path):
    async def main():
        future = pool.submit(coroutines.clean_up, tmp_path)
        while not list(tmp_path.glob("begun-*")):
            await asyncio.sleep(0.005)
        task = asyncio.ensure_future(asyncio.wait_for(future.terminating(), 0.05))
        with pytest.raises(TimeoutError):
            await task
        with pytest.raises(TaskTerminated):
            await future

    asyncio.run(main())
    assert (tmp_path / "cleaned").exists()


def test_a_cancelled_wait_leaves_what_runs(pool, tmp_path):
    async def main():
        future = pool.submit(coroutines.meet, tmp_path, "here", "go")
        while not (tmp_path / "here").exists():
            await asyncio.sleep(0.005)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(future, 0.05)
        (tmp_path / "go").touch()
        return await future

    assert asyncio.run(main())


def test_a_coroutine_that_cancels_itself(pool):
    with pytest.raises(asyncio.CancelledError):
        pool.submit(coroutines.cancel_self).result()
    assert pool.submit(coroutines.same, 1).result() == 1


def test_time_limit(pool):
    options = oxgang.TaskOptions(0.1)
    future = pool.submit_with(options, coroutines.nap, 60)
    with pytest.raises(TaskTimeout, match=r"has reached its time limit of 0.1 s") as caught:
        future.result()
    assert caught.value.limit == 0.1
    assert "in nap" in caught.value.stack
    assert pool.submit_with(options, coroutines.answer_late).result() == "answered"
    assert pool.submit_with(oxgang.TaskOptions(60), coroutines.same, 1).result() == 1


def test_a_coroutine_that_takes_no_notice(shape):
    with CoroutinePoolExecutor(1, task_timeout=0.1, timeout_grace=0.1, **shape) as pool:
        future = pool.submit(coroutines.go_on_regardless, 1.0)
        with pytest.raises(TaskTimeout, match=r"did not stop within 0.1 s more: it goes on"):
            future.result()
        assert pool.submit(coroutines.same, 2).result() == 2  # its place is free


def test_retries(pool, tmp_path):
    options = oxgang.TaskOptions(retries=2, retry_on=ConnectionError)
    future = pool.submit_with(options, coroutines.count_and_fail, tmp_path / "a", 2)
    assert future.result() == 3
    with pytest.raises(ConnectionError, match="try 3"):
        pool.submit_with(options, coroutines.count_and_fail, tmp_path / "b", 3).result()
    with pytest.raises(LookupError):
        pool.submit_with(options, coroutines.fail, "another").result()


def test_memory_limits():
    with pytest.raises(ValueError, match="give it together with processes="):
        oxgang.Executor("coroutine", memory_limit="1GiB")
    with (
        CoroutinePoolExecutor() as pool,
        pytest.raises(ValueError, match="coroutines share theirs"),
    ):
        pool.submit_with(oxgang.TaskOptions(memory_limit=1 << 30), coroutines.same, 1)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_ends_of_programs_are_tasks_errors(shape, kind, loop):
    with CoroutinePoolExecutor(loop=loop, **shape) as pool:
        others = [pool.submit(coroutines.nap, 0.001 * n, n) for n in range(100)]
        with pytest.raises(kind):
            pool.submit(coroutines.raise_it, kind("of the task")).result()
        assert pool.submit(coroutines.raise_in_a_task, kind("of a task's")).result() == "went on"
        assert pool.submit(coroutines.same, 1).result() == 1
        assert [future.result() for future in others] == list(range(100))


# -- the start and the end ------------------------------------------------------------------------


@pytest.mark.parametrize("set_up", [coroutines.set_up, coroutines.set_up_plainly])
def test_initializer(shape, set_up):
    with CoroutinePoolExecutor(initializer=set_up, initargs=("done",), **shape) as pool:
        assert pool.submit(coroutines.setting).result() == ("done", True, True)


def test_an_initializer_that_fails(shape, caplog):
    pool = CoroutinePoolExecutor(initializer=coroutines.fail_to_set_up, **shape)
    future = pool.submit(coroutines.same, 1)
    with pytest.raises(concurrent.futures.BrokenExecutor, match=r"initializer .* failed"):
        future.result()
    pool.shutdown()
    with pytest.raises(concurrent.futures.BrokenExecutor, match=r"initializer .* failed"):
        pool.submit(coroutines.same, 1)


def test_shutdown_waits(shape):
    pool = CoroutinePoolExecutor(**shape)
    futures = [pool.submit(coroutines.nap, 0.1, n) for n in range(10)]
    pool.shutdown()
    assert all(future.done() for future in futures)
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        pool.submit(coroutines.same, 1)
    pool.shutdown()


def test_shutdown_of_what_never_began(shape):
    CoroutinePoolExecutor(**shape).shutdown()


def test_shutdown_that_cancels(shape, tmp_path):
    pool = CoroutinePoolExecutor(1, **{name: 1 for name in shape})
    running = pool.submit(coroutines.meet, tmp_path, "here", "go")
    while not (tmp_path / "here").exists():
        time.sleep(0.005)
    waiting = [pool.submit(coroutines.same, n) for n in range(100)]
    pool.shutdown(wait=False, cancel_futures=True)
    concurrent.futures.wait(waiting)
    assert all(future.cancelled() for future in waiting)
    (tmp_path / "go").touch()
    assert running.result()
    pool.shutdown()


def test_what_fails_after_a_shutdown_that_cancels_is_not_tried_again(shape, tmp_path):
    options = {"retries": 10**6, "retry_on": ConnectionError}
    pool = CoroutinePoolExecutor(1, **options, **{name: 1 for name in shape})
    future = pool.submit(coroutines.meet_and_fail, tmp_path, "here", "go")
    while not (tmp_path / "here").exists():
        time.sleep(0.005)
    pool.shutdown(wait=False, cancel_futures=True)
    (tmp_path / "go").touch()
    pool.shutdown()
    assert type(future.exception(timeout=0)) is ConnectionError
    assert (tmp_path / "calls").stat().st_size == 1


def test_kill_workers(shape, tmp_path):
    pool = CoroutinePoolExecutor(1, **{name: 1 for name in shape})
    running = begun(pool, tmp_path)
    waiting = pool.submit(coroutines.same, 1)
    pool.kill_workers()
    for future in (running, waiting):
        concurrent.futures.wait([future])
        assert future.cancelled() or isinstance(
            future.exception(), concurrent.futures.BrokenExecutor
        )
    pool.shutdown()


def test_to_wait_for_the_end_is_to_sleep():
    """How often this thread wakes up does not depend on how long it waits."""
    pool = CoroutinePoolExecutor()
    pool.submit(asyncio.sleep, 1.0)
    before = woken()
    pool.shutdown()
    assert woken() - before < 6


def woken():
    with open(f"/proc/self/task/{threading.get_native_id()}/status") as status:
        line = next(line for line in status if line.startswith("voluntary"))
    return int(line.split()[1])


def test_who_waits_for_a_loop_that_is_blocked_is_let_go_by_a_kill(monkeypatch):
    monkeypatch.setattr(_service, "_LAST_WAIT_S", 0.1)
    begun, go = threading.Event(), threading.Event()

    async def blocks():
        begun.set()
        go.wait()

    pool = CoroutinePoolExecutor()
    future = pool.submit(blocks)
    waiting = [threading.Thread(target=pool.shutdown) for _ in range(3)]
    try:
        begun.wait()
        for thread in waiting:
            thread.start()
        pool.kill_workers()
        for thread in waiting:
            thread.join()
        assert not go.is_set()
        with pytest.raises(concurrent.futures.BrokenExecutor, match="blocks it"):
            future.result()
    finally:
        go.set()
    threading.Thread.join(pool._service.thread)


def test_shut_down_by_its_own_coroutine():
    with CoroutinePoolExecutor() as pool:

        async def end():
            pool.shutdown()
            return "went on"

        assert pool.submit(end).result() == "went on"


def test_an_abandoned_pool_ends(shape):
    pool = CoroutinePoolExecutor(**shape)
    future = pool.submit(coroutines.nap, 0.05, 1)
    thread = pool._service.thread
    del pool
    gc.collect()
    thread.join()
    assert future.result() == 1


def test_background_tasks_are_cancelled_at_the_end(tmp_path):
    async def begin():
        begin.task = asyncio.ensure_future(coroutines.clean_up(tmp_path))
        await asyncio.sleep(0.05)

    with CoroutinePoolExecutor() as pool:
        pool.submit(begin).result()
    assert (tmp_path / "cleaned").exists()


def test_nothing_leaks(shape):
    def use():
        with CoroutinePoolExecutor(**shape) as pool:
            futures = [pool.submit(coroutines.same, n) for n in range(20)]
            futures[0].result()

    use()
    before, threads = descriptors(), threading.active_count()
    for _ in range(3):
        use()
    assert (descriptors(), threading.active_count()) == (before, threads)


def test_two_at_once(shape):
    with CoroutinePoolExecutor(**shape) as one, CoroutinePoolExecutor(**shape) as other:
        futures = [pool.submit(coroutines.nap, 0.01, n) for n in range(50) for pool in (one, other)]
        assert [f.result() for f in futures] == [n for n in range(50) for _ in range(2)]


def test_in_a_fork(shape):
    code = f"""
import os, sys
sys.path.insert(0, {os.path.dirname(__file__)!r})
import coroutines
from oxgang.asyncio import CoroutinePoolExecutor

pool = CoroutinePoolExecutor(**{shape!r})
pool.submit(coroutines.same, 1).result()
pid = os.fork()
if pid == 0:
    code = 1
    try:
        pool.submit(coroutines.same, 2)
    except RuntimeError as error:
        code = 0 if "was forked from" in str(error) else 2
    pool.shutdown()
    with CoroutinePoolExecutor(**{shape!r}) as own:
        code += own.submit(coroutines.same, 3).result() - 3
    os._exit(code)
assert os.waitpid(pid, 0)[1] == 0
print(pool.submit(coroutines.same, 4).result())
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], check=False, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("4\n", "")


PROGRAM = """
import asyncio, sys, time
from oxgang.asyncio import CoroutinePoolExecutor
import oxgang

async def nap(seconds):
    print("begun", flush=True)
    await asyncio.sleep(seconds)
    print("slept", flush=True)

async def block(seconds):
    print("begun", flush=True)
    time.sleep(seconds)

if __name__ == "__main__":
    shape = eval(sys.argv[1])
    {}
"""


def program(tmp_path, shape, *lines):
    path = tmp_path / "program.py"
    path.write_text(PROGRAM.format("\n    ".join(lines)))
    return Program(tmp_path, path, repr(shape))


def test_the_end_of_a_program_waits(shape, tmp_path):
    run = program(tmp_path, shape, "CoroutinePoolExecutor(**shape).submit(nap, 0.2)")
    try:
        run.wait_for_line("slept")
        assert run.end() == (0, "")
        run.assert_nothing_left()
    finally:
        run.destroy()


CTRL_C = {
    "with": ["with CoroutinePoolExecutor(**shape) as pool:", "    pool.submit({}, 60).result()"],
    "plainly": ["pool = CoroutinePoolExecutor(**shape)", "pool.submit({}, 60).result()"],
    "at the end": ["CoroutinePoolExecutor(**shape).submit({}, 60)"],
    "executor": [
        "with oxgang.Executor('coroutine', **shape) as pool:",
        "    pool.submit({}, 60).result()",
    ],
    "map": ["list(oxgang.map({}, [60]))"],
}


@pytest.mark.parametrize("fn", ["nap", "block"])
@pytest.mark.parametrize("where", CTRL_C)
def test_ctrl_c(shape, tmp_path, where, fn):
    run = program(tmp_path, shape, *[line.format(fn) for line in CTRL_C[where]])
    try:
        run.wait_for_line("begun")
        run.wait_until_asleep()
        run.signal_all(signal.SIGINT)
        code, errors = run.end()
        assert code == -signal.SIGINT, errors
        assert "never awaited" not in errors
        assert "destroyed" not in errors
        run.assert_nothing_left()
    finally:
        run.destroy()


@pytest.mark.parametrize("begins", [True, False])
def test_ctrl_c_while_the_thread_begins(monkeypatch, begins):
    start = _service._LoopThread.start

    def interrupted(self):
        if begins:
            start(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(_service._LoopThread, "start", interrupted)
    with CoroutinePoolExecutor() as pool:
        with pytest.raises(KeyboardInterrupt):
            pool.submit(coroutines.same, 1)
        monkeypatch.undo()
        assert pool.submit(coroutines.same, 2).result() == 2
