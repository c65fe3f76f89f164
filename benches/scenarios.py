"""The scenarios of README.md: each measures one contender once, in seconds, and checks results."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from importlib.util import find_spec
from typing import NamedTuple

from benches import (
    channels,
    coroutines,
    data,
    everyone,
    limits,
    locks,
    loops,
    managers,
    numbers,
    processes,
    running,
    threads,
    work,
)
from benches.contenders import WORKERS, chunk_mapper, process_pool, thread_pool
from benches.rests import REST_S, mean_seconds

LOCKS = ("standard", "control", "oxgang")
BOTH = ("standard", "control", "oxgang", "oxgang-parked")
JANUS = ("janus",) if find_spec("janus") else ()
AIOMULTIPROCESS = ("aiomultiprocess",) if find_spec("aiomultiprocess") else ()
START_LIMIT_S = 120
HAND_PICKED = (1, 4, 16, 64)
SERIAL_SHARE = ".serial / workers"  # figures with a dot go into the JSON, not into the tables


class Scenario(NamedTuple):
    name: str
    measure: Callable  # (contender, scale) -> {figure: seconds}
    contenders: tuple
    references: tuple
    unit: str
    meaning: str


def _check(found, expected):
    if found != expected:
        raise AssertionError("wrong results: the figure would be worthless")


def _timed(way):
    began = time.perf_counter()
    result = way()
    return time.perf_counter() - began, result


def _round_trips(pool, count, pause_s=0.0):
    list(pool.map(work.nothing, range(200)))
    task = mean_seconds(lambda number: pool.submit(work.nothing, number).result(), count, pause_s)
    return {"task": task}


def round_trip(open_pool, count, pause_s, contender, scale):
    with open_pool(contender) as pool:
        return _round_trips(pool, max(50, int(count * scale)), pause_s)


def many(open_pool, fn, make, contender, scale):
    count = max(200, int(20_000 * scale))
    arguments = [make(number) for number in range(count)]
    with open_pool(contender) as pool:
        list(pool.map(fn, arguments[:200]))
        seconds, answers = _timed(
            lambda: [task.result() for task in [pool.submit(fn, one) for one in arguments]]
        )
    _check(answers, [fn(one) for one in arguments])
    return {"task": seconds / count}


def map_one_by_one(contender, scale):
    count = max(200, int(20_000 * scale))
    if contender.name == "mp.Pool":
        with chunk_mapper(contender) as mapped:
            mapped(work.nothing, range(200), 1)
            seconds, answers = _timed(lambda: mapped(work.nothing, range(count), 1))
    else:
        with process_pool(contender) as pool:
            list(pool.map(work.nothing, range(200), chunksize=1))
            seconds, answers = _timed(
                lambda: list(pool.map(work.nothing, range(count), chunksize=1))
            )
    _check(answers, list(range(count)))
    return {"task": seconds / count}


def start(contender, _scale):
    """Fresh interpreters: the first results from 2 workers, and what each of 4 more costs."""
    seconds = {}
    for workers in (2, 6):
        with tempfile.TemporaryDirectory(prefix="oxgang-bench-") as folder:
            program = [sys.executable, "-m", "benches.start"]
            done = subprocess.run(
                [*program, contender.name, str(workers), folder],
                capture_output=True,
                text=True,
                timeout=START_LIMIT_S,
                check=False,
            )
        if done.returncode:
            raise RuntimeError(done.stderr.strip()[-2000:])
        seconds[workers] = float(done.stdout)
    return {"first results": seconds[2], "one more worker": (seconds[6] - seconds[2]) / 4}


def _cpu_bound(fn, items, costs, contender, chunksizes):
    serial, expected = _timed(lambda: [fn(item) for item in items])
    if contender.name == "ideal":
        times = {".own": _ideal(fn, numbers.balanced(items, costs, WORKERS))}
    else:
        times = {}
        with chunk_mapper(contender) as mapped:
            mapped(fn, items[:20], 1)
            for label, chunksize in chunksizes.items():
                times[label], found = _timed(lambda size=chunksize: mapped(fn, items, size))
                _check(found, expected)
    return {"list": min(times.values()), SERIAL_SHARE: serial / WORKERS, **times}


def _ideal(fn, shares):
    """Bare forked processes, each with its fair share known beforehand, started by one byte."""
    children = []
    for share in shares:
        start_read, start_write = os.pipe()
        done_read, done_write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.read(start_read, 1)
                for item in share:
                    fn(item)
                os.write(done_write, b"x")
            finally:
                os._exit(0)
        os.close(start_read)
        os.close(done_write)
        children.append((pid, start_write, done_read))
    began = time.perf_counter()
    for _, start_write, _ in children:
        os.write(start_write, b"x")
    answers = [os.read(done_read, 1) for _, _, done_read in children]
    seconds = time.perf_counter() - began
    for pid, start_write, done_read in children:
        os.close(start_write)
        os.close(done_read)
        os.waitpid(pid, 0)
    _check(answers, [b"x"] * len(shares))
    return seconds


def cpu_primes(contender, scale):
    items = numbers.primes(max(50, int(2000 * scale)))
    costs = [n**0.5 for n in items]
    return _cpu_bound(work.is_prime, items, costs, contender, {".own": None})


def cpu_pareto(contender, scale):
    items = numbers.pareto_steps(300, int(60_000_000 * scale))
    own = {".own": None}
    picked = own if contender.is_oxgang else {f".chunksize {n}": n for n in HAND_PICKED}
    return _cpu_bound(work.burn, items, items, contender, picked)


def _order(number):
    return work.Order(number, f"customer {number % 97}", (number % 13, 7, 11))


def _date(number):
    return datetime(2000 + number % 97, 1, 1, second=number % 60)


def _same(number):
    return number


_ALONE = "one task submitted, its result awaited, then the next"
_MANY = "20,000 tasks submitted one by one, all results gathered"
_RESTED = "5 ms of rest (not counted) before each"


def _rested_too(name, measure, unit, meaning):
    """The scenario, and the same with a rest before each."""
    for title, pause_s, words in (
        (name, 0.0, meaning),
        (f"{name}-paused", REST_S, f"{meaning}, {_RESTED}"),
    ):
        yield Scenario(title, partial(measure, pause_s), BOTH, ("standard",), unit, words)


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            "process-round-trip",
            partial(round_trip, process_pool, 2000, 0.0),
            *(BOTH, ("standard",), "µs", f"no-op in a process: {_ALONE}"),
        ),
        Scenario(
            "process-round-trip-paused",
            partial(round_trip, process_pool, 200, REST_S),
            *(BOTH, ("standard",), "µs", f"{_ALONE}, {_RESTED}"),
        ),
        Scenario(
            "process-many",
            partial(many, process_pool, work.nothing, _same),
            *(BOTH, ("standard",), "µs", f"{_MANY}: no-ops"),
        ),
        Scenario(
            "process-many-dataclass",
            partial(many, process_pool, work.total, _order),
            *(BOTH, ("standard",), "µs", f"{_MANY}: each with a small dataclass"),
        ),
        Scenario(
            "process-many-pickled",
            partial(many, process_pool, work.year, _date),
            *(BOTH, ("standard",), "µs", f"{_MANY}: each with a datetime, which is pickled"),
        ),
        Scenario(
            "process-map-1",
            map_one_by_one,
            ("standard", "control", "mp.Pool", "oxgang", "oxgang-parked"),
            *(("standard", "mp.Pool"), "µs", "map(chunksize=1) over 20,000 no-ops"),
        ),
        Scenario(
            "multiprocessing-pool",
            processes.pool,
            *(BOTH, ("standard",), "µs", "a no-op: by map(chunksize=1), imap, and apply in turn"),
        ),
        Scenario(
            "multiprocessing-process",
            processes.start,
            ("standard", "control", "oxgang"),
            *(("standard",), "µs", "start and join of a process that does nothing, numpy loaded"),
        ),
        Scenario(
            "thread-round-trip",
            partial(round_trip, thread_pool, 5000, 0.0),
            *(BOTH, ("standard",), "µs", f"no-op in a thread: {_ALONE}"),
        ),
        Scenario(
            "thread-many",
            partial(many, thread_pool, work.nothing, _same),
            *(BOTH, ("standard",), "µs", f"{_MANY}, on two threads"),
        ),
        Scenario(
            "lock-with",
            locks.with_lock,
            *(LOCKS, ("standard",), "µs", "multiprocessing.Lock: an empty with block"),
        ),
        Scenario(
            "lock-contended",
            locks.contended,
            *(LOCKS, ("standard",), "µs", "two processes add to one number under one lock"),
        ),
        Scenario(
            "value-increment",
            locks.value_increment,
            *(LOCKS, ("standard",), "µs", "multiprocessing.Value += 1 under its lock"),
        ),
        Scenario(
            "array-item",
            locks.array_item,
            *(LOCKS, ("standard",), "µs", "multiprocessing.Array: an item is read"),
        ),
        *(
            Scenario(name, measure, BOTH, ("standard",), "µs", meaning)
            for name, measure, meaning in (
                ("event-set-clear", threads.event_set_clear, "threading.Event: set, clear"),
                ("semaphore-pair", threads.semaphore_pair, "threading.Semaphore: acquire, release"),
                ("thread-lock-with", partial(threads.lock_with, "Lock"), "threading.Lock: with"),
                ("rlock-with", partial(threads.lock_with, "RLock"), "threading.RLock: with"),
                ("condition-turns", threads.condition_round_trip, "threading.Condition: turns"),
                ("barrier-rounds", threads.barrier_round, "threading.Barrier of two threads"),
                ("event-turns", threads.event_round_trip, "two threading.Events: there and back"),
                ("queue-pair", partial(threads.queue_pair, "Queue"), "queue.Queue: put, get"),
                (
                    "simple-queue-pair",
                    partial(threads.queue_pair, "SimpleQueue"),
                    "queue.SimpleQueue: put, get",
                ),
                (
                    "priority-queue-pair",
                    partial(threads.queue_pair, "PriorityQueue"),
                    "queue.PriorityQueue: put, get",
                ),
                (
                    "queue-between-threads",
                    threads.queue_between_threads,
                    "queue.Queue: from a thread to another",
                ),
            )
        ),
        Scenario(
            "queue-to-coroutine",
            everyone.thread_to_coroutine,
            *((*JANUS, "oxgang"), JANUS, "µs", "from a thread to a coroutine"),
        ),
        Scenario(
            "queue-process-to-coroutine",
            everyone.process_to_coroutine,
            *(LOCKS, ("standard",), "µs", "from a process to a coroutine"),
        ),
        *_rested_too(
            "manager-dict", managers.dict_calls, "µs", "Manager().dict(): an item is set, and got"
        ),
        Scenario(
            "manager-objects",
            managers.objects,
            *(BOTH, ("standard",), "µs", "a dict is made in a manager, and let go"),
        ),
        *_rested_too(
            "queue-round-trip",
            channels.queue_round_trip,
            "µs",
            "an item to another process and back, by two queues",
        ),
        *_rested_too(
            "pipe-round-trip",
            channels.pipe_round_trip,
            "µs",
            "an object to another process and back, by a pipe",
        ),
        Scenario(
            "queue-stream",
            partial(channels.stream, 1),
            *(BOTH, ("standard",), "µs", "one process puts, another takes; time per item"),
        ),
        Scenario(
            "queue-stream-2",
            partial(channels.stream, 2),
            *(BOTH, ("standard",), "µs", "two processes put, two take; time per item"),
        ),
        Scenario(
            "queue-arrays",
            partial(channels.arrays, "queue"),
            *(BOTH, ("standard",), "ms", "arrays from another process, by a queue; time per array"),
        ),
        Scenario(
            "pipe-arrays",
            partial(channels.arrays, "pipe"),
            *(BOTH, ("standard",), "ms", "arrays from another process, by a pipe; time per array"),
        ),
        Scenario(
            "manager-arrays",
            managers.arrays,
            *(BOTH, ("standard",), "ms", "arrays in a Manager().dict(), set and got"),
        ),
        Scenario(
            "start",
            start,
            *(BOTH, ("standard",), "ms", "a fresh pool in a fresh interpreter"),
        ),
        Scenario(
            "run-start",
            running.start,
            *(
                ("standard", "oxgang"),
                ("standard",),
                "ms",
                "a script that does nothing, by `python` and `oxgang run`",
            ),
        ),
        Scenario(
            "limit-python",
            limits.python_code,
            *(("oxgang", "oxgang-parked"), (), "ms"),
            "how late the exception of a time limit is, in Python code",
        ),
        Scenario(
            "limit-c",
            limits.c_code,
            *(("oxgang", "oxgang-parked"), (), "ms"),
            "how late it is after limit and grace, in C code that never returns",
        ),
        Scenario(
            "recovery",
            limits.recovery,
            *(("oxgang", "oxgang-parked"), (), "ms"),
            "from SIGKILL of the only worker until the next task runs in its place",
        ),
        Scenario(
            "data-arrays",
            data.arrays,
            *(LOCKS, ("standard",), "ms", "a numpy array to a worker and back, every page read"),
        ),
        Scenario(
            "data-shared",
            data.shared_array,
            *(LOCKS, ("standard",), "ms", "the same, 100 MiB; for oxgang of `oxgang.shared`"),
        ),
        Scenario(
            "data-objects",
            data.objects,
            *(LOCKS, ("standard",), "ms", "lists of bytes and a dict, to a worker and back"),
        ),
        Scenario(
            "loop-process",
            partial(loops.in_flight, process_pool, True),
            *(BOTH, ("standard",), "µs", "100 no-ops in flight from an event loop, in processes"),
        ),
        Scenario(
            "loop-thread",
            partial(loops.in_flight, thread_pool, True),
            *(BOTH, ("standard",), "µs", "the same in threads"),
        ),
        Scenario(
            "loop-run-in-executor",
            partial(loops.in_flight, process_pool, False),
            *(BOTH, ("standard",), "µs", "the same in processes, by run_in_executor"),
        ),
        Scenario(
            "loop-burst",
            loops.burst,
            *(LOCKS, ("standard",), "µs", "3,000 futures complete at once; tasks await them"),
        ),
        Scenario(
            "coroutine-submit",
            coroutines.submitted,
            *(LOCKS, ("standard",), "µs", "20,000 empty coroutines from synchronous code"),
        ),
        Scenario(
            "coroutine-processes",
            coroutines.in_processes,
            *((*AIOMULTIPROCESS, "oxgang"), AIOMULTIPROCESS, "µs"),
            "10,000 empty coroutines on the loops of two processes",
        ),
        Scenario(
            "coroutine-cpu",
            coroutines.handlers,
            *(LOCKS, ("standard",), "s"),
            "600 coroutines that compute: one loop, and for oxgang two processes",
        ),
        Scenario(
            "coroutine-sleeps",
            coroutines.sleeps,
            *(LOCKS, ("standard",), "s"),
            "10,000 sleeps of 0.1 to 1 s at once, on one loop and in two processes",
        ),
        Scenario(
            "loop-posts",
            loops.posts,
            *(LOCKS, ("standard",), "µs", "3,000 calls that a thread sends into a loop"),
        ),
        Scenario(
            "loop-map",
            loops.many_items,
            *(LOCKS, ("standard",), "µs", "100,000 items, 100 at a time; by hand with a semaphore"),
        ),
        Scenario(
            "cpu-primes",
            cpu_primes,
            *(("ideal", "standard", "mp.Pool", "oxgang"), ("ideal", "standard"), "s"),
            "2,000 primality tests of 1 to 5 ms",
        ),
        Scenario(
            "cpu-pareto",
            cpu_pareto,
            *(("ideal", "standard", "mp.Pool", "oxgang"), ("ideal", "standard", "mp.Pool"), "s"),
            "300 tasks of Pareto sizes; the others with the best of four chunk sizes",
        ),
    )
}
