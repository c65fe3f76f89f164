"""`oxgang.queue`: as the standard module, native and plain, and across the change."""

import gc
import heapq
import os
import pickle
import queue as standard
import random
import signal
import subprocess
import sys
import time
import weakref

import oxgang.queue as ours
import pytest
from test_threading import Interrupted, Threads

KINDS = ["Queue", "LifoQueue", "PriorityQueue"]
HAVE_SHUTDOWN = hasattr(standard.Queue, "shutdown")


@pytest.fixture(params=[standard, ours], ids=["standard", "oxgang"])
def module(request):
    return request.param


def touched(cls):
    """Queues of a class whose insides somebody has looked at."""

    def make(*arguments):
        queue = cls(*arguments)
        assert queue.mutex.acquire(False)
        queue.mutex.release()
        return queue

    return make


@pytest.fixture(params=["untouched", "touched"])
def make(request, module):
    """Makes queues of a kind."""

    def maker(kind, *arguments):
        cls = getattr(module, kind)
        return (touched(cls) if request.param == "touched" else cls)(*arguments)

    return maker


@pytest.mark.parametrize("kind", KINDS)
def test_order(make, kind):
    queue = make(kind)
    for item in (2, 3, 1):
        queue.put(item)
    assert (queue.qsize(), queue.empty(), queue.full()) == (3, False, False)
    expected = {"Queue": [2, 3, 1], "LifoQueue": [1, 3, 2], "PriorityQueue": [1, 2, 3]}[kind]
    assert [queue.get() for _ in range(3)] == expected
    assert queue.empty()
    with pytest.raises(standard.Empty):
        queue.get_nowait()
    with pytest.raises(standard.Empty):
        queue.get(timeout=0.01)
    with pytest.raises(ValueError, match="non-negative"):
        queue.get(timeout=-1)


@pytest.mark.parametrize("kind", KINDS)
def test_limits(make, kind):
    queue = make(kind, 2)
    assert queue.maxsize == 2
    queue.put(1)
    queue.put(2, False)
    assert queue.full()
    for call in (
        lambda: queue.put(3, False),
        lambda: queue.put_nowait(3),
        lambda: queue.put(3, timeout=0.01),
    ):
        with pytest.raises(standard.Full):
            call()
    with pytest.raises(ValueError, match="non-negative"):
        queue.put(3, timeout=-1)
    got = []
    with Threads(lambda: queue.put(3, timeout=50)) as threads:
        threads.wait_until_asleep()
        got.append(queue.get())
    assert sorted([*got, queue.get(), queue.get()]) == [1, 2, 3]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("timeout", [5, -1])
def test_who_does_not_wait_may_say_how_long(make, kind, timeout):
    """A timeout counts only for who waits."""
    queue = make(kind, 1)
    queue.put(1, False, timeout)
    with pytest.raises(standard.Full):
        queue.put(2, False, timeout)
    assert queue.get(False, timeout) == 1
    with pytest.raises(standard.Empty):
        queue.get(False, timeout)


@pytest.mark.parametrize("size", [0, -1, float("inf"), float("nan"), 2.5, 10**30, -(10**30)])
def test_any_number_may_be_the_limit(module, size):
    queue = module.Queue(size)
    assert queue.maxsize is size
    for number in range(3):
        queue.put(number, False)
    if size == 2.5:
        with pytest.raises(standard.Full):
            queue.put(3, False)
    else:
        queue.put(3, False)


@pytest.mark.parametrize("kind", KINDS)
def test_tasks_are_counted(make, kind):
    queue = make(kind)
    with pytest.raises(ValueError, match="too many times"):
        queue.task_done()
    queue.join()
    done = []

    def consumer():
        while (item := queue.get()) < 100:
            done.append(item)
            queue.task_done()

    with Threads(consumer, consumer):
        for number in range(100):
            queue.put(number)
        queue.join()
        assert len(done) == 100
        queue.put(100)
        queue.put(100)
    assert queue.unfinished_tasks == 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("immediate", [False, True])
def test_shutdown(make, kind, immediate, module):
    if module is standard and not HAVE_SHUTDOWN:
        pytest.skip("the standard queue of this Python has no shutdown")
    raised = module.ShutDown
    queue, ends = make(kind), []
    queue.put(1)
    queue.put(2)

    def joiner():
        queue.join()
        ends.append("joined")

    with Threads(joiner) as threads:
        threads.wait_until_asleep()
        queue.shutdown(immediate)
        assert queue.is_shutdown
        with pytest.raises(raised):
            queue.put(3)
        if not immediate:
            assert sorted([queue.get(), queue.get()]) == [1, 2]
            queue.task_done()
            queue.task_done()
        with pytest.raises(raised):
            queue.get()
        with pytest.raises(raised):
            queue.get(False)
    assert ends == ["joined"]


@pytest.mark.parametrize("kind", KINDS)
def test_shutdown_tells_who_waits(make, kind, module):
    if module is standard and not HAVE_SHUTDOWN:
        pytest.skip("the standard queue of this Python has no shutdown")
    empty, full, ends = make(kind), make(kind, 1), []
    full.put(1)

    def attempt(call):
        def attempted():
            try:
                call()
            except module.ShutDown:
                ends.append(1)

        return attempted

    calls = [empty.get, lambda: empty.get(timeout=50), lambda: full.put(2)]
    with Threads(*map(attempt, calls)) as threads:
        threads.wait_until_asleep()
        empty.shutdown()
        full.shutdown()
    assert len(ends) == 3


def test_shutdown_is_everywhere():
    assert issubclass(ours.ShutDown, Exception)
    if HAVE_SHUTDOWN:
        assert ours.ShutDown is standard.ShutDown
    assert ours.Empty is standard.Empty and ours.Full is standard.Full
    assert ours.SimpleQueue is standard.SimpleQueue


# -- the insides ---------------------------------------------------------------------------------


def test_who_looks_inside_finds_what_is_there(module):
    queue = module.Queue()
    queue.put("a")
    queue.put("b")
    queue.get()
    assert queue.unfinished_tasks == 2
    with queue.mutex:
        assert list(queue.queue) == ["b"]
        queue.queue.clear()
        queue.unfinished_tasks = 0
        queue.all_tasks_done.notify_all()
    queue.join()
    assert queue.empty()
    lifo = module.LifoQueue()
    lifo.put(1)
    assert lifo.queue == [1]
    lifo.queue = [7, 8]
    assert [lifo.get(), lifo.get()] == [8, 7]
    with lifo.not_empty:
        assert lifo.not_empty.wait(0.01) is False
    with lifo.not_full:
        lifo.not_full.notify()


def test_the_limit_can_be_changed(module):
    queue = module.Queue(1)
    queue.put(1)
    queue.maxsize = 2
    queue.put(2, False)
    with pytest.raises(standard.Full):
        queue.put(3, False)


@pytest.mark.parametrize("what", ["get", "put", "join"])
def test_who_waits_goes_on_when_somebody_looks_inside(what):
    queue, ends = ours.Queue(1), []
    if what != "get":
        queue.put(1)
    calls = {"get": lambda: queue.get(timeout=50), "put": lambda: queue.put(2), "join": queue.join}
    with Threads(lambda: ends.append(calls[what]())) as threads:
        threads.wait_until_asleep()
        assert list(queue.queue) == ([] if what == "get" else [1])
        threads.wait_until_asleep()
        assert not ends
        if what == "get":
            queue.put("x")
        else:
            queue.get()
            queue.task_done()
    assert ends == ["x" if what == "get" else None]


def test_many_use_it_while_somebody_looks_inside():
    for turn in range(30):
        queue, got = ours.Queue(random.choice([0, 3])), []

        def consumer(queue=queue, got=got):
            while (item := queue.get()) is not None:
                got.append(item)

        def producer(start, queue=queue):
            for number in range(200):
                queue.put(start + number)

        def look(queue=queue, turn=turn):
            time.sleep(turn * 0.0001)
            assert queue.mutex is queue.mutex
            assert queue.queue is queue.queue

        with Threads(consumer, consumer, look, look) as threads:
            with Threads(lambda: producer(0), lambda: producer(1000)):
                pass
            queue.put(None)
            queue.put(None)
            assert threads
        assert sorted(got) == [*range(200), *range(1000, 1200)]


def test_a_class_may_have_its_own_methods(module):
    class Distinct(module.Queue):
        def _init(self, maxsize):
            self.kept, self.sizes = set(), []
            self.size_at_first = maxsize

        def _qsize(self):
            return len(self.kept)

        def _put(self, item):
            assert not self.mutex.acquire(False)  # held
            self.kept.add(item)

        def _get(self):
            assert self.mutex.locked()
            return self.kept.pop()

    queue = Distinct(3)
    for item in (1, 1, 2):
        queue.put(item)
    assert (queue.size_at_first, queue.qsize(), queue.unfinished_tasks) == (3, 2, 3)
    assert {queue.get(), queue.get()} == {1, 2}
    with pytest.raises(standard.Empty):
        queue.get(False)
    with Threads(lambda: queue.put(5)):
        assert queue.get() == 5


def test_a_class_may_build_on_the_methods_there_are(module):
    class Counting(module.PriorityQueue):
        puts = 0

        def _put(self, item):
            self.puts += 1
            super()._put(item)

    class Polite(module.Queue):
        def put(self, item, block=True, timeout=None):
            super().put(("please", item), block, timeout)

    queue = Counting()
    for item in (3, 1, 2):
        queue.put(item)
    assert queue.puts == 3 and [queue.get() for _ in range(3)] == [1, 2, 3]
    polite = Polite()
    polite.put_nowait(1)
    assert polite.get_nowait() == ("please", 1)


def test_a_method_that_raises_leaves_the_queue_usable(module):
    class Picky(module.Queue):
        def _put(self, item):
            if item == "bad":
                raise Interrupted
            super()._put(item)

    queue = Picky()
    with pytest.raises(Interrupted):
        queue.put("bad")
    queue.put("good")
    assert queue.get() == "good" and queue.unfinished_tasks == 1
    heap = module.PriorityQueue()
    heap.put(1)
    with pytest.raises(TypeError):
        heap.put("x")
    assert heap.mutex.acquire(False)


def test_priorities(module):
    chance = random.Random(5)
    numbers = [chance.randrange(100) for _ in range(300)]
    queue = module.PriorityQueue()
    for number in numbers:
        queue.put((number, object.__repr__))
        if number % 3 == 0:
            queue.get()
    left = [queue.get()[0] for _ in range(queue.qsize())]
    assert left == sorted(left)
    heap = module.PriorityQueue()
    heap.put(2)
    heapq.heappush(heap.queue, 1)
    assert heap.get() == 1


def test_what_objects_can_do(module):
    queue = module.Queue()
    reference = weakref.ref(queue)
    queue.extra = queue
    queue.put(queue)
    with pytest.raises(TypeError):
        pickle.dumps(module.Queue())
    assert module.Queue[int].__origin__ is module.Queue
    del queue
    gc.collect()
    assert reference() is None


def test_an_item_is_let_go_with_its_get(module):
    class Item:
        pass

    queue = module.Queue()
    item = Item()
    reference = weakref.ref(item)
    queue.put(item)
    del item
    queue.get()
    assert reference() is None


def test_destructors_may_use_the_queue_that_lets_them_go():
    queue = ours.Queue()

    class Item:
        def __del__(self):
            queue.put_nowait("last words") if not queue.is_shutdown else None
            queue.qsize()

    queue.put(Item())
    queue.get()
    assert queue.get() == "last words"
    queue.put(Item())
    queue.shutdown(immediate=True)
    assert queue.qsize() == 0


# -- what happens meanwhile ----------------------------------------------------------------------


@pytest.mark.parametrize("what", ["get", "get limit", "put", "join"])
def test_a_signal_handler_that_raises_ends_a_wait(make, what):
    def handler(_signal, _frame):
        raise Interrupted

    queue = make("Queue", 1)
    if what in ("put", "join"):
        queue.put(1)
    calls = {
        "get": queue.get,
        "get limit": lambda: queue.get(timeout=50),
        "put": lambda: queue.put(2),
        "join": queue.join,
    }
    before = signal.signal(signal.SIGUSR1, handler)

    def interrupt():
        time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGUSR1)

    try:
        with Threads(interrupt), pytest.raises(Interrupted):
            calls[what]()
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_signal_handler_may_use_the_queue():
    queue = ours.Queue()
    before = signal.signal(signal.SIGUSR1, lambda *_: queue.put("from the handler"))

    def interrupt():
        time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGUSR1)

    try:
        with Threads(interrupt):
            assert queue.get() == "from the handler"
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [0, 1, 5])
def test_many_producers_and_consumers(make, kind, size):
    queue, got = make(kind, size), []
    chance = random.Random(size)

    def producer(start):
        for number in range(300):
            while True:
                try:
                    queue.put(start + number, timeout=chance.choice([None, 0.0002]))
                    break
                except standard.Full:
                    pass

    def consumer():
        while True:
            try:
                item = queue.get(timeout=chance.choice([None, 0.0002]))
            except standard.Empty:
                continue
            if item > 10_000:
                return
            got.append(item)
            queue.task_done()

    with Threads(consumer, consumer, consumer):
        with Threads(*[lambda start=start: producer(start) for start in (0, 1000, 2000)]):
            pass
        queue.join()
        for _ in range(3):
            queue.put(20_000)
    assert sorted(got) == [start + number for start in (0, 1000, 2000) for number in range(300)]


FORKS = """
import os, signal, sys, threading
import oxgang.queue
sys.path.insert(0, {here!r})
from test_threading import Threads, until_asleep
queue = oxgang.queue.Queue()
with Threads(*[queue.get] * 2) as threads:
    threads.wait_until_asleep()
    pid = os.fork()
    if pid == 0:
        signal.alarm(30)
        # the parent's waiters, which waited before this one, are not here
        thread = threading.Thread(target=lambda: queue.put(queue.get() + "!"))
        thread.start()
        until_asleep(thread.native_id)
        queue.put("mine")
        thread.join()
        os._exit(0 if queue.get(timeout=10) == "mine!" else 2)
    _, status = os.waitpid(pid, 0)
    queue.put(1)
    queue.put(2)
assert status == 0, status
"""


def test_a_child_of_a_fork_can_use_it():
    """In a program that imports nothing else."""
    program = FORKS.format(here=os.path.dirname(__file__))
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], timeout=50, check=True)


def test_recursion_deep_in_calls_is_no_matter():
    """Held objects that end deep in each other do not overflow the stack."""
    queue = ours.Queue()
    for _ in range(50_000):
        outer = ours.Queue()
        outer.put(queue)
        queue = outer
    limit = sys.getrecursionlimit()
    del queue, outer
    gc.collect()
    assert sys.getrecursionlimit() == limit
