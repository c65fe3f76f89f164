"""2: many tasks that do nothing."""

import time

from peerbench import contenders as pools
from peerbench import procs, tasks
from peerbench.timing import timed

from .base import Metric, Workload, pools_of

METRICS = {
    "submit": Metric("submit one by one, gather all", "/s"),
    "cpu": Metric("CPU per submitted task, all processes", "s"),
    "map1": Metric("map, chunksize=1", "/s"),
    "map": Metric("map, the library's own chunking", "/s"),
}
SECONDS_AT_MOST = 12  # a slow contender gets fewer tasks; rates stay comparable


def run(contender, report, spec):
    full = 2_000 if spec["quick"] else 20_000
    with contender.make(spec["workers"]).opened() as pool:
        report.event("ready")

        def submitted(count):
            got = pool.gather([pool.submit(tasks.noop, i) for i in range(count)])
            assert list(got) == list(range(count)), "wrong results"

        def mapped(count, chunksize):
            got = pool.map(tasks.noop, range(count), chunksize)
            assert list(got) == list(range(count)), "wrong results"

        ways = []
        if pool.has_submit:
            ways.append(("submit", submitted, ()))
        if pool.has_chunks:
            ways.append(("map1", mapped, (1,)))
        ways.append(("map", mapped, (None,)))

        for name, way, extra in ways:
            report.stage(name)
            way(100, *extra)
            trial, _ = timed(way, 500, *extra)
            count = max(500, min(full, int(SECONDS_AT_MOST / trial * 500)))
            time.sleep(0.05)
            cpu = procs.tree_cpu()
            seconds, _ = timed(way, count, *extra)
            cpu = procs.tree_cpu() - cpu
            report.metric(name, count / seconds)
            if name == "submit":
                report.metric("cpu", cpu / count)


WORKLOADS = [
    Workload(
        "throughput",
        "20 000 no-op tasks, processes",
        METRICS,
        run,
        pools_of(pools.PROCESS),
        pools.REFERENCE[pools.PROCESS],
    ),
    Workload(
        "throughput-threads",
        "20 000 no-op tasks, threads",
        METRICS,
        run,
        pools_of(pools.THREAD),
        pools.REFERENCE[pools.THREAD],
    ),
]
