"""9: memory held by all processes together while one 100 MB array goes to 20 tasks."""

import statistics
import time

from peerbench import contenders as pools
from peerbench import procs, tasks

from .base import Metric, Workload, pools_of

METRICS = {
    "peak": Metric("peak of all processes (sum of PSS)", "MB"),
    "extra": Metric("peak above the idle pool", "MB"),
}
TASKS_PER_WORKER = 10
SETTLE = 0.5


def _run(contender, report, spec, broadcast):
    times = TASKS_PER_WORKER * spec["workers"]
    with contender.make(spec["workers"]).opened() as pool:
        pool.map(tasks.short_sleep, range(20))
        import numpy  # noqa: F401  part of the idle state

        report.event("ready")
        time.sleep(SETTLE)
        report.event("idle")
        array = tasks.new_array((10 if spec["quick"] else 100) * 1_000_000)
        weight = tasks.touch(array)
        got = broadcast(pool, array, times)
        if got is None:
            report.note("none", "no way of its own to share data")
            return
        assert list(got) == [weight] * times, "wrong results"
        report.event("peaked")


def run_plain(contender, report, spec):
    _run(contender, report, spec, lambda pool, array, n: pool.calls(tasks.take, array, n))


def run_shared(contender, report, spec):
    _run(contender, report, spec, lambda pool, array, n: pool.calls_shared(array, n))


def watch(cell):
    """Sample the whole tree from outside, from the idle pool to the last result."""
    idle, peak = [], 0.0
    cell.wait_for("ready", 90)
    deadline = time.monotonic() + cell.limit
    while cell.running() and time.monotonic() < deadline:
        tree = [cell.pid] + [p.pid for p in procs.descendants(cell.pid)]
        total = sum(procs.pss(pid) for pid in tree)
        events = cell.events()
        if "peaked" in events or "done" in events or "failed" in events:
            break
        if "idle" in events:
            peak = max(peak, total)
        elif "ready" in events:
            idle.append(total)
        time.sleep(0.005)
    if "peaked" in cell.events() and idle:
        cell.metrics["peak"] = peak
        cell.metrics["extra"] = peak - statistics.median(idle)
    cell.default_watch()


WORKLOADS = [
    Workload(
        "memory",
        "100 MB array as a plain argument of 2 × 10 tasks",
        METRICS,
        run_plain,
        pools_of(pools.PROCESS, every=False),
        pools.REFERENCE[pools.PROCESS],
        rounds=3,
        watch=watch,
    ),
    Workload(
        "memory-shared",
        "the same array by the library's own way to share data",
        METRICS,
        run_shared,
        pools_of(pools.PROCESS, every=False),
        pools.REFERENCE[pools.PROCESS],
        rounds=3,
        watch=watch,
    ),
]
