"""A list of test steps: run one after the other or side by side, counted, summed up in one last
plain line.

A step's own counts are read from what it prints (cargo, pytest, or "N passed, N failed"). A step
that ends badly without naming a failed test counts as one failure, and a good one without counts
as one pass, so the exit code and the last line always agree.
"""

import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from tools.shell import ROOT, announcement, full_env, say

STEP_LIMIT_S = 25 * 60  # a watchdog, not a target: a step that hangs is ended and reported
LEFTOVER_GRACE_S = 10  # for processes that still hold the output when their parent has ended
_TERMINATE_GRACE_S = 5

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_CARGO = re.compile(r"^test result: .*?(\d+) passed; (\d+) failed", re.M)
_PYTEST_LAST = re.compile(r"^=*\s*((?:\d+ [a-z]+(?:, )?)+) in [\d.]+s.*$", re.M)
_PLAIN = re.compile(r"^(\d+) passed, (\d+) failed$", re.M)


class Result(NamedTuple):
    name: str
    passed: int
    failed: int
    seconds: float
    note: str


def counts(text):
    """(passed, failed) as the output names them, or None where it names none."""
    text = _COLOUR.sub("", text)
    plain = _PLAIN.findall(text)
    if plain:
        return int(plain[-1][0]), int(plain[-1][1])
    cargo = _CARGO.findall(text)
    if cargo:
        return sum(int(good) for good, _ in cargo), sum(int(bad) for _, bad in cargo)
    pytest = _PYTEST_LAST.findall(text)
    if pytest:
        words = dict(reversed(pair.split()) for pair in pytest[-1].split(", "))
        bad = sum(int(words.get(kind, 0)) for kind in ("failed", "error", "errors"))
        return int(words.get("passed", 0)), bad
    return None


class Steps:
    """Collects results; ``finish()`` prints them and returns the exit code."""

    def __init__(self):
        self.results = []

    def run(self, name, argv, extra_env=None, limit_s=STEP_LIMIT_S):
        """One step; whether it was good."""
        return self.run_side_by_side([(name, argv, extra_env)], 1, limit_s)

    def run_side_by_side(self, jobs, at_once, limit_s=STEP_LIMIT_S):
        """Several, ``(name, argv, extra_env)`` each, so many at a time. What they print comes in
        their order, that of the first one that goes on as it prints it; whether all were good."""
        turns = _Turns(len(jobs))
        stop = threading.Event()
        with ThreadPoolExecutor(at_once) as threads:
            running = [
                threads.submit(_judged, job, limit_s, stop, turns.voice(place))
                for place, job in enumerate(jobs)
            ]
            try:
                results = [one.result() for one in running]
            except BaseException:  # Ctrl-C above all: the groups are not the terminal's
                stop.set()
                threads.shutdown(cancel_futures=True)
                raise
        self.results += results
        return not any(result.failed for result in results)

    def fail(self, name, why):
        say(f"\n== {name}: failed: {why}")
        self.results.append(Result(name, 0, 1, 0.0, why))

    def skip(self, name, why):
        say(f"\n== {name}: skipped: {why}")
        self.results.append(Result(name, 0, 0, 0.0, f"skipped: {why}"))

    def finish(self):
        width = max((len(result.name) for result in self.results), default=4)
        say(f"\n{'step':{width}}  {'passed':>7} {'failed':>7} {'seconds':>8}")
        for name, passed, failed, seconds, note in self.results:
            say(f"{name:{width}}  {passed:7} {failed:7} {seconds:8.1f}  {note}".rstrip())
        passed = sum(result.passed for result in self.results)
        failed = sum(result.failed for result in self.results)
        say(f"\n{passed} passed, {failed} failed")
        return 1 if failed or not passed else 0


class _Turns:
    """Who may print: the first of all jobs that have not ended. Others are held back."""

    def __init__(self, count):
        self._held = [[] for _ in range(count)]
        self._ended = [False] * count
        self._turn = 0
        self._lock = threading.Lock()

    def voice(self, place):
        """What the job in this place prints with: bytes, or None when it has ended."""

        def put(data):
            with self._lock:
                if data is None:
                    self._ended[place] = True
                else:
                    self._held[place].append(data)
                self._print()

        return put

    def _print(self):
        while self._turn < len(self._held):
            held, self._held[self._turn] = self._held[self._turn], []
            for data in held:
                sys.stdout.buffer.write(data)
            sys.stdout.flush()
            if not self._ended[self._turn]:
                return
            self._turn += 1


def _judged(job, limit_s, stop, voice):
    name, argv, extra_env = job
    argv = [str(word) for word in argv]
    voice(f"\n== {name}\n{announcement(argv, extra_env)}\n".encode())
    began = time.monotonic()
    try:
        code, text, note = _run_watched(argv, extra_env, limit_s, stop, voice)
    finally:
        voice(None)
    passed, failed = counts(text) or (0, 0)
    bad = code != 0 or bool(note)
    if bad and not failed:
        failed = 1
        note = note or f"ended with exit code {code}"
    if not bad and not passed and not failed:
        passed = 1
    return Result(name, passed, failed, time.monotonic() - began, note)


def _run_watched(argv, extra_env, limit_s, stop, voice):
    """Run in a process group of its own, passing the output on as it comes and keeping it."""
    try:
        process = subprocess.Popen(
            argv,
            cwd=ROOT,
            env=full_env(extra_env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as problem:
        return 127, "", f"cannot be started: {problem}"
    kept = []
    note = _pass_on(process, kept, limit_s, stop, voice)
    if note:
        _end_group(process, signal.SIGINT if stop.is_set() else signal.SIGTERM)
    process.stdout.close()
    return process.wait(), b"".join(kept).decode(errors="replace"), note


def _pass_on(process, kept, limit_s, stop, voice):
    """Copy the output until it closes. Returns what is wrong, or an empty text."""
    stream = process.stdout.fileno()
    deadline = time.monotonic() + limit_s
    ended = None
    while True:
        ready, _, _ = select.select([stream], [], [], 0.2)
        if ready:
            chunk = os.read(stream, 1 << 16)
            if not chunk:
                return ""
            kept.append(chunk)
            voice(chunk)
        now = time.monotonic()
        if stop.is_set():
            return "interrupted"
        if process.poll() is not None:
            ended = ended or now
            if now - ended > LEFTOVER_GRACE_S:
                return "left processes behind that still held its output"
        elif now > deadline:
            return f"still running after {limit_s} s: ended by the watchdog"


def _end_group(process, first_signal):
    for number in (first_signal, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        try:
            process.wait(_TERMINATE_GRACE_S)
        except subprocess.TimeoutExpired:
            continue
