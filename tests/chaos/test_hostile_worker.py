"""A worker that has lost its mind writes anything into the memory that it shares with its owner,
while it goes on answering. What it answers may be wrong then; but every future is resolved, the
owner lives, and so does its pool.

Random, by a seed that is in the test's name; ``OXGANG_SEED=N pytest tests/chaos`` replays one.
"""

import mmap
import os
import random
import threading
import time
from collections import Counter
from concurrent.futures import wait

import pytest
from oxgang.concurrent.futures import ProcessPoolExecutor
from oxgang.errors import BrokenProcessPool

SEEDS = [int(os.environ["OXGANG_SEED"])] if "OXGANG_SEED" in os.environ else list(range(1, 9))
FRESH = [] if "OXGANG_SEED" in os.environ else [random.SystemRandom().randrange(10**6)]

# where it hurts: positions and bell, requests, answers (see channel.rs)
HEADER = (0, 8, 16, 24, 128, 256, 384, 512, 640, 648)
REQUESTS, ANSWERS = 4096, 4096 + (1 << 18)


def _channel():
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue  # the listing's own
        if "oxgang channel" in target:
            return mmap.mmap(int(name), 0)
    raise LookupError("no channel in this process")


def go_mad(seed, header):
    """From now on, a thread here writes anywhere; `header`: also where the rings' positions are."""
    dice, memory = random.Random(seed), _channel()

    def scribble():
        while True:
            if header and dice.random() < 0.05:
                at = dice.choice(HEADER)
                word = dice.choice([dice.randrange(2**64), dice.randrange(2**19), 0])
                memory[at : at + 8] = word.to_bytes(8, "little")
            else:
                at = dice.choice([REQUESTS, ANSWERS]) + dice.randrange(1 << dice.randint(4, 17))
                some = dice.randbytes(dice.choice([1, 2, 8, 40]))
                memory[at : at + len(some)] = some
            time.sleep(0.0002)

    threading.Thread(target=scribble, daemon=True).start()


def answer(value):
    return value


def values(dice):
    return [
        dice.randrange(2**40),
        "text" * dice.randrange(20),
        (1, 2.5, None, True),
        [dice.randrange(300) for _ in range(dice.randrange(50))],
        {"key": b"bytes" * dice.randrange(30)},
        bytes(dice.randrange(100_000)),
    ]


@pytest.mark.parametrize("header", [False, True], ids=["frames", "header"])
@pytest.mark.parametrize("seed", SEEDS + FRESH)
def test_its_owner_lives(seed, header):
    dice = random.Random(seed)
    with ProcessPoolExecutor(2) as pool:
        futures = [pool.submit(go_mad, seed, header)]
        sent = [None]
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            # a task that it has passed over, in its folly, is as one that takes for ever
            if wait(futures, timeout=3).not_done:
                break
            sent += [dice.choice(values(dice)) for _ in range(20)]
            try:
                futures += [pool.submit(answer, value) for value in sent[len(futures) :]]
            except BrokenProcessPool:
                break  # "I cannot get ready", it said: then a pool is over
        pool.kill_workers()  # one that has lost its mind need not hear that it may end
        outcomes = Counter()
        for value, future in zip(sent, futures, strict=False):
            error = future.exception()
            if error is not None:
                outcomes[type(error).__name__] += 1
            else:
                outcomes["right" if future.result() == value else "wrong"] += 1
        print(seed, dict(outcomes), pool.statistics())
    with ProcessPoolExecutor(2) as pool:
        assert list(pool.map(answer, range(100))) == list(range(100))
