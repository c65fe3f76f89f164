"""The contract of `concurrent.futures`: one body, on the standard library's and on ours."""

import asyncio
import concurrent.futures as standard
import gc
import multiprocessing
import os
import subprocess
import sys
import threading
import weakref

import calls
import oxgang.concurrent.futures as ours
import pytest

METHODS = ("fork", "spawn", "forkserver")


def _maker(module, kind, method):
    def make(workers=2, **options):
        if kind == "thread":
            return module.ThreadPoolExecutor(workers, **options)
        if method:
            options["mp_context"] = multiprocessing.get_context(method)
        return module.ProcessPoolExecutor(workers, **options)

    return make


CASES = {
    "standard-thread": _maker(standard, "thread", None),
    "standard-process": _maker(standard, "process", None),
    "oxgang-thread": _maker(ours, "thread", None),
    "oxgang-template": _maker(ours, "process", None),
    **{f"oxgang-{method}": _maker(ours, "process", method) for method in METHODS},
}


@pytest.fixture(params=CASES)
def make(request):
    made = []

    def one(*args, **options):
        made.append(CASES[request.param](*args, **options))
        return made[-1]

    one.name = request.param
    yield one
    for pool in made:
        pool.shutdown()


@pytest.fixture
def pool(make):
    return make()


def test_threads_are_counted_as_they_are_started_and_calls_as_they_are_answered():
    pool = ours.ThreadPoolExecutor(3, retries=2, retry_on=LookupError)
    pool._start_all()
    assert pool._queue.counters() == {"started": 3, "answered": 0}
    assert pool.submit(calls.same, 5).result() == 5
    with pytest.raises(LookupError):
        pool.submit(calls.fail, "three times").result()
    gate = threading.Event()
    busy = [pool.submit(gate.wait) for _ in range(3)]
    assert pool.submit(calls.same, 6).cancel()
    gate.set()
    standard.wait(busy)
    pool.shutdown()
    assert pool._queue.counters() == {"started": 3, "answered": 5}


def test_a_thread_that_cannot_be_started_is_not_counted(monkeypatch):
    def refuse(_):
        raise RuntimeError("can't start new thread")

    with ours.ThreadPoolExecutor(3) as pool:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            for _ in range(2):
                with pytest.raises(RuntimeError, match="can't start"):
                    pool._start_all()
        assert pool._queue.counters()["started"] == 0
        pool._start_all()
        assert pool._queue.counters()["started"] == 3


def test_the_collector_may_run_while_a_future_is_asked_for_its_waiters():
    """And what it collects may ask the same future for them."""

    class Curious:
        def __del__(self):
            seen.append(future._waiters)

    future, seen = ours.Future(), []
    before = gc.get_threshold()
    gc.disable()
    try:
        cycle = [Curious()]
        cycle.append(cycle)
        del cycle
        kept = [[] for _ in range(200)]  # so that none is there to be used again
        gc.set_threshold(1)
        gc.enable()
        waiters = future._waiters
    finally:
        gc.set_threshold(*before)
        gc.enable()
    gc.collect()
    assert len(kept) == 200 and len(seen) == 1 and seen[0] is waiters


def test_results_and_keywords(pool):
    assert pool.submit(calls.same, 5).result() == 5
    future = pool.submit(calls.keywords, 1, None, self=2, fn="three")
    assert future.result() == ((1, None), {"self": 2, "fn": "three"})
    with pytest.raises(TypeError):
        pool.submit()


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        -1,
        2**31,
        2**63,
        -(2**200),
        0.1,
        float("inf"),
        "text \u00e9\u4e2d \U0001f402",
        "\ud800",
        b"\x00\xff",
        bytearray(b"ab"),
        (),
        ((1, (2,)), [3, {"k": [4]}], {5: 6, (7,): "8"}),
        {1, 2},
        range(3),
        1 + 2j,
        ["x" * 100_000, b"y" * 300_000],
        list(range(10_000)),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_values_come_back_as_they_went(pool, value):
    back = pool.submit(calls.same, value).result()
    assert back == value
    assert type(back) is type(value)


def test_shared_and_cyclic_structures_keep_their_shape(pool):
    inner = [1]
    first, second = pool.submit(calls.same, [inner, inner]).result()
    assert first is second
    inner.append(inner)
    back = pool.submit(calls.same, inner).result()
    assert back[1] is back


def test_subclasses_of_plain_types_stay_themselves(pool):
    answer = pool.submit(calls.same, [calls.signal.SIGKILL, True]).result()
    assert type(answer[0]) is calls.signal.Signals
    assert answer[1] is True


def test_a_failure_reaches_the_caller(pool, make):
    future = pool.submit(calls.fail, "here")
    with pytest.raises(LookupError, match="here") as caught:
        future.result()
    assert future.exception() is caught.value
    if "thread" not in make.name:
        cause = str(caught.value.__cause__)
        assert "calls.py" in cause
        assert "raise LookupError(text)" in cause


def test_callbacks_are_called_once_each(pool):
    seen, both = [], threading.Event()
    future = pool.submit(calls.nap, 0.05)
    future.add_done_callback(lambda one: seen.append(("early", one.result())))
    assert future.result() == 0.05
    future.add_done_callback(lambda one: both.set())
    assert both.wait(30)
    for _ in range(1000):
        if seen:
            break
        threading.Event().wait(0.01)
    assert seen == [("early", 0.05)]


def test_wait_and_as_completed_of_both_kinds(pool):
    fast, slow = pool.submit(calls.same, 1), pool.submit(calls.nap, 0.3)
    for module in (standard, ours):
        done, _ = module.wait([fast, slow], return_when=module.FIRST_COMPLETED)
        assert fast in done
        assert set(module.as_completed([fast, slow])) == {fast, slow}
        assert module.wait([fast, slow]) == ({fast, slow}, set())


def test_a_wait_can_time_out(pool):
    future = pool.submit(calls.nap, 0.5)
    with pytest.raises(TimeoutError):
        future.result(timeout=0.01)
    assert future.result(timeout=60) == 0.5


def test_what_has_not_begun_can_be_cancelled(make):
    pool = make(1)
    first = pool.submit(calls.nap, 0.3)
    rest = [pool.submit(calls.nap, 0.01) for _ in range(20)]
    last = rest[-1]
    assert last.cancel()
    assert last.cancelled() and last.done() and not last.running()
    with pytest.raises(standard.CancelledError):
        last.result()
    assert first.result() == 0.3
    assert [one.result() for one in rest[:-1]] == [0.01] * 19
    assert not first.cancel()


def test_map_keeps_the_order_and_raises_in_turn(pool):
    assert list(pool.map(calls.same, range(100))) == list(range(100))
    assert list(pool.map(pow, range(5), range(9))) == [1, 1, 4, 27, 256]
    results = pool.map(divmod, [4, 4, 4], [2, 0, 1])
    assert next(results) == (2, 0)
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_a_map_that_is_given_up_cancels_the_rest(make, tmp_path):
    pool = make(1)
    ran = tmp_path / "ran"
    results = pool.map(calls.append_to, [ran] * 50, range(50), [0.02] * 50)
    assert next(results) == 0
    results.close()
    assert pool.submit(calls.append_to, ran, "after").result() == "after"
    assert len(ran.read_text().split()) < 50
    late = pool.map(calls.nap, [0.3, 0.3], timeout=0.05)
    with pytest.raises(TimeoutError):
        next(late)
    assert list(pool.map(calls.same, "abc")) == ["a", "b", "c"]


def test_initializers_run_in_every_worker(make):
    pool = make(2, initializer=calls.set_up, initargs=("ready",))
    answers = [pool.submit(calls.setting) for _ in range(8)]
    assert {one.result() for one in answers} == {"ready"}


def test_a_failing_initializer_breaks_the_pool(make):
    pool = make(1, initializer=calls.fail_to_set_up)
    future = pool.submit(calls.same, 1)
    with pytest.raises(standard.BrokenExecutor):
        future.result()
    with pytest.raises(standard.BrokenExecutor):
        for _ in range(1000):  # from some moment on
            pool.submit(calls.same, 1)
            threading.Event().wait(0.01)


def test_shutdown_finishes_what_was_submitted(make):
    pool = make(2)
    futures = [pool.submit(calls.nap, 0.02) for _ in range(10)]
    pool.shutdown()
    assert [one.result(timeout=0) for one in futures] == [0.02] * 10
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        pool.submit(calls.same, 1)
    pool.shutdown()


def test_an_executor_that_is_garbage_finishes_its_work(make):
    pool = CASES[make.name]()
    futures = [pool.submit(calls.nap, 0.02) for _ in range(6)]
    gone = weakref.ref(pool)
    del pool
    gc.collect()
    assert gone() is None
    assert [one.result(timeout=60) for one in futures] == [0.02] * 6


def test_results_are_not_kept_by_the_map(make):
    pool = make()
    for one in pool.map(calls.keywords, range(5)):
        assert one  # a tuple: cannot be watched weakly, its future can
    future = pool.submit(calls.same, {1})
    watched = weakref.ref(future)
    future.result()
    del future
    gc.collect()
    assert watched() is None


def test_arguments_are_free_when_the_call_is_done(make):
    if make.name == "standard-process":
        return  # its feeder thread keeps the last call until there is another
    pool = make()

    class Value:
        def method(self):
            return 1

    # a bound method of a class that cannot be pickled is refused by process pools: in its
    # future, not at submit
    value = Value()
    watched = weakref.ref(value)
    future = pool.submit(value.method)
    del value
    future.exception()
    del future
    gc.collect()
    assert watched() is None


def test_asyncio_takes_the_futures(pool):
    async def main():
        loop = asyncio.get_running_loop()
        direct = loop.run_in_executor(pool, calls.same, 1)
        wrapped = asyncio.wrap_future(pool.submit(calls.nap, 0.05))
        failed = asyncio.wrap_future(pool.submit(calls.fail, "x"))
        many = [loop.run_in_executor(pool, calls.same, i) for i in range(50)]
        assert await direct == 1
        assert await wrapped == 0.05
        with pytest.raises(LookupError):
            await failed
        assert await asyncio.gather(*many) == list(range(50))

    asyncio.run(main())


def test_many_threads_submit_and_wait(pool):
    wrong = []

    def work(base):
        futures = [pool.submit(calls.same, base + i) for i in range(200)]
        if [one.result() for one in futures] != list(range(base, base + 200)):
            wrong.append(base)

    threads = [threading.Thread(target=work, args=(i * 1000,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_arguments_of_constructors_are_checked(make):
    for workers in (0, -1):
        with pytest.raises(ValueError, match="max_workers must be greater than 0"):
            make(workers)
    with pytest.raises(TypeError, match="initializer must be a callable"):
        make(1, initializer="no")


# -- ours alone ---------------------------------------------------------------------------


@pytest.fixture(params=[name for name in CASES if name.startswith("oxgang")])
def our_pool(request):
    with CASES[request.param]() as pool:
        yield pool


def test_types_are_the_standard_ones(our_pool):
    future = our_pool.submit(calls.same, 1)
    assert isinstance(our_pool, standard.Executor)
    assert isinstance(future, standard.Future)
    assert ours.CancelledError is standard.CancelledError
    assert ours.wait is standard.wait
    assert ours.thread.BrokenThreadPool is standard.thread.BrokenThreadPool
    assert ours.process.BrokenProcessPool is standard.process.BrokenProcessPool
    future.result()
    assert "state=finished returned int" in repr(future)


def test_map_with_a_buffer_reads_only_so_far(our_pool):
    read = []

    def inputs():
        for number in range(1000):
            read.append(number)
            yield number

    results = our_pool.map(calls.same, inputs(), buffersize=5)
    assert next(results) == 0
    assert len(read) <= 6
    assert [next(results) for _ in range(10)] == list(range(1, 11))
    assert len(read) <= 16
    for wrong, error in ((0, ValueError), (1.5, TypeError)):
        with pytest.raises(error, match="buffersize"):
            our_pool.map(calls.same, [], buffersize=wrong)


@pytest.mark.parametrize("name", ["oxgang-template", "oxgang-spawn", "oxgang-forkserver"])
def test_workers_are_replaced_after_so_many_tasks(name):
    with CASES[name](1, max_tasks_per_child=3) as pool:
        pids = [pool.submit(calls.pid).result() for _ in range(9)]
    assert [pids.count(one) for one in dict.fromkeys(pids)] == [3, 3, 3]


def test_max_tasks_per_child_is_checked():
    context = multiprocessing.get_context("fork")
    with pytest.raises(ValueError, match="fork"):
        ours.ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=3)
    with pytest.raises(ValueError):
        ours.ProcessPoolExecutor(1, max_tasks_per_child=0)
    with pytest.raises(TypeError):
        ours.ProcessPoolExecutor(1, max_tasks_per_child=1.5)


def test_a_worker_of_the_template_is_like_its_owner(tmp_path, monkeypatch):
    with ours.ProcessPoolExecutor(1) as pool:
        pool.submit(calls.same, 1).result()  # the template is there now
    monkeypatch.setenv("OXGANG_TEST", "later")
    monkeypatch.chdir(tmp_path)
    with ours.ProcessPoolExecutor(1) as pool:
        assert pool.submit(calls.environment, "OXGANG_TEST").result() == ("later", str(tmp_path))
        name, has_parent = pool.submit(calls.in_worker).result()
        assert has_parent
        assert name.startswith("ProcessPoolExecutor")


def test_large_data_crosses_both_ways_again_and_again(our_pool):
    for count in (70_000, 1 << 20, 20 << 20):
        data = os.urandom(1024) * (count // 1024)
        for _ in range(3):
            assert our_pool.submit(calls.same, data).result() == data
    futures = [our_pool.submit(calls.make_bytes, 3 << 20) for _ in range(20)]
    assert {len(one.result()) for one in futures} == {3 << 20}


def test_a_task_behind_a_long_one_moves_to_an_idle_worker():
    with ours.ProcessPoolExecutor(2) as pool:
        list(pool.map(calls.same, range(2000)))  # both are up, and tasks are thought to be short
        long = pool.submit(calls.nap, 5)
        short = [pool.submit(calls.same, i) for i in range(200)]
        assert [one.result() for one in short] == list(range(200))
        assert not long.done()


def test_statistics_count():
    with ours.ProcessPoolExecutor(2) as pool:
        list(pool.map(calls.same, range(10)))
        counts = pool.statistics()
    assert counts["submitted"] == counts["answered"] == 10
    assert counts["lost"] == counts["crashed"] == 0
    assert 1 <= len(counts["workers"]) <= 2
    assert all(one["pid"] for one in counts["workers"] if one["ready"])


def test_the_executor_is_not_for_forks():
    with ours.ProcessPoolExecutor(1) as pool:
        future = pool.submit(calls.nap, 0.2)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                pool.submit(calls.same, 1)
            except RuntimeError as error:
                code = 0 if "forked from" in str(error) else 2
            # asks for no lock, which a thread of the parent may have had
            counts = pool.statistics()
            os._exit(3 if counts["submitted"] or counts["workers"] else code)
        assert os.waitpid(child, 0)[1] == 0
        assert future.result() == 0.2


LONG_PATH = """
import sys
from oxgang.concurrent.futures import ProcessPoolExecutor
sys.path += [f"/nonexistent/{number:05d}" + "x" * 80 for number in range(COUNT)]
with ProcessPoolExecutor(1) as pool:
    assert pool.submit(lambda: sys.path).result() == sys.path
"""


@pytest.mark.parametrize("count", [700, 5000])  # more than a packet, and than a link holds
def test_the_template_gets_a_path_of_any_length(count):
    program = LONG_PATH.replace("COUNT", str(count))
    subprocess.run([sys.executable, "-c", program], timeout=50, check=True)


NO_TEMPLATE = """
import os
from oxgang import _core
line = _core.Lifeline()
try:
    _core.Template(["/bin/true"], b"x" * 1_000_000, line)
except OSError:
    pass
else:
    raise SystemExit("who has ended cannot have been met")
try:
    raise SystemExit(os.waitpid(-1, os.WNOHANG))
except ChildProcessError:
    print("fine")
"""


def test_a_template_that_does_not_come_up_leaves_no_process():
    program = [sys.executable, "-c", NO_TEMPLATE]
    done = subprocess.run(program, capture_output=True, text=True, timeout=50, check=False)
    assert (done.stdout, done.returncode) == ("fine\n", 0), done.stderr


HOOK = """
import os, signal
pools = []
def a_pool_of_its_own():
    from oxgang.concurrent.futures import ProcessPoolExecutor
    pools.append(ProcessPoolExecutor(1))
os.register_at_fork(after_in_child=a_pool_of_its_own)  # before any hook of ours
import {imports}
child = os.fork()
if child == 0:
    signal.alarm(30)
    os._exit(pools[0].submit(abs, -5).result())
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 5, status
"""


@pytest.mark.parametrize(
    "imports", ["oxgang.threading", "oxgang.asyncio, oxgang.multiprocessing.synchronize"]
)
def test_a_pool_made_by_a_fork_hook_is_the_childs(imports):
    program = [sys.executable, "-W", "ignore", "-c", HOOK.format(imports=imports)]
    subprocess.run(program, timeout=50, check=True)


def test_wait_waits_for_all_whenever_they_are_done():
    """Futures become done while `wait` looks at them: each counts once."""
    with ours.ProcessPoolExecutor(2) as pool:
        futures = []
        for round_ in range(100):
            futures += [pool.submit(calls.same, number) for number in range(20)]
            recent = futures[-60:] if round_ % 2 else futures
            assert standard.wait(recent).not_done == set()
            first = standard.wait(futures[-20:], return_when=standard.FIRST_COMPLETED)
            assert first.done
            assert len(list(standard.as_completed(recent))) == len(recent)
