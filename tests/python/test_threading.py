"""`oxgang.threading`: as the standard module, one world with it, and what may happen meanwhile."""

import contextlib
import copy
import gc
import os
import pickle
import random
import signal
import subprocess
import sys
import threading as standard
import time
import warnings
import weakref

import oxgang.threading as ours
import pytest

PRIMITIVES = ["RLock", "Condition", "Semaphore", "BoundedSemaphore", "Event", "Barrier"]


@pytest.fixture(params=[standard, ours], ids=["standard", "oxgang"])
def module(request):
    return request.param


def until_asleep(thread):
    """Until the thread of this number has been asleep for a while."""
    calm = 0
    while calm < 10:
        with open(f"/proc/self/task/{thread}/stat") as file:
            calm = calm + 1 if file.read().rpartition(")")[2].split()[0] == "S" else 0
        time.sleep(0.002)


class Interrupted(Exception):
    pass


class Threads:
    """Threads that run functions; leaving waits for them, and raises what one of them raised."""

    def __init__(self, *functions):
        self.errors = []
        self.all = [standard.Thread(target=self._run, args=(one,)) for one in functions]

    def _run(self, function):
        try:
            function()
        except BaseException as error:
            self.errors.append(error)

    def __enter__(self):
        for thread in self.all:
            thread.start()
        return self

    def wait_until_asleep(self):
        for thread in self.all:
            until_asleep(thread.native_id)

    def __exit__(self, *error):
        for thread in self.all:
            thread.join()
        if self.errors and error[0] is None:
            raise self.errors[0]


def make(module, name):
    return getattr(module, name)(*([2] if name in ("Semaphore", "BoundedSemaphore") else []))


# -- as the standard ones ------------------------------------------------------------------------


def test_the_face_is_the_standard_one():
    assert set(ours.__all__) == set(standard.__all__)
    assert all(hasattr(ours, name) for name in dir(standard))
    mine = {name for name in ours.__all__ if getattr(ours, name) is not getattr(standard, name)}
    assert mine == set(PRIMITIVES)


def test_what_is_assigned_here_is_assigned_there(monkeypatch):
    seen, before = [], standard.excepthook
    monkeypatch.setattr(ours, "excepthook", seen.append)
    assert standard.excepthook == seen.append
    thread = standard.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()
    assert [one.exc_type for one in seen] == [ZeroDivisionError]
    monkeypatch.undo()
    assert standard.excepthook is ours.excepthook is before
    with pytest.raises(AttributeError):
        ours.no_such_name  # noqa: B018


def test_rlock(module):
    lock = module.RLock()
    assert "unlocked" in repr(lock)
    with lock as entered:
        assert entered is True
        assert lock.acquire(False) and lock.acquire(timeout=1) and lock.acquire()
        assert "count=4" in repr(lock) and str(standard.get_ident()) in repr(lock)
        seen = []
        with Threads(lambda: seen.extend([lock.acquire(False), lock.acquire(timeout=0.01)])):
            pass
        assert seen == [False, False]
        for _ in range(3):
            lock.release()
    with pytest.raises(RuntimeError, match="un-acquired"):
        lock.release()
    with pytest.raises(ValueError):
        lock.acquire(False, 1)
    with pytest.raises(ValueError):
        lock.acquire(True, -2)
    with pytest.raises(OverflowError):
        lock.acquire(timeout=standard.TIMEOUT_MAX + 1)
    assert lock.acquire(True, standard.TIMEOUT_MAX)


def test_semaphores(module):
    semaphore = module.Semaphore(2)
    assert semaphore.acquire() and semaphore.acquire(False)
    assert not semaphore.acquire(False) and not semaphore.acquire(timeout=0.01)
    with pytest.raises(ValueError, match="can't specify timeout"):
        semaphore.acquire(False, 1)
    with pytest.raises(ValueError, match="one or more"):
        semaphore.release(0)
    semaphore.release(3)
    assert [semaphore.acquire(False) for _ in range(4)] == [True] * 3 + [False]
    bounded = module.BoundedSemaphore(1)
    assert bounded._value == bounded._initial_value == 1
    with pytest.raises(ValueError, match="too many times"):
        bounded.release()
    with bounded as entered:
        assert entered is True
    with pytest.raises(ValueError, match="initial value"):
        module.Semaphore(-1)


def test_a_release_lets_the_longest_waiting_go(module):
    semaphore, order = module.Semaphore(0), []

    def waiter(number):
        return lambda: (semaphore.acquire(), order.append(number))

    crowd = [Threads(waiter(number)) for number in range(4)]
    for one in crowd:
        one.__enter__()
        one.wait_until_asleep()
    for count in range(4):
        semaphore.release()
        while len(order) <= count:
            time.sleep(0.001)
    for one in crowd:
        one.__exit__(None)
    assert order == [0, 1, 2, 3]


def test_event(module):
    with pytest.raises(TypeError):
        module.Event(True)
    event = module.Event()
    assert not event.is_set() and event.wait(0.01) is False and event.wait(-1) is False
    with Threads(event.wait, event.wait) as threads:
        threads.wait_until_asleep()
        event.set()
        event.clear()  # those two have been told
    assert not event.is_set()
    event.set()
    assert event.wait() is True and event.wait(0) is True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert event.isSet()


@pytest.mark.parametrize("lock", ["none", "Lock", "RLock", "other RLock", "own"])
def test_condition(module, lock):
    class Own:
        """Of the user's making, with nothing but the two methods."""

        def __init__(self):
            inner = standard.Lock()
            self.acquire, self.release = inner.acquire, inner.release

        def __enter__(self):
            return self.acquire()

        def __exit__(self, *_error):
            self.release()

    other = standard if module is ours else ours
    locks = {"Lock": module.Lock, "RLock": module.RLock, "other RLock": other.RLock, "own": Own}
    condition = module.Condition(locks[lock]()) if lock in locks else module.Condition()
    with pytest.raises(RuntimeError, match="un-acquired"):
        condition.wait()
    with pytest.raises(RuntimeError, match="un-acquired"):
        condition.notify()
    with condition:
        assert condition.wait(0.01) is False
        assert condition.wait_for(lambda: 7) == 7
        assert condition.wait_for(lambda: 0, 0.01) == 0
        condition.notify(5)
    turns = []

    def other_side():
        with condition:
            condition.wait_for(lambda: turns)
            turns.append("other")
            condition.notify_all()

    with Threads(other_side) as threads:
        threads.wait_until_asleep()
        with condition:
            turns.append("main")
            condition.notify_all()
            assert condition.wait_for(lambda: len(turns) == 2) is True
    assert turns == ["main", "other"]
    assert condition.acquire(False)
    condition.release()


def test_a_condition_is_held_as_deep_as_before(module):
    condition = module.Condition()
    with condition, condition, condition:
        assert condition.wait(0.01) is False
        seen = []
        with Threads(lambda: seen.append(condition.acquire(False))):
            pass
        assert seen == [False]
    with pytest.raises(RuntimeError):
        condition.release()


def test_only_as_many_go_on_as_were_told(module):
    condition, through = module.Condition(), []

    def waiter():
        with condition:
            through.append(condition.wait())

    with Threads(*[waiter] * 5) as threads:
        threads.wait_until_asleep()
        for expected in (2, 4, 5):
            with condition:
                condition.notify(2)
            while len(through) < expected:
                time.sleep(0.001)
            threads_done = sum(not thread.is_alive() for thread in threads.all)
            assert threads_done <= expected
    assert through == [True] * 5


def test_who_is_told_and_out_of_time_was_told(module):
    """Told while the lock is held beyond the limit: that counts as told."""
    condition, seen = module.Condition(), []

    def waiter():
        with condition:
            seen.append(condition.wait(0.05))

    with Threads(waiter) as threads:
        threads.wait_until_asleep()
        with condition:
            condition.notify()
            time.sleep(0.1)
    assert seen == [True]


def test_barrier(module):
    acted, places = [], []
    barrier = module.Barrier(3, action=lambda: acted.append(len(places)))
    assert (barrier.parties, barrier.n_waiting, barrier.broken) == (3, 0, False)

    def party():
        for _ in range(50):
            places.append(barrier.wait())

    with Threads(*[party] * 3):
        pass
    assert len(acted) == 50
    assert sorted(places) == sorted([0, 1, 2] * 50)


def test_a_barrier_breaks_and_is_reset(module):
    barrier = module.Barrier(2, timeout=0.01)
    with pytest.raises(standard.BrokenBarrierError):
        barrier.wait()
    assert barrier.broken and "broken" in repr(barrier)
    with pytest.raises(ours.BrokenBarrierError):
        barrier.wait(10)
    barrier.reset()
    assert not barrier.broken
    for end in (barrier.abort, barrier.reset):
        seen = []

        def party(seen=seen):
            try:
                barrier.wait(50)
            except standard.BrokenBarrierError as error:
                seen.append(error)

        with Threads(party):
            while barrier.n_waiting == 0:
                time.sleep(0.001)
            end()
        assert len(seen) == 1
        barrier.reset()
    with pytest.raises(ValueError):
        module.Barrier(0) if module is ours or sys.version_info >= (3, 12) else int("no")


def test_an_action_that_raises_breaks_the_barrier(module):
    barrier = module.Barrier(2, action=lambda: 1 / 0)
    errors = []

    def party():
        try:
            barrier.wait()
        except Exception as error:
            errors.append(type(error))

    with Threads(party, party):
        pass
    assert sorted(error.__name__ for error in errors) == ["BrokenBarrierError", "ZeroDivisionError"]
    assert barrier.broken


def test_more_threads_than_parties(module):
    """Rounds follow each other, and their actions never run at a time."""
    running, most = [], []

    def action():
        running.append(1)
        most.append(len(running))
        time.sleep(0.0005)
        running.pop()
        if len(most) == 50:
            raise Interrupted

    barrier = module.Barrier(2, action)

    def party():
        with contextlib.suppress(Interrupted, standard.BrokenBarrierError):
            while True:
                barrier.wait()

    with Threads(*[party] * 5):
        pass
    assert most == [1] * 50


@pytest.mark.parametrize("name", PRIMITIVES)
def test_what_objects_can_do(module, name):
    made = module.Barrier(1) if name == "Barrier" else make(module, name)
    if name != "RLock":

        class Mine(getattr(module, name)):
            """With an initialiser and an attribute of its own."""

            def __init__(self, extra):
                super().__init__(*([1] if name == "Barrier" else []))
                self.extra = extra

        assert Mine("x").extra == "x"
        assert "." in repr(Mine("x")) or name == "Condition"
    reference = weakref.ref(made)
    with pytest.raises(TypeError):
        pickle.dumps(made)
    if module is ours:
        with pytest.raises(TypeError):
            copy.copy(made)
    del made
    gc.collect()
    assert reference() is None


def test_cycles_are_collected():
    class Lock:
        def __init__(self):
            self.acquire = self.release = print

    lock, party = Lock(), Lock()
    lock.condition = ours.Condition(lock)
    party.barrier = ours.Barrier(1, lambda party=party: party)
    references = [weakref.ref(lock), weakref.ref(party)]
    del lock, party
    gc.collect()
    assert [reference() for reference in references] == [None, None]


# -- what happens meanwhile ----------------------------------------------------------------------


def waits_of(module):
    held = module.RLock()
    with Threads(held.acquire):
        pass  # and it has ended with it
    full = module.Condition()
    full.acquire()
    plain = module.Condition(module.Lock())
    plain.acquire()
    return {
        "rlock": held.acquire,
        "rlock limit": lambda: held.acquire(timeout=50),
        "condition": full.wait,
        "condition limit": lambda: full.wait(50),
        "condition of a lock": plain.wait,
        "semaphore": module.Semaphore(0).acquire,
        "event": module.Event().wait,
        "barrier": module.Barrier(2).wait,
    }


@pytest.mark.parametrize("name", list(waits_of(ours)))
def test_a_signal_handler_that_raises_ends_a_wait(module, name):
    def handler(_signal, _frame):
        raise Interrupted

    before = signal.signal(signal.SIGUSR1, handler)
    main = standard.main_thread()
    wait = waits_of(module)[name]

    def interrupt():
        time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGUSR1)

    assert standard.current_thread() is main
    try:
        with Threads(interrupt), pytest.raises(Interrupted):
            wait()
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_signal_handler_that_returns_does_not(module):
    seen = []
    event = module.Event()

    def handler(_signal, _frame):
        seen.append(1)
        if len(seen) == 3:
            event.set()  # within its own wait

    def interrupt():
        for _ in range(3):
            time.sleep(0.02)
            os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with Threads(interrupt):
            assert event.wait() is True
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("name", ["semaphore", "condition", "condition of a lock"])
def test_an_interrupted_wait_takes_nothing_along(name):
    """A call that comes while the handler runs that ends the wait goes to the next in line."""
    semaphore, done = ours.Semaphore(0), []
    condition = ours.Condition(ours.Lock() if name == "condition of a lock" else None)

    def wait():
        if name == "semaphore":
            return semaphore.acquire(timeout=50)
        with condition:
            return condition.wait(50)

    def handler(_signal, _frame):
        if name == "semaphore":
            semaphore.release()
        else:
            with condition:
                condition.notify()
        raise Interrupted

    def later():
        main = standard.main_thread().native_id
        until_asleep(main)
        with Threads(lambda: done.append(wait())) as threads:
            threads.wait_until_asleep()
            os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with Threads(later), pytest.raises(Interrupted):
            wait()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert done == [True]


FORKS = """
import os, signal, time
import oxgang.threading as threading
lock, condition, event = threading.RLock(), threading.Condition(), threading.Event()
semaphore, barrier, owned = threading.Semaphore(0), threading.Barrier(2), threading.RLock()
owned.acquire()
def until_asleep(thread):
    calm = 0
    while calm < 10:
        with open(f"/proc/self/task/{thread.native_id}/stat") as file:
            calm = calm + 1 if file.read().rpartition(")")[2].split()[0] == "S" else 0
        time.sleep(0.002)
def waits():
    with condition:
        condition.wait()
for wait in (waits, event.wait, semaphore.acquire, barrier.wait, owned.acquire):
    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    until_asleep(thread)
def busy():
    while True:
        with lock: pass
for _ in range(2):
    threading.Thread(target=busy, daemon=True).start()
for _ in range(10):
    pid = os.fork()
    if pid == 0:
        signal.alarm(30)
        lock._at_fork_reinit()  # a busy thread of the parent may have had it
        with lock: pass
        # each call is for this thread: the parent's, which waited before it, is not here
        def other():
            waits()
            event.wait()
            semaphore.acquire()
            owned.acquire()
        thread = threading.Thread(target=other)
        thread.start()
        def notify():
            with condition:
                condition.notify()
        for call in (notify, event.set, semaphore.release, owned.release):
            until_asleep(thread)
            call()
        thread.join()
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert status == 0, status
print("fine")
"""


def test_a_fork_leaves_them_usable():
    program = [sys.executable, "-W", "ignore", "-c", FORKS]
    done = subprocess.run(program, capture_output=True, text=True, timeout=50, check=False)
    assert (done.stdout, done.returncode) == ("fine\n", 0), done.stderr


AT_EXIT = """
import oxgang.threading as threading, oxgang.queue as queue
condition = threading.Condition()
def waits():
    with condition: condition.wait()
for target in (waits, threading.Event().wait, threading.Semaphore(0).acquire, queue.Queue().get):
    for _ in range(3):
        threading.Thread(target=target, daemon=True).start()
def busy(q=queue.Queue(1)):
    threading.Thread(target=lambda: [q.put(1) for _ in iter(int, 1)], daemon=True).start()
    while True: q.get()
threading.Thread(target=busy, daemon=True).start()
print("fine")
"""


def test_daemon_threads_that_wait_do_not_hold_the_exit_up():
    for _ in range(5):
        done = subprocess.run(
            [sys.executable, "-c", AT_EXIT], capture_output=True, text=True, timeout=50, check=False
        )
        assert (done.stdout, done.returncode, done.stderr) == ("fine\n", 0, "")


def test_a_storm_of_all_of_them(request):
    """Threads with short limits and none, on few objects: nothing is lost, nobody hangs."""
    seed = int(os.environ.get("OXGANG_SEED", random.randrange(1 << 30)))
    print(f"OXGANG_SEED={seed} pytest {request.node.nodeid}")
    semaphore, lock, condition = ours.Semaphore(2), ours.RLock(), ours.Condition()
    inside, counter = [], [0]

    def user(number):
        chance = random.Random(seed + number)
        for _ in range(600):
            if semaphore.acquire(timeout=chance.choice([None, 0.0001, 0.001])):
                inside.append(number)
                assert len(inside) <= 2
                inside.remove(number)
                semaphore.release()
            with condition:
                condition.notify(chance.randrange(3))
                condition.wait(chance.choice([0, 0.0001, 0.001]))
            if lock.acquire(timeout=chance.choice([-1, 0.0001])):
                with lock:
                    before = counter[0]
                    counter[0] = before + 1
                lock.release()

    with Threads(*[lambda number=number: user(number) for number in range(6)]):
        pass
    assert semaphore._value == 2
    assert condition._waiting() == 0
    assert lock.acquire(False) and counter[0] > 0
