"""7: how long until the first result, and what one Process costs."""

import tempfile
import time

from peerbench import contenders as pools
from peerbench import tasks
from peerbench.contenders import launchers
from peerbench.timing import median, timed

from .base import Metric, Workload, pools_of

METRICS = {
    "import": Metric("import", "s"),
    "first": Metric("import to first result", "s"),
    "both": Metric("import to both workers at work", "s"),
    "close": Metric("orderly close", "s"),
}
LAUNCH_METRICS = {
    "first": Metric("first start + join, import included", "s"),
    "next": Metric("later start + join, median", "s"),
}


def run(contender, report, spec):
    directory = tempfile.mkdtemp()
    pool = contender.make(spec["workers"])
    report.event("ready")
    start = time.perf_counter()
    pool.load()
    imported = time.perf_counter()
    pool.start()
    if pool.call(tasks.noop, 5) != 5:
        raise AssertionError("wrong result")
    first = time.perf_counter()
    met = pool.both_at_work(directory, 20.0)
    both = time.perf_counter()
    report.metric("import", imported - start)
    report.metric("first", first - start)
    if met:
        report.metric("both", both - start)
    else:
        report.note("both", "two tasks never ran at the same time")
    seconds, _ = timed(pool.close)
    report.metric("close", seconds)


def launch(contender, report, spec):
    launcher = contender.make(0)
    report.event("ready")

    def load_and_launch():
        launcher.load()
        once()

    def once():
        one = launcher.Process(target=tasks.noop, args=(1,))
        one.start()
        one.join()
        if getattr(one, "exitcode", 0) != 0:
            raise AssertionError(f"exit code {one.exitcode}")

    seconds, _ = timed(load_and_launch)
    report.metric("first", seconds)
    times = 5 if spec["quick"] else 25
    report.metric("next", median([timed(once)[0] for _ in range(times)]))


def entries_of(kind):
    return lambda: [c for c in pools.LAUNCHERS if c.kind == kind]


WORKLOADS = [
    Workload(
        "startup",
        "From import to first result, 2 workers",
        METRICS,
        run,
        pools_of(pools.PROCESS, every=False),
        pools.REFERENCE[pools.PROCESS],
        rounds=9,
    ),
    Workload(
        "process",
        "Process(target=f).start() + join()",
        LAUNCH_METRICS,
        launch,
        entries_of(launchers.PROCESS),
        pools.REFERENCE[launchers.PROCESS],
        rounds=7,
    ),
    Workload(
        "thread",
        "Thread(target=f).start() + join()",
        LAUNCH_METRICS,
        launch,
        entries_of(launchers.THREAD),
        pools.REFERENCE[launchers.THREAD],
        rounds=7,
    ),
]
