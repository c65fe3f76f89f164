"""A storm by hand, of any length, with a summary of figures at its end:

    python -m tests.chaos --minutes 30 --seed 7
    python -m tests.chaos --tasks 200000

For an installed oxgang (`dev.py deep` makes the environment). Exit code 0: the accounts are exact
and nothing is left. 1: not so, or nothing happened for two minutes; the stacks of all threads are
shown then.
"""

import argparse
import faulthandler
import gc
import os
import random
import resource
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from storm import Storm, leftovers

STILL_S = 120


def main(words=None):
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="A storm by hand.")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, help="for so long")
    length.add_argument("--tasks", type=int, default=200_000, help="this many (200000)")
    parser.add_argument("--seed", type=int, help="to replay one; otherwise a fresh one")
    options = parser.parse_args(words)
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    print(f"seed {seed}; to replay: python -m tests.chaos --seed {seed}", flush=True)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # many signals would write one
    with tempfile.TemporaryDirectory() as folder:
        storm = Storm(seed, folder)
        over = threading.Event()
        watchdog = threading.Thread(target=watch, args=(storm, over), daemon=True)
        began = time.monotonic()
        watchdog.start()
        if options.minutes is None:
            storm.run(options.tasks)
        else:
            end = began + options.minutes * 60
            storm.run(until=lambda: time.monotonic() > end)
        seconds = time.monotonic() - began
        over.set()
        watchdog.join()
    print(storm)
    signals = sum(storm.harasser.counts.values())
    print(f"  {seconds:.1f} s, {storm.tasks / seconds:.0f} tasks a second, ", end="")
    print(f"a signal every {seconds / max(1, signals) * 1000:.1f} ms")
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(f"  largest memory of this process: {usage.ru_maxrss / 1024:.0f} MiB")
    left = leftovers() + descriptors()
    print("  left behind: " + (", ".join(left) or "nothing"))
    return 1 if left else 0


def descriptors():
    """Those of pools that are still open."""
    gc.collect()
    open_ones = []
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue  # the listing's own
        if "oxgang" in target or "eventfd" in target:
            open_ones.append(target)
    return open_ones


def watch(storm, over):
    """Ends the program with the stacks of all threads if no task is done for too long."""
    seen, since = None, time.monotonic()
    shown = since
    while not over.wait(1):
        now = time.monotonic()
        if storm.tasks != seen:
            seen, since = storm.tasks, now
        if now - shown > 60:
            shown = now
            print(f"  {storm.tasks} tasks so far", flush=True)
        if now - since > STILL_S:
            print(f"seed {storm.seed}: no pool has come to its end for {STILL_S} s", flush=True)
            faulthandler.dump_traceback()
            os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
