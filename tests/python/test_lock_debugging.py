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
