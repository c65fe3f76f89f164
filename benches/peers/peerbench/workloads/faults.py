"""8: what happens when things go wrong. One cell per case, one verdict per cell.

Inside the cell every wait has a limit of its own, so that a lost result is told
from a dead pool; the runner's watchdog (20 s from 'ready') ends whatever hangs even
so. Verdicts: good = the user gets a clear answer and can go on; fair = a clear
answer at some cost; bad = a hang, a lost result or processes left behind.
"""

import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from peerbench import contenders as pools
from peerbench import procs, tasks
from peerbench.report_line import clean
from peerbench.timing import TimeIsUp, time_limit

from .base import Workload, pools_of

WATCHDOG = 20
GOOD, FAIR, BAD = "good", "fair", "bad"


# -- inside the cell -------------------------------------------------------


def attempt(report, name, action, seconds):
    """Note how `action` ended: 'ok', 'hang', or the class of its exception."""
    start = time.monotonic()
    value, text = None, ""
    try:
        with time_limit(seconds):
            value = action()
        outcome = "ok"
    except TimeIsUp:
        outcome = "hang"
    except Exception as error:
        outcome, text = type(error).__name__, clean(str(error))
    report.note(
        name, {"outcome": outcome, "text": text, "seconds": round(time.monotonic() - start, 2)}
    )
    return value


def open_pool(contender, report, spec):
    pool = contender.make(spec["workers"])
    pool.load()
    pool.start()
    pool.map(tasks.short_sleep, range(8))
    report.event("ready")
    return pool


def finish(pool, report, seconds=4):
    """Does the pool still work, and can it be closed?"""

    def works():
        got = [pool.call(tasks.noop, i) for i in range(4)]
        assert got == [0, 1, 2, 3], "wrong results"

    attempt(report, "after", works, seconds)
    attempt(report, "close", pool.close, seconds)


def worker_killed(pool, contender, report, spec):
    jobs = list(range(49))
    jobs.insert(10, -1)  # the one that kills its worker
    if not pool.has_submit:
        got = attempt(report, "poison", lambda: pool.map(tasks.sleep_or_die, jobs), 9)
        report.note("returned", len(got) if got else 0)
    else:
        handles, refused = [], 0
        deadline = time.monotonic() + 9
        for job in jobs:
            try:
                handles.append((job, pool.submit(tasks.sleep_or_die, job)))
            except Exception:
                refused += 1
        returned = 0
        for job, handle in handles:
            if job >= 0:
                try:
                    with time_limit(max(0.05, deadline - time.monotonic())):
                        returned += pool.result(handle) == job
                except (TimeIsUp, Exception):
                    pass
        report.note("returned", returned)
        report.note("refused", refused)
        poison = [handle for job, handle in handles if job < 0]
        if poison:
            attempt(
                report,
                "poison",
                lambda: pool.result(poison[0]),
                max(1.0, deadline - time.monotonic()),
            )
    finish(pool, report)


def over_time_limit(pool, contender, report, spec):
    marks = spec["marks"]
    attempt(report, "call", lambda: pool.call_limited(tasks.sleep_forever, (marks,), 1.0), 6)
    pid = next((int(n[4:]) for n in os.listdir(marks) if n.startswith("pid-")), None)
    deadline = time.monotonic() + 3
    stopped = False
    while not stopped and time.monotonic() < deadline:
        stopped = (
            pid is None or not procs.alive(pid) or os.path.exists(os.path.join(marks, "ended"))
        )
        time.sleep(0.02)
    report.note("stopped", stopped)

    def both_at_work():
        if not pool.both_at_work(marks, 4.0):
            raise RuntimeError("only one worker is left")

    attempt(report, "after", both_at_work, 6)
    attempt(report, "close", pool.close, 4)


def call_of(fn, make_argument, seconds=8):
    def inside(pool, contender, report, spec):
        attempt(report, "call", lambda: pool.call(fn, make_argument()), seconds)
        finish(pool, report)

    return inside


def lambda_task(pool, contender, report, spec):
    def call():
        assert pool.call(lambda x: x + 1, 1) == 2, "wrong result"
        return True

    fresh = contender.make(spec["workers"])

    def by_map_of_a_fresh_pool():
        fresh.load()
        fresh.start()
        assert list(fresh.map(lambda x: x + 1, [1, 2])) == [2, 3], "wrong result"

    if not attempt(report, "call", call, 5):
        attempt(report, "map", by_map_of_a_fresh_pool, 4)
        attempt(report, "map-close", lambda: fresh.leave(None, None, None), 2)
    finish(pool, report, seconds=3)


def pool_in_pool(pool, contender, report, spec):
    def call():
        assert pool.nest(contender.name) == 10, "wrong result"

    attempt(report, "call", call, 12)
    finish(pool, report, seconds=3)


def busy(pool, contender, report, spec):
    """Two long tasks inside the library's own `with` block, as a script would."""
    try:
        pool.calls(tasks.sleep_a_minute, spec["marks"], 2)
    except BaseException as error:
        report.note("raised", type(error).__name__)
        pool.leave(*sys.exc_info())
        raise


def idle(pool, contender, report, spec):
    pool.both_at_work(spec["marks"], 5.0)  # leaves the workers' marks for the runner
    report.event("idle")
    time.sleep(60)


def hygiene(pool, contender, report, spec):
    report.note("fds_at_open", len(os.listdir("/proc/self/fd")))
    for _ in range(3):  # both workers get their share of a warm-up
        pool.map(tasks.churn, range(60))
        pool.map(tasks.short_sleep, range(8))
    pids = {p.pid for p in procs.descendants(os.getpid())}
    held = sum(procs.rss(pid) for pid in pids)
    fds = sum(_fds(pid) for pid in pids)
    pool.map(tasks.churn, range(500))
    if pids == {p.pid for p in procs.descendants(os.getpid())}:
        report.note("growth", round(sum(procs.rss(pid) for pid in pids) - held, 2))
        report.note("fd_growth", sum(_fds(pid) for pid in pids) - fds)
    time.sleep(0.3)
    cpu = procs.tree_cpu()
    time.sleep(3)
    report.note("idle_cpu", round((procs.tree_cpu() - cpu) / 3 * 100, 2))
    report.note("idle_processes", len(procs.descendants(os.getpid())))
    attempt(report, "close", pool.close, 8)
    vars(pool).clear()  # as if the user's variable had gone
    gc.collect()
    report.note("fds_left", len(os.listdir("/proc/self/fd")) - spec["fds_at_start"])
    report.note("threads_left", threading.active_count() - 1)


def _fds(pid):
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0


def run(contender, report, spec):
    spec["fds_at_start"] = len(os.listdir("/proc/self/fd"))
    pool = open_pool(contender, report, spec)
    CASES[spec["case"]].inside(pool, contender, report, spec)


# -- seen from outside: the runner's side of a case -------------------------


def signal_parent(number, group=False, until_busy=True):
    """Signal the cell while its workers are busy (or idle); look again 5 s later."""

    def watch(cell):
        cell.wait_for("ready", 90)
        if until_busy:
            cell.wait_until(lambda: len(cell.marked_pids()) >= 2, 15)
        else:
            cell.wait_for("idle", 15)
        workers = cell.marked_pids()
        if len(workers) < 2:
            cell.notes["problem"] = "the two tasks never ran at the same time"
        time.sleep(0.3)
        (os.killpg if group else os.kill)(cell.pid, number)
        start = time.monotonic()
        gone = None
        while time.monotonic() - start < 5:
            if gone is None and not cell.running():
                gone = time.monotonic() - start
            time.sleep(0.02)
        left = [p for p in procs.descendants(os.getpid()) if p.pid != cell.pid]
        cell.notes["parent_gone"] = None if gone is None else round(gone, 2)
        cell.notes["workers_left"] = sum(p.pid in workers for p in left)
        cell.notes["left"] = sorted(procs.role(p) for p in left if p.pid not in workers)
        cell.status = "ok"

    return watch


def watch_leftovers(cell):
    cell.default_watch()
    cell.wait_until(lambda: not cell.running(), 1)
    time.sleep(0.5)  # a resource tracker tidies up a little later
    if cell.shm is not None:
        cell.notes["shm_left"] = len(cell.shm_left())
    cell.notes["tmp_left"] = cell.tmp_left()


# -- verdicts ---------------------------------------------------------------


def outcome(notes, name):
    return notes.get(name, {}).get("outcome", "not reached")


def said(notes, name):
    """'TypeError: cannot pickle ... (0.01 s)', short enough for a table."""
    fact = notes.get(name, {})
    text = fact.get("text", "")
    text = f": {text if len(text) <= 80 else text[:79] + '…'}" if text else ""
    return f"{outcome(notes, name)}{text} ({fact.get('seconds', '?')} s)"


def ending(cell):
    """What the end of the cell adds to a verdict, or ''."""
    parts = []
    if outcome(cell["notes"], "close") not in ("ok", "not reached"):
        parts.append(f"close: {outcome(cell['notes'], 'close')}")
    if cell["status"] in ("hang", "exit hang", "crashed"):
        parts.append(
            {
                "hang": "hangs until killed",
                "exit hang": "interpreter never exits",
                "crashed": "parent died: " + cell["detail"],
            }[cell["status"]]
        )
    if cell["left"]:
        parts.append(f"{len(cell['left'])} processes left at exit")
    return "".join("; " + p for p in parts)


def pool_after(notes):
    after = outcome(notes, "after")
    return {
        "ok": "pool works on",
        "hang": "pool dead (hangs)",
        "not reached": "pool not usable",
    }.get(after, f"pool dead ({after})")


def judge_killed(cell):
    notes = cell["notes"]
    returned, poison, after = (
        notes.get("returned", 0),
        outcome(notes, "poison"),
        outcome(notes, "after"),
    )
    text = f"{returned}/49 back; lost task: {poison}; {pool_after(notes)}{ending(cell)}"
    if "hang" in (poison, after) or cell["status"] != "ok":
        return BAD, text
    return (GOOD if returned == 49 and after == "ok" else FAIR), text


def judge_limit(cell):
    notes = cell["notes"]
    call, stopped = outcome(notes, "call"), notes.get("stopped", False)
    both = outcome(notes, "after") == "ok"
    text = (
        f"caller: {call} after {notes.get('call', {}).get('seconds', '?')} s; "
        f"task {'stopped' if stopped else 'runs on'}; "
        f"{'both workers back' if both else 'worker not back'}{ending(cell)}"
    )
    if call == "hang" or (not stopped and cell["status"] != "ok"):
        return BAD, text
    return (GOOD if stopped and both and cell["status"] == "ok" else FAIR), text


def judge_call(cell):
    """A call that must fail with a clear error, and leave the pool working."""
    notes = cell["notes"]
    call, after = outcome(notes, "call"), outcome(notes, "after")
    text = f"{said(notes, 'call')}; {pool_after(notes)}{ending(cell)}"
    if call in ("hang", "not reached") or after == "hang" or cell["status"] != "ok":
        return BAD, text
    return (GOOD if after == "ok" else FAIR), text


def judge_ability(cell):
    """A call that ought to work; a clear refusal is fair."""
    notes = cell["notes"]
    call = outcome(notes, "call")
    if call == "ok":
        text = f"works ({notes['call']['seconds']} s)"
    else:
        text = said(notes, "call")
    if outcome(notes, "map") == "ok":
        text += "; works by map"
    text += ("" if outcome(notes, "after") == "ok" else f"; {pool_after(notes)}") + ending(cell)
    if (
        call in ("hang", "not reached")
        or outcome(notes, "after") == "hang"
        or cell["status"] != "ok"
    ):
        return BAD, text
    return (GOOD if call == "ok" else FAIR), text


def judge_left(cell):
    notes = cell["notes"]
    if "left" not in notes:
        return BAD, cell["detail"] or cell["status"]
    gone, left = notes["parent_gone"], _counted(notes["left"])
    text = "parent still there after 5 s" if gone is None else f"parent gone after {gone} s"
    if notes["workers_left"]:
        left = ", ".join(filter(None, [f"{notes['workers_left']} workers", left]))
    text += f"; left: {left}" if left else "; nothing left"
    if notes.get("problem"):
        text += f" [{notes['problem']}]"
    if gone is None or notes["workers_left"]:
        return BAD, text
    return (FAIR if left else GOOD), text


def _counted(names):
    return ", ".join(f"{names.count(n)} {n}" for n in sorted(set(names)))


def judge_hygiene(cell):
    notes = cell["notes"]
    if "idle_cpu" not in notes:
        return BAD, cell["detail"] or cell["status"]
    growth = notes.get("growth")
    parts = [
        "processes replaced" if growth is None else f"RSS {growth:+.1f} MB",
        f"idle CPU {notes['idle_cpu']:.1f} %",
        f"{notes['idle_processes']} processes below the parent",
        f"left: {notes.get('fds_left', '?')} fds, {notes.get('threads_left', '?')} threads, "
        f"{notes.get('shm_left', '?')} shm, {len(cell['left'])} processes",
    ]
    if notes.get("fd_growth"):
        parts.append(f"worker fds {notes['fd_growth']:+d}")
    if notes.get("tmp_left"):
        parts.append("temp files: " + ", ".join(notes["tmp_left"][:3]))
    text = "; ".join(parts) + ending({**cell, "left": []})
    if cell["left"] or notes.get("shm_left") or cell["status"] != "ok" or (growth or 0) > 20:
        return BAD, text
    tidy = (
        (growth or 0) < 5
        and notes["idle_cpu"] < 1
        and notes.get("fds_left", 0) <= 4
        and not notes.get("threads_left")
        and not notes.get("tmp_left")
    )
    return (GOOD if tidy else FAIR), text


class Case(NamedTuple):
    title: str
    inside: Callable  # inside(pool, contender, report, spec)
    judge: Callable  # judge(cell record) -> (grade, text)
    watch: Callable | None = None


CASES = {
    "worker-killed": Case("a task SIGKILLs its worker, 49 others", worker_killed, judge_killed),
    "time-limit": Case("a task sleeps forever, limit 1 s", over_time_limit, judge_limit),
    "bad-argument": Case(
        "argument cannot be pickled", call_of(tasks.noop, threading.Lock), judge_call
    ),
    "bad-result": Case("result cannot be pickled", call_of(tasks.return_a_lock, int), judge_call),
    "bad-exception": Case(
        "exception cannot be unpickled", call_of(tasks.raise_unloadable, int), judge_call
    ),
    "bad-exception-out": Case(
        "exception cannot be pickled", call_of(tasks.raise_undumpable, int), judge_call
    ),
    "lambda": Case("lambda as the task", lambda_task, judge_ability),
    "nested": Case("pool inside a pool", pool_in_pool, judge_ability),
    "ctrl-c": Case(
        "SIGINT to the parent alone, 2 workers busy", busy, judge_left, signal_parent(signal.SIGINT)
    ),
    "ctrl-c-group": Case(
        "SIGINT to the whole group, as a terminal does",
        busy,
        judge_left,
        signal_parent(signal.SIGINT, group=True),
    ),
    "parent-killed": Case(
        "parent SIGKILLed, 2 workers busy", busy, judge_left, signal_parent(signal.SIGKILL)
    ),
    "parent-killed-idle": Case(
        "parent SIGKILLed, workers idle",
        idle,
        judge_left,
        signal_parent(signal.SIGKILL, until_busy=False),
    ),
    "hygiene": Case(
        "500 tasks that keep nothing, 3 s idle, close", hygiene, judge_hygiene, watch_leftovers
    ),
}

WORKLOADS = [
    Workload(
        "faults",
        "Faults, with a 20 s watchdog",
        {},
        run,
        pools_of(pools.PROCESS, every=False),
        pools.REFERENCE[pools.PROCESS],
        limit=WATCHDOG,
        rounds=1,
        cases=tuple(CASES),
    ),
]
