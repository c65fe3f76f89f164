"""What the children and workers of the tests of locks run."""

import os
import signal
import time


def hold(primitive, ready):
    """Holds it until killed."""
    primitive.acquire()
    ready.set()
    signal.pause()


def pass_through(lock, condition, event, semaphore, barrier):
    """Uses one of each, in an order that the parent's steps are the other half of."""
    with lock, condition:
        condition.notify()
    event.wait()
    semaphore.release()
    barrier.wait()


def add(lock, value, count):
    for _ in range(count):
        with lock:
            value[0] += 1


def wait_at(barrier, ready):
    ready.release()
    barrier.wait()


def wait_for_call(condition, ready, woken):
    with condition:
        ready.release()
        condition.wait()
    woken.release()


def die_holding(lock):
    lock.acquire()
    os.kill(os.getpid(), signal.SIGKILL)


def describe(lock):
    """The lock as it looks to a worker that holds it."""
    with lock:
        return os.getpid(), lock._owner()[0]


def same(primitive):
    return primitive


_kept = []


def make_lock():
    import oxgang.multiprocessing

    _kept.append(oxgang.multiprocessing.Lock())
    return _kept[-1]


def take_unit(semaphore):
    return semaphore.acquire(False)


def churn(lock, seconds):
    """Takes and releases until killed, with everything that can be under way at a death."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with lock:
            pass


def churn_semaphore(semaphore):
    while True:
        with semaphore:
            pass


def churn_condition(condition):
    while True:
        with condition:
            condition.notify(1)
            condition.wait(0.002)


def increment(value, count):
    for _ in range(count):
        with value.get_lock():
            value.value += 1
