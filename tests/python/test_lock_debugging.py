"""OXGANG_DEBUG=locks: inversions and deadlocks are told, with stacks; and nothing else is."""

import os
import subprocess
import sys

import pytest

HEAD = """
import os, sys, threading, time
import oxgang.multiprocessing as mp
context = mp.get_context("fork")
A, B = context.Lock(), context.RLock()
"""

INVERSION = """
def one():
    with A, B: pass
def two():
    with B, A: pass
"""

DEADLOCK = """
def take(first, second, own, others):
    first.acquire()
    own.set(); others.wait()
    second.acquire(timeout=1)
x, y = context.Event(), context.Event()
"""


def run(code, debug="locks"):
    env = {**os.environ, "OXGANG_DEBUG": debug}
    command = [sys.executable, "-c", HEAD + code]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_an_inversion_in_one_process():
    told = run(INVERSION + "for _ in range(3): one(); two()")
    assert told.count("lock-order inversion") == 1
    assert "takes Lock" in told
    assert "had taken Lock" in told
    assert "in two" in told
    assert "in one" in told


def test_an_inversion_between_processes():
    child = "p = context.Process(target=one); p.start(); p.join(); two()"
    told = run(INVERSION + child + "; print(p.pid)")
    assert told.count("lock-order inversion") == 1
    assert "the other way round" in told


@pytest.mark.parametrize("maker", ["threading.Thread", "context.Process"])
def test_a_deadlock_is_told_by_each_of_its_parts(maker):
    told = run(
        DEADLOCK
        + f"parts = [{maker}(target=take, args=args) for args in ((A, B, x, y), (B, A, y, x))]\n"
        + "for part in parts: part.start()\n"
        + "for part in parts: part.join()\n"
    )
    assert told.count("oxgang: deadlock") == 2
    assert "waits for RLock" in told
    assert "waits for Lock" in told
    assert told.count("holds lock") == 4
    assert "holds Lock" in told
    assert "in take" in told


@pytest.mark.parametrize(
    ("code", "debug"),
    [
        (INVERSION + "for _ in range(3): one()", "locks"),
        ("with B, B, A: pass", "locks"),
        ("A.acquire(); threading.Timer(0.3, A.release).start(); B.acquire(); A.acquire()", ""),
        (INVERSION + "one(); two()", ""),
    ],
    ids=["one order", "recursion", "debugging is off", "inversion, off"],
)
def test_nothing_else_is_told(code, debug):
    assert run(code, debug) == ""


# -- the locks of threads ------------------------------------------------------------------------

THREADS = """
import oxgang.threading as threading
A, B = threading.Lock(), threading.RLock()
context = None
"""

STUCK = """
def take(first, second, own, others):
    first.acquire()
    own.set(); others.wait()
    second.acquire(timeout=1)
    first.release()
x, y = threading.Event(), threading.Event()
parts = [threading.Thread(target=take, args=args) for args in ((A, B, x, y), (B, A, y, x))]
for part in parts: part.start()
for part in parts: part.join()
"""


def test_threads_an_inversion():
    told = run(THREADS + INVERSION + "for _ in range(3): one(); two()")
    assert told.count("lock-order inversion") == 1
    assert "takes Lock made at" in told and "in two" in told and "in one" in told


def test_threads_a_deadlock_is_told_by_each_of_its_parts():
    told = run(THREADS + STUCK)
    assert told.count("oxgang: deadlock") == 2
    assert "waits for Lock made at <string>:" in told
    assert "is held by thread Thread-" in told and "in take" in told


def test_threads_a_lock_that_is_never_released_is_named():
    told = run(
        THREADS
        + """
def forget(): A.acquire()
thread = threading.Thread(target=forget); thread.start(); thread.join()
assert not A.acquire(timeout=3)
B.acquire()
"""
    )
    assert "never released: Lock made at <string>:" in told and "will for ever" in told
    assert "which has ended" in told and "in forget" in told
    assert "is still held by thread MainThread at the end" in told


def test_threads_watched_locks_are_locks():
    told = run(
        THREADS
        + """
condition, turns = threading.Condition(), []
def other():
    with condition:
        condition.wait_for(lambda: turns)
        turns.append(2); condition.notify()
thread = threading.Thread(target=other); thread.start()
with condition, condition:
    turns.append(1); condition.notify()
    assert condition.wait_for(lambda: len(turns) == 2, 10)
thread.join()
with B, B: assert not A.locked()
assert A.acquire(timeout=1) and not A.acquire(False) and not A.acquire(timeout=0.01)
threading.Timer(0.3, A.release).start()
assert A.acquire(); A.release()
for wrong in (lambda: A.release(), lambda: B.release()):
    try: wrong()
    except RuntimeError: pass
    else: raise SystemExit("released")
for wrong in (lambda: A.acquire(False, 1), lambda: A.acquire(True, -2)):
    try: wrong()
    except ValueError: pass
    else: raise SystemExit("acquired")
"""
    )
    assert told == ""
