"""Limits and recovery: how late a limit is, how soon a worker is replaced. Only oxgang has them."""

import os
import signal
import statistics
import time

from benches import work
from benches.contenders import process_pool

LIMIT_S = 0.05
GRACE_S = 0.05


def _late(pool, task, options, count, allowed):
    """Seconds between when the caller should have the exception at the latest, counted from the
    submit on an idle worker, and when it has it."""
    from oxgang.errors import TaskTimeout

    late = []
    for _ in range(count):
        pool.submit(work.nothing, 0).result()
        begun = time.perf_counter()
        try:
            pool.submit_with(options, task).result()
        except TaskTimeout:
            late.append(time.perf_counter() - begun - allowed)
        else:
            raise AssertionError("no limit: the figure would be worthless")
    return {"late by": statistics.median(late), ".worst": max(late)}


def python_code(contender, scale):
    from oxgang import TaskOptions

    with process_pool(contender) as pool:
        options = TaskOptions(timeout=LIMIT_S, timeout_grace=10)
        return _late(pool, work.spin, options, max(5, int(60 * scale)), LIMIT_S)


def c_code(contender, scale):
    from oxgang import TaskOptions

    with process_pool(contender) as pool:
        options = TaskOptions(timeout=LIMIT_S, timeout_grace=GRACE_S)
        count = max(5, int(40 * scale))
        return _late(pool, work.stuck_in_c, options, count, LIMIT_S + GRACE_S)


def recovery(contender, scale):
    """From SIGKILL of the only worker until the next task runs in its place, by the clock that all
    processes share."""
    seconds = []
    with process_pool(contender, workers=1) as pool:
        for _ in range(max(5, int(60 * scale))):
            victim = pool.submit(work.nothing_and_pid, 0).result()
            killed = time.monotonic()
            os.kill(victim, signal.SIGKILL)
            while True:
                try:
                    began, pid = pool.submit(work.when_and_pid).result()
                except Exception as error:
                    if type(error).__name__ != "WorkerCrashed":
                        raise
                    continue  # the dying worker had begun it
                break
            if pid == victim:
                raise AssertionError("the worker lives: the figure would be worthless")
            seconds.append(began - killed)
    return {"next task": statistics.median(seconds), ".worst": max(seconds)}
