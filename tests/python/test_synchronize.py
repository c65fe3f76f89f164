"""Locks and their kin between processes: as the standard ones, and what they survive."""

import logging
import multiprocessing as standard
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time

import oxgang.multiprocessing as ours
import pytest
import synchronizing
from oxgang.concurrent.futures import ProcessPoolExecutor
from oxgang.errors import OwnerDied, WorkerCrashed

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
        return self

    def kill(self):
        self.process.kill()
        self.process.join()

    def __exit__(self, *_error):
        self.kill()
        self.process.close()


# -- as the standard ones ------------------------------------------------------------------------


def test_lock(module):
    lock = module.Lock()
    assert repr(lock) == "<Lock(owner=None)>"
    assert lock.acquire()
    assert repr(lock) == "<Lock(owner=MainProcess)>"
    assert not lock.acquire(False)
    assert not lock.acquire(block=True, timeout=0.01)
    assert not lock.acquire(True, -1)
    assert lock.release() is None
    with pytest.raises(ValueError, match="released too many times"):
        lock.release()
    with lock as entered:
        assert entered is True
        assert not lock.acquire(False)
    assert lock.acquire(False)


def test_another_thread_may_release_a_lock(module):
    lock = module.Lock()
    lock.acquire()
    thread = threading.Thread(target=lock.release)
    thread.start()
    thread.join()
    assert lock.acquire(False)


def test_rlock(module):
    lock = module.RLock()
    assert repr(lock) == "<RLock(None, 0)>"
    assert lock.acquire()
    assert lock.acquire(False)
    assert repr(lock) == "<RLock(MainProcess, 2)>"
    seen = []
    thread = threading.Thread(
        target=lambda: seen.extend([lock.acquire(False), repr(lock), _error_of(lock.release)])
    )
    thread.start()
    thread.join()
    assert seen == [False, "<RLock(SomeOtherThread, nonzero)>", AssertionError]
    lock.release()
    lock.release()
    with pytest.raises(AssertionError):
        lock.release()


def _error_of(function):
    try:
        function()
    except Exception as error:
        return type(error)


def test_semaphores(module):
    semaphore = module.Semaphore(2)
    assert semaphore.acquire()
    assert semaphore.acquire()
    assert not semaphore.acquire(False)
    assert not semaphore.acquire(timeout=0.01)
    assert semaphore.get_value() == 0
    for _ in range(3):
        semaphore.release()
    assert repr(semaphore) == "<Semaphore(value=3)>"
    bounded = module.BoundedSemaphore(1)
    assert repr(bounded) == "<BoundedSemaphore(value=1, maxvalue=1)>"
    with pytest.raises(ValueError):
        bounded.release()
    with bounded:
        assert bounded.get_value() == 0
    with pytest.raises((ValueError, OSError)):
        module.Semaphore(-1)


def test_event(module):
    event = module.Event()
    assert not event.is_set()
    assert "unset" in repr(event) or sys.version_info < (3, 12)
    assert event.wait(0.01) is False
    event.set()
    event.set()
    assert event.wait() is True
    event.clear()
    assert not event.is_set()


def test_condition(module):
    condition = module.Condition()
    with pytest.raises(AssertionError):
        condition.wait()
    with pytest.raises(AssertionError):
        condition.notify()
    with condition:
        assert condition.wait(0.01) is False
        assert condition.wait_for(lambda: 7) == 7
        assert condition.wait_for(lambda: 0, 0.01) == 0
    turns = []

    def other():
        with condition, condition:  # as deep again afterwards
            condition.wait_for(lambda: turns)
            turns.append("other")
            condition.notify_all()

    thread = threading.Thread(target=other)
    thread.start()
    with condition:
        turns.append("main")
        condition.notify_all()
        condition.wait_for(lambda: len(turns) == 2)
    thread.join()
    assert turns == ["main", "other"]
    assert condition.acquire(False)


def test_barrier(module):
    acted, places = [], []
    barrier = module.Barrier(3, action=lambda: acted.append(len(places)))
    assert (barrier.parties, barrier.n_waiting, barrier.broken) == (3, 0, False)

    def party():
        for _ in range(5):
            places.append(barrier.wait())

    threads = [threading.Thread(target=party) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(acted) == 5
    assert sorted(places) == sorted([0, 1, 2] * 5)


def test_a_barrier_breaks_and_is_reset(module):
    barrier = module.Barrier(2)
    with pytest.raises(threading.BrokenBarrierError):
        barrier.wait(0.01)
    assert barrier.broken
    with pytest.raises(threading.BrokenBarrierError):
        barrier.wait()
    barrier.reset()
    assert not barrier.broken
    seen = []
    thread = threading.Thread(target=lambda: seen.append(_error_of(barrier.wait)))
    thread.start()
    while barrier.n_waiting == 0:
        time.sleep(0.001)
    barrier.abort()
    thread.join()
    assert seen == [threading.BrokenBarrierError]


def test_an_action_that_raises_breaks_the_barrier(module):
    barrier = module.Barrier(1, action=lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        barrier.wait()
    assert barrier.broken


@pytest.mark.parametrize("name", ["Lock", "RLock"])
def test_processes_and_threads_exclude_each_other(context, name):
    lock = getattr(context, name)()
    value = context.RawArray("q", 1)
    with (
        Child(context, synchronizing.add, lock, value, 3000) as one,
        Child(context, synchronizing.add, lock, value, 3000) as two,
    ):
        threads = [
            threading.Thread(target=synchronizing.add, args=(lock, value, 1000)) for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        one.process.join()
        two.process.join()
        assert (one.process.exitcode, two.process.exitcode) == (0, 0)
    assert value[0] == 8000


# -- passing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("maker", METHODS)
def test_they_pass_to_children_of_any_start_method(context, maker):
    made_by = ours.get_context(maker)
    condition = made_by.Condition(made_by.Lock())
    lock, event = made_by.Lock(), made_by.Event()
    semaphore, barrier = made_by.Semaphore(0), made_by.Barrier(2)
    with condition:
        child = Child(
            context, synchronizing.pass_through, lock, condition, event, semaphore, barrier
        )
        with child:
            assert condition.wait()
            event.set()
            assert semaphore.acquire()
            barrier.wait()
            child.process.join()
            assert child.process.exitcode == 0


def test_they_pass_to_workers_that_run_already():
    lock = ours.Lock()
    with ProcessPoolExecutor(1) as pool:
        pid, owner = pool.submit(synchronizing.describe, lock).result()
        assert pid == owner != os.getpid()
        # nobody keeps this one here but the task
        pid, owner = pool.submit(synchronizing.describe, ours.RLock()).result()
        assert pid == owner
        semaphore = ours.Semaphore(1)
        assert pool.submit(synchronizing.take_unit, semaphore).result() is True
        assert pool.submit(synchronizing.take_unit, semaphore).result() is False
        assert semaphore.get_value() == 0


def test_a_worker_sends_one_on():
    lock = ours.Lock()
    with ProcessPoolExecutor(1) as pool:
        back = pool.submit(synchronizing.same, lock).result()
        assert lock.acquire()
        assert not back.acquire(False)
        made_there = pool.submit(synchronizing.make_lock).result()
        with made_there:
            _, owner = pool.submit(synchronizing.describe, lock_free := ours.Lock()).result()
            assert owner != os.getpid()
            assert lock_free.acquire(False)
    # its maker has ended; who has it, has it
    with made_there:
        assert not made_there.acquire(False)


def test_many_share_one_descriptor():
    before = len(os.listdir("/proc/self/fd"))
    locks = [ours.Lock() for _ in range(400)]
    assert len(os.listdir("/proc/self/fd")) <= before + 2
    assert all(lock.acquire(False) for lock in locks)


def test_sending_leaves_nothing_behind():
    with ProcessPoolExecutor(1) as pool:
        worker, _ = pool.submit(synchronizing.describe, ours.Lock()).result()
        before = [len(os.listdir(f"/proc/{pid}/fd")) for pid in (os.getpid(), worker)]
        for _ in range(4):
            # more than a segment each
            futures = [pool.submit(synchronizing.describe, ours.Lock()) for _ in range(600)]
            for future in futures:
                assert future.result()[1] == worker
        del futures, future
        kept = ours.Lock()
        after = [len(os.listdir(f"/proc/{pid}/fd")) for pid in (os.getpid(), worker)]
    assert kept.acquire(False)
    assert all(now <= then + 2 for then, now in zip(before, after, strict=True)), (before, after)


def test_slots_are_used_again():
    def identities(count):
        return {ours.Lock()._identity() for _ in range(count)}

    assert len(identities(2000)) < 5


def test_a_primitive_that_nobody_has_any_more_is_a_clear_error():
    code = (
        "import pickle, sys, oxgang.multiprocessing as mp; lock = mp.Lock();"
        "sys.stdout.buffer.write(pickle.dumps(lock))"
    )
    data = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    with pytest.raises(OSError, match=r"did not arrive: process \d+, which sent it, has ended"):
        pickle.loads(data)


def test_what_is_no_lock_of_ours_is_refused():
    with pytest.raises(TypeError, match=r"oxgang\.multiprocessing"):
        ours.Condition(standard.Lock())
    with pytest.raises(ValueError, match="on_owner_death"):
        ours.Lock(on_owner_death="panic")


# -- deaths --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Lock", "RLock", "Semaphore", "BoundedSemaphore"])
def test_what_the_dead_held_goes_on(context, name, caplog):
    primitive, ready = getattr(context, name)(), context.Event()
    with Child(context, synchronizing.hold, primitive, ready) as child:
        ready.wait()
        assert not primitive.acquire(False)
        assert not primitive.acquire(timeout=0.02)
        pid = child.process.pid
        child.kill()
        with caplog.at_level(logging.WARNING, "oxgang.multiprocessing"):
            assert primitive.acquire()
            primitive.release()
            with primitive:
                pass
    (record,) = caplog.records
    assert f"process {pid} ended while it held a {name}" in record.getMessage()


@pytest.mark.parametrize("name", ["Lock", "RLock", "Semaphore"])
@pytest.mark.parametrize("limit", [{"block": False}, {"timeout": 0}, {"timeout": 0.0005}], ids=str)
def test_who_hardly_waits_finds_the_dead_too(name, limit):
    context = ours.get_context("fork")
    primitive, ready = getattr(context, name)(), context.Event()
    with Child(context, synchronizing.hold, primitive, ready) as child:
        ready.wait()
        assert not primitive.acquire(**limit)
        child.kill()
        time.sleep(0.002)  # what was alive a moment ago is believed alive for one
        assert primitive.acquire(**limit)


def test_who_waits_already_goes_on():
    context = ours.get_context("fork")
    lock, ready = context.Lock(), context.Event()
    with Child(context, synchronizing.hold, lock, ready) as child:
        ready.wait()
        taken = []
        threads = [
            threading.Thread(target=lambda: taken.append(lock.acquire()) or lock.release())
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        child.kill()
        for thread in threads:
            thread.join()
    assert taken == [True] * 4


def test_a_zombie_is_dead():
    context = ours.get_context("fork")
    lock = context.Lock()
    pid = os.fork()
    if pid == 0:
        lock.acquire()
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert lock.acquire()
    os.waitpid(pid, 0)


def test_a_worker_that_dies_in_its_task_leaves_its_lock():
    lock = ours.Lock()
    with ProcessPoolExecutor(2) as pool:
        for _ in range(3):
            lost = pool.submit(synchronizing.die_holding, lock)
            assert isinstance(lost.exception(), WorkerCrashed)
            pid, owner = pool.submit(synchronizing.describe, lock).result()
            assert pid == owner
    with lock:
        pass


STOPPED = """
import os, resource, sys, threading
import oxgang.multiprocessing as mp
context = mp.get_context("fork")
lock, ready = context.Lock(), context.Event()
def hold():
    lock.acquire(); ready.set(); threading.Event().wait(1000)
child = context.Process(target=hold); child.start(); ready.wait()
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
taken = [lock.acquire(False), lock.acquire(timeout=0.3)]
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
child.kill(); child.join()
print(taken, lock.acquire())
"""


def test_who_cannot_look_takes_nobody_for_dead():
    command = [sys.executable, "-c", STOPPED]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.stdout == "[False, False] True\n", done.stderr


def test_a_stopped_process_is_not_dead():
    context = ours.get_context("fork")
    lock, ready = context.Lock(), context.Event()
    with Child(context, synchronizing.hold, lock, ready) as child:
        ready.wait()
        os.kill(child.process.pid, signal.SIGSTOP)
        assert not lock.acquire(timeout=0.3)
        child.kill()
        assert lock.acquire()


@pytest.mark.parametrize("name", ["Lock", "RLock"])
def test_a_death_can_be_told(name):
    context = ours.get_context("fork")
    lock, ready = getattr(context, name)(on_owner_death="raise"), context.Event()
    with Child(context, synchronizing.hold, lock, ready) as child:
        ready.wait()
        pid = child.process.pid
        child.kill()
        for _ in range(2):
            with pytest.raises(OwnerDied, match=r"call its recover\(\)") as caught:
                lock.acquire()
            assert caught.value.pid == pid
            assert pickle.loads(pickle.dumps(caught.value)).pid == pid
        assert lock.recover()
        lock.release()
        with lock:
            pass


def test_an_rlock_outlives_its_thread():
    lock = ours.RLock()
    thread = threading.Thread(target=lock.acquire)
    thread.start()
    thread.join()
    assert lock.acquire()


def test_units_that_are_signals_do_not_come_back():
    context = ours.get_context("fork")
    items, ready = context.Semaphore(0), context.Event()
    items.release()
    with Child(context, synchronizing.hold, items, ready) as child:
        ready.wait()
        child.kill()
    assert not items.acquire(timeout=0.05)


def test_a_party_that_dies_breaks_the_barrier():
    context = ours.get_context("fork")
    barrier, ready = context.Barrier(3), context.Semaphore(0)
    with Child(context, synchronizing.wait_at, barrier, ready) as child:
        ready.acquire()
        while barrier.n_waiting == 0:
            time.sleep(0.001)
        pid = child.process.pid
        child.kill()
        with pytest.raises(threading.BrokenBarrierError, match=f"process {pid}"):
            barrier.wait()


def test_a_call_for_the_dead_goes_to_the_living():
    context = ours.get_context("fork")
    condition, ready, woken = context.Condition(), context.Semaphore(0), context.Semaphore(0)
    arguments = (synchronizing.wait_for_call, condition, ready, woken)
    with Child(context, *arguments) as first, Child(context, *arguments) as second:
        for _ in range(2):
            ready.acquire()
        with condition:
            pass  # both wait now
        # a stopped process is called first, or not; it never goes on
        first.kill()
        with condition:
            condition.notify(1)
        woken.acquire()
        second.process.join()
        assert second.process.exitcode == 0


FULL = """
import os, signal
import oxgang.multiprocessing as mp
context = mp.get_context("fork")
condition, barrier, semaphore = context.Condition(), context.Barrier(2), context.Semaphore(2)
others = [context.BoundedSemaphore(4) for _ in range(400)]
def in_a_fork(work):
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    os.waitpid(child, 0)
def use_all():
    for one in others:
        with one: pass
for _ in range(6):
    in_a_fork(use_all)  # each leaves a word on what it holds of each: more than there is room for
with condition:
    assert not condition.wait(0.01)
def hold_both():
    assert semaphore.acquire() and semaphore.acquire()
    os.kill(os.getpid(), signal.SIGKILL)
in_a_fork(hold_both)
assert semaphore.acquire(timeout=30) and semaphore.acquire(timeout=30)
for _ in range(6):
    in_a_fork(use_all)
try:
    barrier.wait(0.01)
except threading.BrokenBarrierError:
    pass
print("fine")
"""


def test_what_those_leave_that_have_ended_does_not_add_up():
    program = [sys.executable, "-W", "ignore", "-c", "import threading" + FULL]
    done = subprocess.run(program, capture_output=True, text=True, timeout=50, check=False)
    assert (done.stdout, done.returncode) == ("fine\n", 0), done.stderr


@pytest.mark.parametrize("name", ["Lock", "RLock", "Semaphore", "Condition"])
def test_deaths_at_random_moments(name):
    """Children are killed wherever they are; the others, and we, go on, and nothing is lost."""
    seed = int(os.environ.get("OXGANG_SEED", random.randrange(10**6)))
    print(f"OXGANG_SEED={seed}")
    draw = random.Random(seed)
    context = ours.get_context("fork")
    made = context.Semaphore(2) if name == "Semaphore" else getattr(context, name)()
    target, arguments = {
        "Semaphore": (synchronizing.churn_semaphore, (made,)),
        "Condition": (synchronizing.churn_condition, (made,)),
    }.get(name, (synchronizing.churn, (made, 1000)))
    for _ in range(15):
        with Child(context, target, *arguments) as one, Child(context, target, *arguments) as two:
            for victim in (one, two):
                time.sleep(draw.random() * 0.01)
                victim.kill()
        units = 2 if name == "Semaphore" else 1
        for _ in range(units):
            assert made.acquire()
        if name in ("Lock", "Semaphore"):
            assert not made.acquire(False)
        for _ in range(units):
            made.release()


# -- waiting -------------------------------------------------------------------------------------

INTERRUPTED = """
import oxgang.multiprocessing as mp, os, signal, sys, threading
lock = mp.Lock(); lock.acquire()
waits = {
    "lock": lock.acquire,
    "semaphore": mp.Semaphore(0).acquire,
    "event": mp.Event().wait,
    "barrier": mp.Barrier(2).wait,
}
condition = mp.Condition()
def wait():
    with condition:
        condition.wait()
waits["condition"] = wait
threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    waits[sys.argv[1]]()
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("what", ["lock", "semaphore", "event", "barrier", "condition"])
def test_every_wait_is_interruptible(what):
    command = [sys.executable, "-c", INTERRUPTED, what]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.stdout == "interrupted\n", done.stderr


def test_a_handler_that_returns_does_not_end_a_wait():
    lock, calls = ours.Lock(), []
    lock.acquire()
    before = signal.signal(signal.SIGUSR1, lambda *_: calls.append(time.monotonic()))
    try:
        threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        began = time.monotonic()
        assert not lock.acquire(timeout=0.1)
        assert time.monotonic() - began >= 0.1
        assert calls
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_other_threads_run_while_one_waits():
    lock, event = ours.Lock(), threading.Event()
    lock.acquire()
    thread = threading.Thread(target=lambda: (event.set(), lock.acquire()))
    thread.start()
    assert event.wait(30)
    lock.release()
    thread.join()


def test_locks_of_a_context_work_in_the_standard_queue(context):
    queue = context.Queue(2)
    queue.put("a")
    queue.put("b")
    assert queue.full()
    assert [queue.get(), queue.get()] == ["a", "b"]
    queue.close()
    queue.join_thread()


def test_the_start_method_is_one(module):
    assert ours.get_start_method() == standard.get_start_method()
    assert ours.get_context().get_start_method() == standard.get_start_method()
    assert isinstance(ours.get_context("spawn"), type(standard.get_context("spawn")))
    with pytest.raises(ValueError, match="cannot find context"):
        module.get_context("no such method")
