"""Running programs in tests, and looking at what they leave behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

HERE = Path(__file__).parent


class Program:
    """A Python program in a session of its own, with a folder of its own for temporary files."""

    def __init__(self, tmp_path, *words):
        self.temporary = tmp_path / "temporary"
        self.temporary.mkdir()
        self._process = subprocess.Popen(
            [sys.executable, *map(str, words)],
            cwd=tmp_path,
            env=os.environ | {"TMPDIR": str(self.temporary)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.pid = self._process.pid

    def wait_for_line(self, text):
        """Reads its output until there is a line with this text; that line."""
        for line in self._process.stdout:
            if text in line:
                return line
        pytest.fail(f"it never said {text!r}; on stderr: {self._process.stderr.read()}")

    def wait_until_asleep(self):
        """Until its main thread has been asleep for a while."""
        asleep = 0
        while asleep < 20:
            asleep = asleep + 1 if state_of(self.pid) == "S" else 0
            time.sleep(0.005)

    def signal(self, number):
        self._process.send_signal(number)

    def signal_all(self, number):
        """As a terminal does: to the program and all that it has started."""
        os.killpg(self.pid, number)

    def end(self):
        """Waits for its end: exit code (negative: by this signal), and what it said on stderr."""
        _, errors = self._process.communicate()
        return self._process.returncode, errors

    def kill_it_alone(self):
        """Ends it, and not what it has started, which may go on writing to its output."""
        self._process.kill()
        self._process.wait()

    def assert_nothing_left(self, fork_server=False):
        """No process of its session, no temporary file, no named shared memory. (All memory that
        is shared is that of processes, then: it has no name.)"""
        while processes_of_session(self.pid):
            time.sleep(0.01)  # the watchdog says who is left
        files = [path.name for path in self.temporary.iterdir()]
        # the standard fork server may leave its folder: it is removed only at an orderly end
        assert [name for name in files if not (fork_server and name.startswith("pymp-"))] == []
        assert [name for name in os.listdir("/dev/shm") if "oxgang" in name] == []

    def destroy(self):
        """Whatever a failed test has left."""
        for pid in [self.pid, *processes_of_session(self.pid)]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._process.communicate()


def state_of(pid):
    """The letter of /proc; None if there is no such process."""
    fields = _stat(pid)
    return fields and fields[0]


def gone(pid):
    return state_of(pid) in (None, "Z", "X")


def processes_of_session(session):
    """Those that live."""
    found = []
    for path in Path("/proc").iterdir():
        fields = _stat(path.name) if path.name.isdecimal() else None
        if fields and fields[0] not in "ZX" and int(fields[3]) == session:
            found.append(int(path.name))
    return found


def _stat(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
