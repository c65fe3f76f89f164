"""Many tasks, many faults, exact accounts: every future is resolved once and rightly.

Random, by a seed that is in the test's name; ``OXGANG_SEED=N pytest tests/chaos`` replays one (and
runs only that one).
"""

import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from oxgang.concurrent.futures import ProcessPoolExecutor
from oxgang.concurrent.futures.process import WorkerCrashed
from oxgang.errors import PayloadError

sys.path.insert(0, str(Path(__file__).parents[1] / "python"))
import calls

TASKS = 3000
SEEDS = [int(os.environ["OXGANG_SEED"])] if "OXGANG_SEED" in os.environ else [1, 2, 3]
FRESH = [] if "OXGANG_SEED" in os.environ else [random.SystemRandom().randrange(10**6)]


def expect(kind, future, payload):
    """What this kind of task must come to."""
    error = future.exception()
    if kind == "same":
        return error is None and future.result() == payload
    if kind == "fail":
        return type(error) is LookupError and error.args == (payload,)
    if kind in ("die", "leave"):
        return isinstance(error, WorkerCrashed) and error.exitcode == payload
    if kind in ("bad result", "bad argument"):
        return type(error) is TypeError
    return isinstance(error, PayloadError)


def call_of(dice, kind):
    """``(function, argument, what it must come to)`` of a task of this kind."""
    if kind == "same":
        sizes = [0, 10, 1000, 50_000, 70_000, 500_000]
        data = dice.randbytes(dice.choices(sizes, [30, 30, 30, 3, 3, 1])[0])
        return calls.same, data, data
    if kind == "die":
        number = int(dice.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGBUS]))
        return calls.die, number, -number
    return {
        "fail": (calls.fail, "x", "x"),
        "leave": (calls.leave, 9, 9),
        "bad result": (calls.lock, None, None),
        "bad argument": (calls.same, threading.Lock(), None),
        "refusing": (calls.refusing, None, None),
    }[kind]


KINDS = {
    "same": 900,
    "fail": 30,
    "die": 6,
    "leave": 4,
    "bad result": 10,
    "bad argument": 10,
    "refusing": 10,
}


@pytest.mark.watchdog(240)
@pytest.mark.parametrize("seed", SEEDS + FRESH)
def test_exact_accounts(seed):
    dice = random.Random(seed)
    with ProcessPoolExecutor(dice.randint(1, 5)) as pool:
        handed_in, cancelled = [], 0
        for _ in range(TASKS):
            kind = dice.choices(list(KINDS), KINDS.values())[0]
            function, argument, expected = call_of(dice, kind)
            future = pool.submit(function, argument)
            handed_in.append((kind, future, expected))
            if dice.random() < 0.02:
                cancelled += dice.choice(handed_in)[1].cancel()
            if dice.random() < 0.01:
                dice.choice(handed_in)[1].done()
            if dice.random() < 0.003:
                time.sleep(dice.random() * 0.01)
            if dice.random() < 0.003:
                future.exception() if not future.cancelled() else None
        wrong = [
            (index, kind, future)
            for index, (kind, future, payload) in enumerate(handed_in)
            if not future.cancelled() and not expect(kind, future, payload)
        ]
        assert wrong == []
        counts = pool.statistics()
        crashes = sum(
            kind in ("die", "leave") and not future.cancelled() for kind, future, _ in handed_in
        )
        assert counts["lost"] == counts["crashed"] == crashes
        never_sent = sum(kind == "bad argument" for kind, _, _ in handed_in)
        assert counts["submitted"] == TASKS - never_sent
        assert counts["answered"] == TASKS - never_sent - crashes - sum(
            future.cancelled() for _, future, _ in handed_in
        )


@pytest.mark.watchdog(240)
@pytest.mark.parametrize("seed", SEEDS + FRESH)
def test_workers_killed_from_outside(seed):
    """Kills at random moments: whatever they hit is lost and named, all else is right."""
    dice = random.Random(seed)
    with ProcessPoolExecutor(3) as pool:
        over = threading.Event()
        kills = []

        def kill():
            while not over.is_set():
                ready = [one["pid"] for one in pool.statistics()["workers"] if one["ready"]]
                if ready:
                    victim = dice.choice(ready)
                    try:
                        os.kill(victim, signal.SIGKILL)
                        kills.append(victim)
                    except ProcessLookupError:
                        pass  # it was dead already, and has been reaped
                over.wait(dice.random() * 0.05)

        killer = threading.Thread(target=kill)
        killer.start()
        futures = [pool.submit(calls.same, i) for i in range(TASKS)]
        futures += [pool.submit(calls.nap, 0.002) for _ in range(300)]
        errors = [future.exception() for future in futures]
        over.set()
        killer.join()
        assert kills
        for index, (future, error) in enumerate(zip(futures, errors, strict=True)):
            if error is None:
                assert future.result() == (index if index < TASKS else 0.002)
            else:
                assert type(error) is WorkerCrashed
                assert error.exitcode == -signal.SIGKILL
                assert error.pid in kills
        lost = sum(error is not None for error in errors)
        assert lost == pool.statistics()["lost"] <= len(kills)
