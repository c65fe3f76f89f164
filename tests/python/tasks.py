"""Functions that tests run in workers, and what they use to meet across processes.

Everything is by files in a folder of the test, so that it works alike in threads, in forked
and in spawned processes. A wait here has a guard, so that a failed test leaves no worker.
"""

import os
import signal
import time
from itertools import count
from pathlib import Path

GUARD_S = 60


def wait_until(condition, what):
    end = time.monotonic() + GUARD_S
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"waited {GUARD_S} s in vain until {what}")
        time.sleep(0.005)


class Inputs:
    """An endless iterator 0, 1, 2, … that knows how far it was read; may fail at one."""

    def __init__(self, fail_at=None, error=None):
        self.read = 0
        self._numbers = count()
        self._fail_at = fail_at
        self._error = error

    def __iter__(self):
        return self

    def __next__(self):
        if self.read == self._fail_at:
            raise self._error
        self.read += 1
        return next(self._numbers)


class Folder:
    """What tasks of one test leave for each other to see."""

    def __init__(self, path):
        self.path = Path(path)

    def mark(self, name):
        (self.path / str(name)).touch()

    def marked(self, name):
        return (self.path / str(name)).exists()

    def wait_for(self, name):
        wait_until(lambda: self.marked(name), f"{name} is marked")

    def count_call(self, name):
        """How many times this was called for `name`, this one included."""
        with (self.path / f"calls-{name}").open("ab") as file:
            file.write(b".")
            return file.tell()

    def calls(self, name):
        path = self.path / f"calls-{name}"
        return path.stat().st_size if path.exists() else 0

    def ran(self):
        """How many different names were counted."""
        return sum(1 for _ in self.path.glob("calls-*"))


def set_environment(name, value):
    os.environ[name] = value


def square(number):
    return number * number


def add(left, right):
    return left + right


def fail_at_seven(number):
    if number == 7:
        raise LookupError("seven")
    return number


def raise_timeout(number):
    raise TimeoutError(f"of the task {number}")


def exit_by_exception(number):
    raise SystemExit(number)


class Parcel:
    """A result that weak references can watch."""

    def __init__(self, number):
        self.number = number


def parcel(number):
    return Parcel(number)


def counted(folder, number):
    folder.count_call(number)
    return number


def counted_but_first_waits(folder, number):
    """Number 0 waits for the mark "go"; every other is only counted."""
    folder.count_call(number)
    if number == 0:
        folder.wait_for("go")
    return number


def fail_at_seven_counted(folder, number):
    folder.count_call(number)
    return fail_at_seven(number)


def wait_for_go(folder, number):
    folder.mark(f"begun-{number}")
    folder.wait_for("go")
    return number


def fail_at_go(folder, number):
    folder.count_call(number)
    folder.mark(f"begun-{number}")
    folder.wait_for("go")
    raise ConnectionError(f"{number} failed")


def die_at_go(folder, number):
    folder.count_call(number)
    folder.mark(f"begun-{number}")
    folder.wait_for("go")
    os.kill(os.getpid(), signal.SIGKILL)


def first_waits_for(folder, last, number):
    """Number 0 ends only after number `last` has run."""
    if number == last:
        folder.mark("last")
    if number == 0:
        folder.wait_for("last")
    return number


def fail_times(folder, times, number):
    """Fails `times` times, then succeeds."""
    calls = folder.count_call(number)
    if calls <= times:
        raise ConnectionError(f"{number} failed {calls} times")
    return number


def low_numbers_fail_once(folder, below, number):
    if folder.count_call(number) == 1 and number < below:
        raise ConnectionError(f"{number} failed")
    return number


def interrupt_owner(folder, pid, number):
    """Send Ctrl-C to the test's process, then work on until told to stop."""
    if number == 0:
        os.kill(pid, signal.SIGINT)
    folder.wait_for("go")
    return number


def crash_once(folder, at, number):
    """The worker that gets number `at` is killed; when run again it goes well."""
    if number == at and folder.count_call(number) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number
