"""The real command as a subprocess, in a session of its own.

`oxgang(...)` runs it to its end; `start(...)` leaves it running, for tests that interfere.
Both are guarded: a command that does not end is killed and the test fails with its output.
After each test no process of any of its sessions may be left. Nothing here asserts that
something was fast; `until` waits for evidence.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

WATCHDOG = 120  # seconds; only a hang takes as long
TARGETS = Path(__file__).with_name("targets.py")


def until(happened, process=None, *, what="the evidence"):
    """Wait until `happened()`; fail if the process ends first, or nothing ever happens."""
    end = time.monotonic() + WATCHDOG
    while not happened():
        assert time.monotonic() < end, f"{what} never came"
        ended = process is not None and process.poll() is not None
        assert not ended or happened(), f"the command ended ({process.poll()}) before {what}"
        time.sleep(0.005)


def members(session):
    """The processes of a session that are alive."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            stat = Path("/proc", entry, "stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
        state, _parent, _group, of = stat.rpartition(")")[2].split()[:4]
        if int(of) == session and state not in "ZX":
            found.append(int(entry))
    return found


def _clean_signals():
    # A test run in the background may have been told to ignore Ctrl-C; the command must not.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Commands:
    """Starts commands in a folder; cleans up, and checks that there was nothing to clean up."""

    def __init__(self, folder, *interpreter_options):
        self.folder = folder
        self.options = interpreter_options
        self.started = []

    def __call__(self, *words, stdin=""):
        process = self.start(*words, stdin=subprocess.PIPE)
        try:
            out, err = process.communicate(stdin, timeout=WATCHDOG)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            pytest.fail(f"the command hung: {words}\n{out}\n{err}")
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def start(self, *words, **pipes):
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE}
        options |= {"stderr": subprocess.PIPE, "text": True, "encoding": "utf-8"} | pipes
        process = subprocess.Popen(
            [sys.executable, *self.options, *map(str, words)],
            cwd=self.folder,
            start_new_session=True,
            preexec_fn=_clean_signals,  # noqa: PLW1509  (the tests have one thread)
            **options,
        )
        self.started.append(process)
        return process

    def end(self, process):
        """Wait for a started command; return its code, output and errors."""
        try:
            out, err = process.communicate(timeout=WATCHDOG)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            pytest.fail(f"the command hung\n{out}\n{err}")
        return process.returncode, out, err

    def kill(self, process):
        """SIGKILL the command alone, as a crash would."""
        process.kill()
        process.wait()
        from oxgang.concurrent.futures import ProcessPoolExecutor

        if not ProcessPoolExecutor.__module__.startswith("oxgang"):
            # The standard pool's workers outlive their owner; oxgang's must not.
            for pid in members(process.pid):
                os.kill(pid, signal.SIGKILL)
        until(lambda: not members(process.pid), what="the end of all workers")
        process.communicate()

    def close(self):
        for process in self.started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
            until(lambda session=process.pid: not members(session), what="the end of all workers")


@pytest.fixture
def oxgang(tmp_path):
    commands = Commands(tmp_path, "-m", "oxgang")
    yield commands
    commands.close()


@pytest.fixture
def python(tmp_path):
    """The same with the interpreter alone."""
    commands = Commands(tmp_path)
    yield commands
    commands.close()


@pytest.fixture(name="until")
def _until():
    return until


@pytest.fixture
def target():
    """`target("name")` is the TARGET for a function of targets.py."""
    return lambda name: f"{TARGETS}:{name}"
