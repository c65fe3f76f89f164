"""5: messages from producers to consumers."""

import threading
import time

from peerbench import contenders as pools
from peerbench.contenders import channels
from peerbench.timing import median, sample

from .base import Metric, Workload
from .crew import run_together

# name: (message, how many)
MESSAGES = {
    "int": (lambda: 7, 40_000),
    "1kB": (lambda: b"x" * 1_000, 30_000),
    "100kB": (lambda: b"x" * 100_000, 3_000),
}
TOPOLOGIES = {"1to1": (1, 1), "2to2": (2, 2)}
SECONDS_AT_MOST = 4
METRICS = {
    f"{message}-{way}": Metric(f"{message}, {way.replace('to', ' to ')}", "/s")
    for message in MESSAGES
    for way in TOPOLOGIES
}
METRICS["pingpong"] = Metric("there and back on two queues, median", "s")
THREAD_METRICS = {k: v for k, v in METRICS.items() if k[:3] in ("int", "pin")}


def flow(contender, message, count, producers, consumers):
    """Messages per second from the starting signal until the last one is taken."""
    channel = contender.make(0)
    channel.open()
    put, get, get_many = channel.put, channel.get, channel.get_many
    share = count // producers

    def producer(begin):
        begin()
        for _ in range(share):
            put(message)
        put(None)
        return share

    def consumer(begin):
        begin()
        taken = 0
        while get() is not None:
            taken += 1
        return taken

    def batch_consumer(begin):
        begin()
        taken = 0
        while True:
            batch = get_many()
            ends = batch.count(None)
            taken += len(batch) - ends
            for _ in range(ends - 1):  # leave the other consumers their end mark
                put(None)
            if ends:
                return taken

    Process = getattr(channel, "Process", threading.Thread)
    try:
        seconds, values = run_together(
            Process, [producer] * producers + [batch_consumer if get_many else consumer] * consumers
        )
    finally:
        channel.close()
    assert sum(values[producers:]) == share * producers, "messages lost"
    return share * producers / seconds


def pingpong(contender, times):
    """Median seconds for one message there and one back."""
    there, back = contender.make(0), contender.make(0)
    there.open()
    back.open()

    def asks(begin):
        begin()

        def once(i):
            there.put(i)
            if back.get() != i:
                raise AssertionError("wrong message")

        for i in range(50):
            once(i)
        durations = sample(once, times, at_most=3.0)
        there.put(None)
        return median(durations)

    def answers(begin):
        begin()
        while True:
            message = there.get()
            if message is None:
                return 0
            back.put(message)

    Process = getattr(there, "Process", threading.Thread)
    try:
        return run_together(Process, [asks, answers])[1][0]
    finally:
        there.close()
        back.close()


def run(contender, report, spec):
    threads = contender.kind == channels.THREAD
    report.event("ready")
    for name, (make, full) in MESSAGES.items():
        if threads and name != "int":
            continue  # threads pass a reference: size is no matter
        message = make()
        if threads:
            full *= 25  # a thread queue passes millions a second
        for way, (producers, consumers) in TOPOLOGIES.items():
            if producers > 1 and not contender.make(0).many_to_many:
                continue
            report.stage(f"{name}-{way}")
            trial = 200
            rate = flow(contender, message, trial, producers, consumers)
            if spec["quick"]:
                full = min(full, 2_000)
            count = max(trial, min(full, int(rate * SECONDS_AT_MOST)))
            time.sleep(0.05)
            report.metric(f"{name}-{way}", flow(contender, message, count, producers, consumers))
    report.stage("pingpong")
    report.metric("pingpong", pingpong(contender, 300 if spec["quick"] else 3_000))


def entries_of(kind):
    return lambda: [c for c in pools.QUEUES if c.kind == kind]


WORKLOADS = [
    Workload(
        "queue",
        "Queues between processes",
        METRICS,
        run,
        entries_of(channels.PROCESS),
        pools.REFERENCE[channels.PROCESS],
    ),
    Workload(
        "queue-threads",
        "Queues between threads",
        THREAD_METRICS,
        run,
        entries_of(channels.THREAD),
        pools.REFERENCE[channels.THREAD],
    ),
]
