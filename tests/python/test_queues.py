"""Queues between processes: as the standard ones, and what they survive."""

import multiprocessing as standard
import os
import pickle
import queue as queue_module
import select
import signal
import sys
import threading
import time
from multiprocessing import connection as standard_connection
from multiprocessing import queues as standard_queues

import oxgang.multiprocessing as ours
import pytest
import queueing
from oxgang.concurrent.futures import ProcessPoolExecutor
from oxgang.errors import ShutDown
from oxgang.multiprocessing import connection, queues

METHODS = ["fork", "spawn", "forkserver"]


@pytest.fixture(params=[standard, ours], ids=["standard", "oxgang"])
def module(request):
    return request.param


@pytest.fixture(params=METHODS)
def context(request):
    return ours.get_context(request.param)


class Child:
    """A process that is killed, at the latest, when the test is over."""

    def __init__(self, context, target, *arguments):
        self.process = context.Process(target=target, args=arguments)
        self.process.start()

    def __enter__(self):
        return self.process

    def __exit__(self, *_error):
        self.process.kill()
        self.process.join()
        self.process.close()


def all_of(queue):
    items = []
    while not queue.empty():
        items.append(queue.get())
    return items


def closed(queue):
    queue.close()
    if hasattr(queue, "join_thread"):
        queue.join_thread()


# -- as the standard ones ------------------------------------------------------------------------

VALUES = [
    None,
    True,
    -5,
    2**80,
    1.5,
    "text",
    "\ud800",
    b"bytes",
    bytearray(b"array"),
    (1, (2, 3)),
    [1, [2]],
    {"a": {"b": 1}},
    {1, 2},
    range(3),
    b"x" * 100_000,
    ["y" * 70_000, b"z" * 70_000, bytearray(70_000)],
    ValueError("x").args,
]


def test_everything_comes_out_as_it_went_in(module):
    queue = module.Queue()
    for value in VALUES:
        queue.put(value)
        back = queue.get(timeout=30)
        assert back == value
        assert type(back) is type(value)
    closed(queue)


def test_first_in_first_out_and_counts(module):
    queue = module.Queue(3)
    for number in range(3):
        queue.put(number)
    assert queue.full()
    assert queue.qsize() == 3
    with pytest.raises(queue_module.Full):
        queue.put(3, False)
    with pytest.raises(queue_module.Full):
        queue.put_nowait(3)
    began = time.monotonic()
    with pytest.raises(queue_module.Full):
        queue.put(3, True, 0.05)
    assert time.monotonic() - began >= 0.05
    assert [queue.get(timeout=30) for _ in range(3)] == [0, 1, 2]
    began = time.monotonic()
    with pytest.raises(queue_module.Empty):
        queue.get(timeout=0.05)
    assert time.monotonic() - began >= 0.05
    with pytest.raises(queue_module.Empty):
        queue.get(False)
    with pytest.raises(queue_module.Empty):
        queue.get_nowait()
    assert queue.empty()
    closed(queue)


def test_a_closed_queue_refuses(module):
    queue = module.Queue()
    queue.close()
    with pytest.raises(ValueError, match="is closed"):
        queue.put(1)
    with pytest.raises(ValueError, match="is closed"):
        queue.get()
    queue.join_thread()
    queue.cancel_join_thread()


def test_join_thread_wants_a_closed_queue(module):
    queue = module.Queue()
    with pytest.raises(AssertionError):
        queue.join_thread()
    closed(queue)


def test_a_joinable_queue(module):
    queue = module.JoinableQueue()
    with pytest.raises(ValueError, match="too many times"):
        queue.task_done()
    queue.join()
    for number in range(4):
        queue.put(number)
    context = module.get_context("fork")
    with Child(context, queueing.work_and_report, queue, 4):
        queue.join()
    with pytest.raises(ValueError, match="too many times"):
        queue.task_done()
    closed(queue)


def test_a_simple_queue(module):
    queue = module.SimpleQueue()
    assert queue.empty()
    queue.put([1, 2])
    queue.put("x")
    assert not queue.empty()
    assert queue.get() == [1, 2]
    assert queue.get() == "x"
    queue.close()
    queue.close()
    assert queue._reader.closed
    for call in (queue.get, queue.empty, lambda: queue.put(1)):
        with pytest.raises(OSError, match="closed"):
            call()


def test_whether_a_closed_queue_is_empty(module):
    for queue in (module.Queue(), module.JoinableQueue()):
        queue.close()
        queue.join_thread()
        assert queue.empty()
    for queue in (module.Queue(), module.JoinableQueue()):
        queue.put(1)
        closed(queue)
        with pytest.raises(OSError, match="is closed"):
            queue.empty()


def test_many_put_and_many_take(module):
    context = module.get_context("fork")
    queue, results = context.Queue(50), context.Queue()
    each, names = 300, range(3)
    takers = [Child(context, queueing.take_until_none, queue, results) for _ in range(2)]
    putters = [Child(context, queueing.put_marked, queue, name, each) for name in names]
    seen = [results.get(timeout=50) for _ in range(each * len(names))]
    for _taker in takers:
        queue.put(None)
    for child in takers + putters:
        with child as process:
            process.join()
            assert process.exitcode == 0
    expected = [
        (name, number, b"x" * (number * 37 % 3000)) for name in names for number in range(each)
    ]
    assert sorted(seen) == expected
    closed(queue)
    closed(results)


def test_waiting_beside_other_things(module):
    queue, other = module.Queue(), module.Queue()
    wait = connection.wait if module is ours else standard_connection.wait
    assert wait([queue._reader, other._reader], 0) == []
    other.put(1)
    assert wait([queue._reader, reader := other._reader], 30) == [reader]
    readable, _, _ = select.select([queue._reader.fileno(), other._reader.fileno()], [], [], 30)
    assert readable == [other._reader.fileno()]
    assert other.get() == 1
    readable, _, _ = select.select([queue._reader.fileno(), other._reader.fileno()], [], [], 0)
    assert readable == []
    closed(queue)
    closed(other)


def test_subclasses_with_a_state_of_their_own(module):
    context = module.get_context("spawn")
    queue = queueing_subclass(module)("name", context)
    with Child(context, queueing.put_one, queue, "x"):
        assert queue.get(timeout=50) == "x"
    assert queue.name == "name"
    closed(queue)


def queueing_subclass(module):
    return NamedStandard if module is standard else NamedOurs


def named(base):
    class Named(base):
        def __init__(self, name, context):
            super().__init__(5, ctx=context)
            self.name = name

        def __getstate__(self):
            return super().__getstate__(), self.name

        def __setstate__(self, state):
            super().__setstate__(state[0])
            self.name = state[1]

    return Named


NamedStandard = named(standard_queues.Queue)
NamedOurs = named(queues.Queue)
for _cls, _name in ((NamedStandard, "NamedStandard"), (NamedOurs, "NamedOurs")):
    _cls.__name__ = _cls.__qualname__ = _name


def test_an_array_can_be_written_where_it_arrives(module):
    numpy = pytest.importorskip("numpy")
    queue = module.Queue()
    for size in (10, 20_000, 300_000):
        array = numpy.arange(size, dtype="f8").reshape(2, -1)
        for sent in (array, numpy.asfortranarray(array), array[:, ::2]):
            queue.put(sent)
            back = queue.get(timeout=50)
            assert (back == sent).all()
            back[0, 0] = 7
            assert sent[0, 0] == 0
    closed(queue)


# -- what ours adds ------------------------------------------------------------------------------


def test_what_was_put_is_there_at_once():
    queue = ours.Queue()
    for number in range(100):
        queue.put(number)
        assert queue.qsize() == number + 1
        assert not queue.empty()
    assert [queue.get_nowait() for _ in range(100)] == list(range(100))
    assert threading.active_count() == len(threading.enumerate())


def test_no_thread_feeds_it():
    before = threading.active_count()
    queue = ours.Queue()
    queue.put(1)
    assert threading.active_count() == before
    assert queue.get() == 1


@pytest.mark.parametrize("how", ["return", "exit", "kill"])
def test_what_was_put_outlives_who_put_it(context, how):
    queue = context.Queue()
    items = [number if number % 7 else b"z" * 100_000 for number in range(200)]
    with Child(context, queueing.put_and_leave, queue, items, how) as process:
        process.join()  # before anything is taken: nobody has to take it first
        assert process.exitcode == {"return": 0, "exit": 3, "kill": -signal.SIGKILL}[how]
    assert queue.qsize() == len(items)
    assert all_of(queue) == items


@pytest.mark.parametrize("made_by", METHODS)
def test_it_passes_to_children_of_any_start_method(context, made_by):
    queue = ours.get_context(made_by).Queue()
    back = ours.get_context(made_by).SimpleQueue()
    queue.put("before")
    with Child(context, queueing.pass_on, queue, back) as process:
        assert back.get() == "before"
        queue.put("after")
        assert back.get() == "after"
        queue.put(None)
        process.join()
        assert process.exitcode == 0


def test_it_passes_to_workers_that_run():
    with ProcessPoolExecutor(1) as pool:
        pool.submit(os.getpid).result()
        queue = ours.Queue()
        pool.submit(queueing.put_one, queue, ["x"]).result()
        assert queue.get_nowait() == ["x"]
        pool.submit(queueing.put_all, queue, range(3)).result()
        queue.put("y")
        assert pool.submit(queueing.take_one, queue).result() == 0
        waiting = pool.submit(queueing.take_one, ours_queue := ours.Queue())
        ours_queue.put("late")
        assert waiting.result() == "late"


def test_a_queue_through_a_queue():
    outer, inner = ours.Queue(), ours.Queue(5)
    outer.put(inner)
    again = outer.get()
    again.put(1)
    assert inner.get() == 1
    for number in range(5):
        again.put_nowait(number)
    assert again.full() and inner.full()
    assert [inner.get() for _ in range(5)] == list(range(5))
    again.close()
    inner.put(2)  # closing is each handle's own
    assert inner.get() == 2


def test_what_cannot_be_pickled_raises_at_put():
    queue = ours.Queue()
    with pytest.raises((TypeError, pickle.PicklingError)):
        queue.put(threading.Lock())
    assert queue.empty()
    queue.put(lambda x: x + 1)
    assert queue.get()(1) == 2


def test_a_subclass_may_swallow_what_cannot_be_pickled(module):
    queue = {standard: ForgivingStandard, ours: ForgivingOurs}[module](ctx=module.get_context())
    one = Unpicklable()
    queue.put(one)
    queue.put(1)
    assert queue.get(timeout=30) == 1
    assert [(type(error), obj) for error, obj in queue.told] == [(AttributeError, one)]
    closed(queue)


class Unpicklable:
    def __reduce__(self):
        raise AttributeError


def forgiving(base):
    told = []

    class Forgiving(base):
        @staticmethod
        def _on_queue_feeder_error(error, obj):
            told.append((error, obj))

    Forgiving.told = told
    return Forgiving


ForgivingStandard, ForgivingOurs = forgiving(standard_queues.Queue), forgiving(queues.Queue)


def test_what_cannot_be_unpickled_costs_that_item():
    queue = ours.Queue()
    queue.put(Rebellious())
    queue.put(1)
    with pytest.raises(RuntimeError, match="not here"):
        queue.get()
    assert queue.get() == 1


class Rebellious:
    def __reduce__(self):
        return _refuse, ()


def _refuse():
    raise RuntimeError("not here")


def test_no_limit_but_memory():
    queue = ours.Queue()
    block = b"q" * (3 << 20)
    for number in range(40):
        queue.put((number, block))
    assert queue.qsize() == 40
    for number in range(40):
        assert queue.get() == (number, block)


def test_memory_goes_back():
    queue = ours.Queue()
    block = b"q" * (8 << 20)
    for _ in range(8):
        queue.put(block)
    assert _memory_of(queue) >= 8 * len(block)
    while not queue.empty():
        assert queue.get() == block
    for _ in range(10):
        with pytest.raises(queue_module.Empty):
            queue.get(timeout=0.2)  # somebody waits, and nothing comes
    # what is kept warm: 16 megabytes of long items, and the short rings
    assert _memory_of(queue) <= 20 << 20


def _memory_of(queue):
    """Bytes that a queue takes up."""
    (_, descriptor, _), _ = queue._address(True)
    return os.fstat(descriptor).st_blocks * 512


def test_shut_down():
    queue = ours.JoinableQueue()
    queue.put(1)
    queue.put(2)
    queue.shutdown()
    assert queue.is_shutdown
    with pytest.raises(ShutDown):
        queue.put(3)
    assert [queue.get(), queue.get()] == [1, 2]
    with pytest.raises(ShutDown):
        queue.get()
    with pytest.raises(ShutDown):
        queue.get(False)
    queue.task_done()
    queue.task_done()
    queue.join()


def test_shut_down_at_once_lets_everybody_go():
    context = ours.get_context("fork")
    queue, done = context.JoinableQueue(1), threading.Semaphore(0)
    queue.put(1)
    raised = []

    def attempt(call):
        try:
            call()
            raised.append(None)
        except ShutDown:
            raised.append(ShutDown)
        done.release()

    threads = [
        threading.Thread(target=attempt, args=(call,))
        for call in (lambda: queue.put(2), queue.join)
    ]
    for thread in threads:
        thread.start()
    queue.shutdown(immediate=True)
    for thread in threads:
        thread.join()
    assert sorted(raised, key=str) == [ShutDown, None]
    assert queue.qsize() == 0
    with pytest.raises(ShutDown):
        queue.get()


def test_shut_down_wakes_a_process_that_waits(context):
    queue, ready, got = context.Queue(), context.Event(), context.Queue()
    with Child(context, queueing.wait_for_item, queue, ready, got) as process:
        assert ready.wait(50)
        queue.shutdown()
        process.join()
        assert process.exitcode == 1


@pytest.mark.parametrize("size", [3000, 300_000])
@pytest.mark.watchdog(120)
def test_processes_killed_in_the_middle_leave_it_whole(size):
    context = ours.get_context("fork")
    queue = context.Queue(60)
    seed = int(os.environ.get("OXGANG_SEED", time.time_ns() % 1000))
    print("OXGANG_SEED =", seed)
    last = {}

    def check(item):
        pid, number, body = item
        assert number > last.get(pid, -1), "in order"
        last[pid] = number
        assert body == bytes([number % 251]) * (number * 131 % size), "whole"

    for turn in range(25):
        putters = [Child(context, queueing.churn_put, queue, size) for _ in range(2)]
        taker = Child(context, queueing.churn_get, queue)
        for _ in range(20):
            check(queue.get())
        time.sleep((seed * (turn + 3) % 7) / 1000)
        for child in [*putters, taker]:
            with child:
                pass
        # nobody but us: what is counted is there, and nothing blocks
        for _ in range(queue.qsize()):
            check(queue.get_nowait())
        assert queue.empty()
    queue.put((0, 0, b""))
    assert queue.get() == (0, 0, b"")


def test_a_taker_killed_in_its_sleep_takes_nothing_along():
    context = ours.get_context("fork")
    queue, ready, got = context.Queue(), context.Event(), context.Queue()
    for _ in range(5):
        with Child(context, queueing.wait_for_item, queue, ready, got):
            assert ready.wait(30)
            ready.clear()
    queue.put("x")
    assert queue.get(timeout=30) == "x"
    waiting = threading.Thread(target=lambda: got.put(queue.get()))
    waiting.start()
    queue.put("y")
    assert got.get(timeout=30) == "y"
    waiting.join()


def test_ctrl_c_ends_a_wait(module):
    if module is standard:
        pytest.skip("it may miss a Ctrl-C that comes when it is about to sleep")
    queue = module.Queue(1)
    for wait in (queue.get, lambda: (queue.put(1), queue.put(2))):
        timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            timer.start()
            wait()
            time.sleep(50)
        timer.join()
    assert queue.get(timeout=30) == 1
    queue.cancel_join_thread()
    queue.close()


def test_a_handler_that_does_not_raise_does_not_end_a_wait():
    queue, seen = ours.Queue(), []
    before = signal.signal(signal.SIGUSR1, lambda *_: (seen.append(1), queue.put("by handler")))
    try:
        timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR1))
        timer.start()
        assert queue.get() == "by handler"
        timer.join()
        assert seen == [1]
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_threads_and_a_fork_in_the_middle():
    context = ours.get_context("fork")
    queue, stop = context.Queue(), threading.Event()

    def churn():
        while not stop.is_set():
            queue.put(b"x" * 5000)
            queue.get()

    threads = [threading.Thread(target=churn) for _ in range(3)]
    for thread in threads:
        thread.start()
    fresh = context.Queue()
    for number in range(20):
        with Child(context, queueing.put_one, fresh, number) as process:
            assert fresh.get() == number
            process.join()
    stop.set()
    for thread in threads:
        thread.join()
    assert queue.empty()


def test_one_that_was_never_set_up_says_so():
    class Careless(queues.Queue):
        def __init__(self):
            pass

    with pytest.raises(RuntimeError, match="__init__"):
        Careless().put(1)


def test_one_that_cannot_arrive_says_why():
    queue = ours.Queue()
    state = queue.__getstate__()
    ((_, fd, key), doorbell), _ = state
    other = queues.Queue.__new__(queues.Queue)
    with pytest.raises(OSError, match="did not arrive"):
        other.__setstate__((((2**22 - 1, fd, (key[0], 1)), doorbell), None))


@pytest.mark.skipif(sys.version_info < (3, 13), reason="queue.ShutDown is newer")
def test_shut_down_is_the_standard_exception():
    assert ShutDown is queue_module.ShutDown
