"""4: getting data into a task and out of it, one task at a time.

Every repetition sends a fresh object, built outside the clock, so that a library
that remembers the last object by identity gains nothing. The worker reads one
number per page of an array; results are objects the worker already holds.
"""

from peerbench import contenders as pools
from peerbench import tasks
from peerbench.timing import median, timed

from .base import Metric, Workload, pools_of

MB = 1_000_000
PAYLOADS = {  # name: (kind, size, repetitions)
    "1MB": ("array", 1 * MB, 20),
    "10MB": ("array", 10 * MB, 7),
    "100MB": ("array", 100 * MB, 3),
    "dict": ("dict", 100_000, 3),
    "blobs": ("blobs", 1_000, 7),
}
TITLES = {
    "1MB": "1 MB array",
    "10MB": "10 MB array",
    "100MB": "100 MB array",
    "dict": "dict of 100 000",
    "blobs": "1 000 × 10 kB bytes",
}
METRICS = {
    f"{payload}-{way}": Metric(f"{TITLES[payload]}, {words}", "s")
    for payload in PAYLOADS
    for way, words in (("in", "argument"), ("out", "result"), ("both", "both"))
}


def run(contender, report, spec):
    with contender.make(spec["workers"]).opened() as pool:
        report.event("ready")
        pool.map(tasks.noop, range(20))
        for name, (kind, size, times) in PAYLOADS.items():
            if spec["quick"]:
                if name == "100MB":
                    continue
                times = 2
            build = tasks.BUILDERS[kind]
            weight = tasks.weigh(build(size))

            def put_in():
                thing = build(size)
                seconds, got = timed(pool.call, tasks.take, thing)
                assert got == weight, "the argument changed on its way"
                return seconds

            def get_out():
                seconds, got = timed(lambda: tasks.weigh(pool.call(tasks.give, kind, size)))
                assert got == weight, "the result changed on its way"
                return seconds

            def both_ways():
                thing = build(size)
                seconds, got = timed(
                    lambda: tasks.weigh(pool.call(tasks.take_and_give, thing, kind, size))
                )
                assert got == weight, "the result changed on its way"
                return seconds

            pool.map(tasks.make_ready, [f"{kind}:{size}"] * (4 * spec["workers"]))
            for way, action in (("in", put_in), ("out", get_out), ("both", both_ways)):
                report.stage(f"{name}-{way}")
                action()
                report.metric(f"{name}-{way}", median([action() for _ in range(times)]))


WORKLOADS = [
    Workload(
        "data",
        "Data as argument, as result, and both: seconds per task",
        METRICS,
        run,
        pools_of(pools.PROCESS),
        pools.REFERENCE[pools.PROCESS],
    ),
]
