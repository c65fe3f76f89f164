"""1: the round trip of a task that does nothing, one at a time."""

from peerbench import contenders as pools
from peerbench import procs, tasks
from peerbench.timing import median, quantile, sample

from .base import Metric, Workload, pools_of

METRICS = {
    "median": Metric("round trip, median", "s"),
    "p99": Metric("round trip, 99 % within", "s"),
    "cpu": Metric("CPU per task, all processes", "s"),
}


def run(contender, report, spec):
    times = 200 if spec["quick"] else 2000
    with contender.make(spec["workers"]).opened() as pool:
        report.event("ready")
        sample(lambda i: pool.call(tasks.noop, i), times // 5, at_most=1.0)

        def one(i):
            if pool.call(tasks.noop, i) != i:
                raise AssertionError("wrong result")

        cpu = procs.tree_cpu()
        durations = sample(one, times, at_most=4.0)
        cpu = procs.tree_cpu() - cpu
    report.metric("median", median(durations))
    report.metric("p99", quantile(durations, 0.99))
    report.metric("cpu", cpu / len(durations))


WORKLOADS = [
    Workload(
        "latency",
        "Round trip of a no-op task, processes",
        METRICS,
        run,
        pools_of(pools.PROCESS),
        pools.REFERENCE[pools.PROCESS],
        rounds=7,
    ),
    Workload(
        "latency-threads",
        "Round trip of a no-op task, threads",
        METRICS,
        run,
        pools_of(pools.THREAD),
        pools.REFERENCE[pools.THREAD],
        rounds=7,
    ),
]
