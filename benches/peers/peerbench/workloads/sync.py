"""6: shared state: manager dict, counters under lock, locks."""

from peerbench import contenders as pools
from peerbench.contenders import shared_state
from peerbench.timing import timed

from .base import Metric, Workload
from .crew import run_together

METRICS = {
    "lock": Metric("Lock, uncontended: acquire + release", "/s"),
    "rlock": Metric("RLock, uncontended: acquire + release", "/s"),
    "lock2": Metric("Lock, contended by 2: acquire + release", "/s"),
    "value2": Metric("Value += 1 under its lock, by 2", "/s"),
    "manager-start": Metric("Manager start", "s"),
    "dict-set": Metric("manager dict, set", "/s"),
    "dict-get": Metric("manager dict, get", "/s"),
    "dict2": Metric("manager dict, set + get, by 2", "/s"),
}
THREAD_METRICS = {k: METRICS[k] for k in ("lock", "rlock", "lock2")}


def hammer(lock, count):
    for _ in range(count):
        with lock:
            pass


def run(contender, report, spec):
    scale = 10 if spec["quick"] else 1
    state = contender.make(0)
    state.open()
    report.event("ready")

    count = 300_000 // scale
    for name, make in (("lock", state.Lock), ("rlock", state.RLock)):
        report.stage(name)
        lock = make()
        hammer(lock, 1000)
        seconds, _ = timed(hammer, lock, count)
        report.metric(name, count / seconds)

    report.stage("lock2")
    lock, count = state.Lock(), 300_000 // scale

    def locker(begin):
        begin()
        hammer(lock, count)
        return count

    seconds, counts = run_together(state.Process, [locker, locker])
    report.metric("lock2", sum(counts) / seconds)

    if state.Value is None:
        return

    report.stage("value2")
    value, count = state.Value("i", 0), 100_000 // scale

    def adder(begin):
        begin()
        for _ in range(count):
            with value.get_lock():
                value.value += 1
        return count

    seconds, _ = run_together(state.Process, [adder, adder])
    assert value.value == 2 * count, "increments lost"
    report.metric("value2", 2 * count / seconds)

    report.stage("manager-start")
    seconds, manager = timed(state.Manager)
    report.metric("manager-start", seconds)
    shared, count = manager.dict(), 5_000 // scale
    for i in range(100):
        shared[i] = i

    def set_all():
        for i in range(count):
            shared[i] = i

    def get_all():
        for i in range(count):
            if shared[i] != i:
                raise AssertionError("wrong value")

    for name, action in (("dict-set", set_all), ("dict-get", get_all)):
        report.stage(name)
        seconds, _ = timed(action)
        report.metric(name, count / seconds)

    def client(begin):
        shared[0] = 0  # opens this process's own connection
        begin()
        for i in range(count):
            shared[i] = i
            shared[i]
        return 2 * count

    report.stage("dict2")
    seconds, counts = run_together(state.Process, [client, client])
    report.metric("dict2", sum(counts) / seconds)
    manager.shutdown()


def entries_of(kind):
    return lambda: [c for c in pools.STATES if c.kind == kind]


WORKLOADS = [
    Workload(
        "sync",
        "Locks, counters and manager dicts between processes",
        METRICS,
        run,
        entries_of(shared_state.PROCESS),
        pools.REFERENCE[shared_state.PROCESS],
    ),
    Workload(
        "sync-threads",
        "Locks between threads",
        THREAD_METRICS,
        run,
        entries_of(shared_state.THREAD),
        pools.REFERENCE[shared_state.THREAD],
    ),
]
