"""Runs cells one after another, watches them, and cleans up after each.

A cell is a fresh interpreter that measures one workload on one contender. Nothing
else of the benchmark runs at the same time, so contenders cannot disturb each other;
rounds interleave them, so that the machine's slow moments hit all of them alike.
"""

import functools
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from . import procs
from .report_line import clean

BENCH = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
READY_LIMIT = 90  # seconds from the cell's start to 'ready'
EXIT_LIMIT = 15  # from 'done' to the end of the process
GRACE = 1.0  # helpers may take this long to follow their parent
CALM_TRIES = 3  # --calm: runs of one cell at most
CALM_WAIT = 20  # --calm: longest wait for a quiet moment before a run
OWN_FILES = {"events", "output", "marks"}
ONE_THREAD = {
    name: "1"
    for name in (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "NUMEXPR_NUM_THREADS",
    )
}


class Cell:
    """One run of `python -m peerbench.cell`, seen from outside."""

    def __init__(self, workload, contender, options, case=None):
        self.workload, self.contender, self.case = workload, contender, case
        self.limit = workload.limit
        self.home = tempfile.mkdtemp(prefix="pb")  # short: ray puts sockets below it
        self.marks = os.path.join(self.home, "marks")
        os.mkdir(self.marks)
        self._events_path = os.path.join(self.home, "events")
        self.spec = {
            "workload": workload.name,
            "contender": contender.name,
            "case": case,
            "quick": options.quick,
            "workers": options.workers,
            "events": self._events_path,
            "marks": self.marks,
        }
        self.metrics, self.notes = {}, {}  # what a watch adds itself
        self.status, self.detail, self.left = "ok", "", []
        self.shm = tempfile.mkdtemp(prefix="pb", dir="/dev/shm") if options.own_shm else None

    # -- while it runs ---------------------------------------------------

    def start(self):
        environment = dict(os.environ, TMPDIR=self.home, **ONE_THREAD)
        environment["PYTHONPATH"] = os.pathsep.join(
            filter(None, [BENCH, os.environ.get("PYTHONPATH")])
        )
        self._output = open(os.path.join(self.home, "output"), "wb")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "peerbench.cell", json.dumps(self.spec)],
            cwd=self.home,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._output,
            start_new_session=True,
            preexec_fn=functools.partial(procs.give_own_shm, self.shm) if self.shm else None,
        )
        self.pid = self._process.pid
        self.started = time.monotonic()

    def running(self):
        return self._process.poll() is None

    def facts(self):
        try:
            with open(self._events_path) as f:
                lines = f.read().splitlines()
        except OSError:
            return []
        facts = []
        for line in lines:
            try:
                facts.append(json.loads(line))
            except ValueError:
                pass  # half a line: it is being written
        return facts

    def events(self):
        """Event name -> its last detail."""
        return {f["event"]: f["detail"] for f in self.facts() if "event" in f}

    def wait_until(self, condition, seconds):
        """True when the condition holds, False when time is up or the cell has ended."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if condition():
                return True
            if not self.running():
                return condition()
            time.sleep(0.02)
        return False

    def wait_for(self, event, seconds):
        return self.wait_until(lambda: event in self.events(), seconds)

    def marked_pids(self):
        """The processes that ran a marking task (see tasks.py): certainly workers."""
        return {
            int(n.split("-")[1]) for n in os.listdir(self.marks) if n.startswith(("pid-", "met-"))
        }

    def default_watch(self):
        """Ready in time, done in time, ended in time - else say which one failed."""
        if not self.wait_for("ready", READY_LIMIT):
            if self.running():
                self.status, self.detail = "hang", "never ready"
                return
        finished = self.wait_until(lambda: {"done", "failed"} & set(self.events()), self.limit)
        if not finished and self.running():
            self.status = "hang"
            self.detail = f"no end after {self.limit:.0f} s, at: " + self.events().get(
                "stage", "start"
            )
            return
        exit_limit = EXIT_LIMIT if self.case is None else 4
        if not self.wait_until(lambda: not self.running(), exit_limit):
            self.status = "exit hang"
            self.detail = f"interpreter still there {exit_limit} s after the end of the work"
            return
        events, code = self.events(), self._process.poll()
        if "failed" in events:
            self.status, self.detail = "failed", events["failed"]
        elif "done" not in events:
            self.status, self.detail = "crashed", f"exit code {code}: {self._last_words()}"

    # -- afterwards ------------------------------------------------------

    def finish(self):
        """Count what the cell left behind, then remove all of it."""
        me = os.getpid()
        if not self.running():
            deadline = time.monotonic() + GRACE
            while procs.descendants(me) and time.monotonic() < deadline:
                time.sleep(0.02)
            self.left = sorted(procs.role(p) for p in procs.descendants(me))
        procs.end_all_below(me)
        self._process.wait()
        self._output.close()
        procs.reap()

    def remove(self):
        shutil.rmtree(self.home, ignore_errors=True)
        if self.shm:
            shutil.rmtree(self.shm, ignore_errors=True)

    def shm_left(self):
        """Entries left in the cell's own /dev/shm; None where it could not have one."""
        return sorted(os.listdir(self.shm)) if self.shm else None

    def tmp_left(self):
        return sorted(set(os.listdir(self.home)) - OWN_FILES)

    def _last_words(self):
        with open(os.path.join(self.home, "output"), errors="replace") as f:
            lines = f.read().strip().splitlines()
        return clean("\n".join(lines[-20:]))[-200:]

    def record(self, label, round_number, seconds, foreign):
        facts = self.facts()
        return {
            "workload": self.workload.name,
            "contender": label,
            "case": self.case,
            "round": round_number,
            "status": self.status,
            "detail": self.detail,
            "metrics": {
                **{f["metric"]: f["value"] for f in facts if "metric" in f},
                **self.metrics,
            },
            "notes": {**{f["note"]: f["value"] for f in facts if "note" in f}, **self.notes},
            "left": self.left,
            "seconds": round(seconds, 2),
            "foreign": round(foreign, 3),
        }


def _cpu_spent_here():
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def run_cell(workload, label, contender, options, round_number, case=None, watch=None):
    """One cell from start to clean-up. `foreign`: CPUs that others kept busy meanwhile."""
    cell = Cell(workload, contender, options, case)
    begin, busy, own = time.monotonic(), procs.machine_busy(), _cpu_spent_here()
    try:
        cell.start()
        if watch:
            watch(cell)
        else:
            cell.default_watch()
    finally:
        cell.finish()
        seconds = time.monotonic() - begin
        foreign = (procs.machine_busy() - busy - (_cpu_spent_here() - own)) / seconds
        record = cell.record(label, round_number, seconds, max(0.0, foreign))
        if options.keep_output:
            name = "-".join(filter(None, [workload.name, case, label, str(round_number)]))
            shutil.copy(
                os.path.join(cell.home, "output"), os.path.join(options.keep_output, name + ".txt")
            )
        cell.remove()
    return record


def wait_for_calm(limit):
    """Wait until others used less than `limit` CPUs for half a second, or give up."""
    deadline = time.monotonic() + CALM_WAIT
    while time.monotonic() < deadline:
        busy, own, begin = procs.machine_busy(), _cpu_spent_here(), time.monotonic()
        time.sleep(0.5)
        others = procs.machine_busy() - busy - (_cpu_spent_here() - own)
        if others / (time.monotonic() - begin) <= limit:
            return


def run_calm_cell(workload, label, contender, options, round_number):
    """With --calm, wait for a quiet moment and repeat a cell that others disturbed.

    The calmest run counts, whatever it measured.
    """
    best = None
    for _ in range(CALM_TRIES if options.calm is not None else 1):
        if options.calm is not None:
            wait_for_calm(options.calm)
        record = run_cell(workload, label, contender, options, round_number, watch=workload.watch)
        if best is None or record["foreign"] < best["foreign"]:
            best = record
        if options.calm is None or best["foreign"] <= options.calm:
            break
    return best


def run_workload(workload, field, options, say):
    """All rounds of one workload. `field`: (label, contender) pairs. Yields records."""
    dice = random.Random(options.seed)
    strikes = {label: 0 for label, _ in field}
    for round_number in range(1, options.rounds_of(workload) + 1):
        order = list(field)
        dice.shuffle(order)
        for label, contender in order:
            if strikes[label] >= 2:
                continue  # failed twice: no more time spent on it
            if workload.cases:
                yield from _run_cases(workload, label, contender, options, round_number, say)
                continue
            record = run_calm_cell(workload, label, contender, options, round_number)
            if record["status"] != "ok":
                strikes[label] += 1
            say(record)
            yield record


def _run_cases(workload, label, contender, options, round_number, say):
    from .workloads.faults import CASES

    for case in workload.cases:
        if options.cases and case not in options.cases:
            continue
        record = run_cell(
            workload, label, contender, options, round_number, case, CASES[case].watch
        )
        record["grade"], record["verdict"] = CASES[case].judge(record)
        say(record)
        yield record


def interrupted(signum, frame):
    """Ctrl-C or a kill of the runner: leave through finally, so that cells are ended."""
    raise KeyboardInterrupt


def prepare():
    procs.adopt_orphans()
    signal.signal(signal.SIGTERM, interrupted)
    signal.signal(signal.SIGINT, interrupted)


def can_have_own_shm():
    """Try it in a child: only root may, and not in every container."""
    directory = tempfile.mkdtemp(prefix="pb", dir="/dev/shm")
    try:
        subprocess.run(
            ["true"], preexec_fn=functools.partial(procs.give_own_shm, directory), check=True
        )
        return True
    except (OSError, subprocess.SubprocessError):
        return False
    finally:
        os.rmdir(directory)
