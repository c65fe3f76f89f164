"""The demo: both examples on real input, a worker killed on the way, and a table at the end.

Run by ``dev.py demo``. Everything is done twice, by the standard library and by oxgang, in the same
process and in alternating order. Exit code 1 if oxgang lost more than the killed worker's task, or
if any result differs from the standard library's.
"""

import os
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
import traceback
from concurrent import futures as standard
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import csv_stats
import download
import oxgang
from oxgang.concurrent import futures as drop_in

from tools import demo_tasks, file_server
from tools.sample_data import csv_files
from tools.shell import DEV, say

FOLDER = DEV / "demo"
FILES = 40
BYTES_EACH = 2_500_000
ROUNDS = 3
SMALL_TASKS = 5_000
ROUND_TRIPS = 300
SERVER_DELAY_S = 0.02
DOWNLOAD_THREADS = 8
WAIT_LIMIT_S = 90


class Demo:
    """Collects the rows of the table and what went wrong."""

    def __init__(self, paths, workers):
        self.paths = paths
        self.workers = workers
        self.rows = []
        self.problems = []

    def compare(self, label, by_standard, by_oxgang, per=1, unit="s"):
        """Time two ways of doing the same, alternating; check that they agree."""
        times = ([], [])
        for round_number in range(ROUNDS):
            order = (0, 1) if round_number % 2 == 0 else (1, 0)
            results = [None, None]
            for side in order:
                way = (by_standard, by_oxgang)[side]
                began = time.perf_counter()
                results[side] = way()
                times[side].append(time.perf_counter() - began)
            if results[0] != results[1]:
                self.problems.append(f"{label}: the results differ")
        medians = [statistics.median(column) / per for column in times]
        scale = {"s": 1, "ms": 1e3, "µs": 1e6}[unit]
        texts = [f"{median * scale:.3g} {unit}" for median in medians]
        self.rows.append((label, *texts, f"{medians[0] / medians[1]:.2f}x"))
        say(f"   {label}: standard {texts[0]}, oxgang {texts[1]}")

    def summaries(self):
        say(f"\n1. {len(self.paths)} CSV files, {self.workers} workers, with a progress bar")
        first = self._mapped(progress=True)
        for line in csv_stats.table(first[:2]).splitlines():
            say(f"   {line}")
        say(f"   … and so on. Now timed, {ROUNDS} rounds each:")

        def by_standard():
            with standard.ProcessPoolExecutor(self.workers) as pool:
                return list(pool.map(csv_stats.stats, self.paths))

        self.compare("summaries of 100 MB of CSV, pool included", by_standard, self._mapped)

    def _mapped(self, progress=False):
        options = {"model": "process", "max_workers": self.workers, "progress": progress}
        return list(oxgang.map(csv_stats.stats, self.paths, **options))

    def crash(self):
        say("\n2. The same files, and one worker is killed (SIGKILL) in the middle of a task")
        lost_standard = self._lost(standard.ProcessPoolExecutor, "standard library")
        lost_oxgang = self._lost(drop_in.ProcessPoolExecutor, "oxgang")
        total = len(self.paths)
        texts = [f"{lost} of {total}" for lost in (lost_standard, lost_oxgang)]
        self.rows.append(("tasks lost when a worker is killed", *texts, ""))
        if lost_oxgang != 1:
            self.problems.append(f"one worker was killed, and oxgang lost {lost_oxgang} tasks")

    def _lost(self, pool_class, name):
        victim, note = self._victim()
        with pool_class(self.workers) as pool:
            tasks = [pool.submit(demo_tasks.summarise, p, victim, note) for p in self.paths]
            pid = _kill_reported(note)
            errors = [task.exception(WAIT_LIMIT_S) for task in tasks]
        pairs = zip(self.paths, errors, strict=True)
        lost = [(path, error) for path, error in pairs if error is not None]
        say(f"   {name}: killed worker {pid}; lost {len(lost)} of {len(tasks)} tasks")
        if lost:
            path, error = lost[0]
            say(f"      {os.path.basename(path)}: {type(error).__name__}: {error}"[:200])
        return len(lost)

    def crash_with_retry(self):
        say("\n3. Once more, by oxgang.map with retries=1")
        victim, note = self._victim()
        killed = []
        killer = threading.Thread(target=lambda: killed.append(_kill_reported(note)))
        killer.start()
        outcomes = oxgang.map(
            demo_tasks.SummariseWithVictim(victim, note),
            self.paths,
            model="process",
            max_workers=self.workers,
            retries=1,
            progress=True,
            return_exceptions=True,
        )
        outcomes = list(outcomes)
        killer.join()
        failed = sum(isinstance(outcome, Exception) for outcome in outcomes)
        say(f"   killed worker {killed}; {len(outcomes) - failed} files summarised, {failed} lost")
        self.rows.append(("… with retries=1", "-", f"{failed} of {len(self.paths)}", ""))
        if failed or not killed:
            self.problems.append(f"with retries=1, {failed} tasks were lost")

    def _victim(self):
        note = FOLDER / "killed-worker.pid"
        note.unlink(missing_ok=True)
        return self.paths[4], str(note)

    def downloads(self):
        say(f"\n5. The same files over HTTP from 127.0.0.1, {DOWNLOAD_THREADS} threads")
        with _server_process() as address:
            urls = [f"{address}/{os.path.basename(path)}" for path in self.paths]
            target = FOLDER / "downloads"

            def fetched(mapped):
                shutil.rmtree(target, ignore_errors=True)
                return [found["bytes"] for found in mapped(_download_to(target))]

            def by_standard(job):
                with standard.ThreadPoolExecutor(DOWNLOAD_THREADS) as pool:
                    return list(pool.map(job, urls))

            def by_oxgang(job, progress=False):
                options = {"max_workers": DOWNLOAD_THREADS, "progress": progress}
                return list(oxgang.map(job, urls, model="thread", **options))

            fetched(lambda job: by_oxgang(job, progress=True))
            self.compare(
                "download of the 100 MB, from this machine",
                lambda: fetched(by_standard),
                lambda: fetched(by_oxgang),
            )
            shutil.rmtree(target, ignore_errors=True)

    def flaky_downloads(self):
        target = FOLDER / "flaky"
        shutil.rmtree(target, ignore_errors=True)
        names = [os.path.basename(path) for path in self.paths[:3]]
        with file_server.serving(FOLDER / "csv") as server:
            server.faults = {
                f"/{names[0]}": [file_server.Fault(drop_after=1_000_000)],
                f"/{names[1]}": [file_server.Fault(status=500)] * 2,
            }
            urls = [f"{server.url}/{name}" for name in names]
            options = {"model": "thread", "max_workers": 3}
            for done in oxgang.map(_download_to(target), urls, **options):
                resumed = f", resumed at byte {done['resumed_at']}" if done["resumed_at"] else ""
                say(f"   {os.path.basename(done['file'])}: {done['attempts']} attempts{resumed}")
        for path, name in zip(self.paths, names, strict=False):
            if Path(path).read_bytes() != (target / name).read_bytes():
                self.problems.append(f"download of {name}: not the bytes that were served")
        shutil.rmtree(target)

    def small_tasks(self):
        say(f"\n4. Small tasks: {SMALL_TASKS} at once, then {ROUND_TRIPS} one by one")
        with (
            standard.ProcessPoolExecutor(self.workers) as old,
            drop_in.ProcessPoolExecutor(self.workers) as new,
        ):

            def all_at_once(pool):
                tasks = [pool.submit(demo_tasks.nothing, n) for n in range(SMALL_TASKS)]
                return [task.result() for task in tasks]

            def one_by_one(pool):
                return [pool.submit(demo_tasks.nothing, n).result() for n in range(ROUND_TRIPS)]

            for pool in (old, new):
                all_at_once(pool)  # all workers are up
            for label, way, count in (
                ("a no-op task among many", all_at_once, SMALL_TASKS),
                ("a no-op task there and back", one_by_one, ROUND_TRIPS),
            ):
                self.compare(label, lambda w=way: w(old), lambda w=way: w(new), count, "µs")

    def table(self):
        rows = [("same work, same run", "standard library", "oxgang", "ratio"), *self.rows]
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        say("")
        for row in rows:
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
            say("   ".join(cells).rstrip())


def _kill_reported(note):
    """Kill the worker whose pid a task has written to ``note``; give up if none ever does."""
    deadline = time.monotonic() + WAIT_LIMIT_S
    while time.monotonic() < deadline:
        text = Path(note).read_text() if os.path.exists(note) else ""
        if text.endswith("\n"):
            os.kill(int(text), signal.SIGKILL)
            return int(text)
        time.sleep(0.005)
    raise TimeoutError(f"no task reported its pid within {WAIT_LIMIT_S} s")


def _download_to(folder):
    return partial(download.fetch, directory=folder, attempts=5)


@contextmanager
def _server_process():
    """A server outside this process, so that its work is not ours; it ends when its input does."""
    command = [sys.executable, "-m", "tools.file_server", FOLDER / "csv", str(SERVER_DELAY_S)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:
        try:
            address = process.stdout.readline().strip()
            if not address:
                raise OSError("the file server did not start; its message is above")
            yield address
        finally:
            process.stdin.close()
            process.wait(WAIT_LIMIT_S)


def main():
    workers = max(2, min(8, len(os.sched_getaffinity(0))))
    say(f"Preparing {FILES * BYTES_EACH // 1_000_000} MB of CSV files in .dev/demo")
    demo = Demo(csv_files(FOLDER / "csv", FILES, BYTES_EACH), workers)
    for part in (
        demo.summaries,
        demo.crash,
        demo.crash_with_retry,
        demo.small_tasks,
        demo.downloads,
        demo.flaky_downloads,
    ):
        try:
            part()
        except Exception as problem:  # the other parts still have something to show
            traceback.print_exc()
            demo.problems.append(f"{part.__name__}: {type(problem).__name__}: {problem}")
    demo.table()
    for problem in demo.problems:
        say(f"wrong: {problem}")
    return 1 if demo.problems else 0


if __name__ == "__main__":
    sys.exit(main())
