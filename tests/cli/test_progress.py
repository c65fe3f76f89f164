"""Progress: a bar on a terminal, nothing elsewhere unless asked for."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time

import pytest

WATCHDOG = 120


class Terminal:
    """A terminal of 100 columns; `text` is all that was written to it."""

    def __init__(self):
        self.ours, self.theirs = pty.openpty()
        size = struct.pack("HHHH", 24, 100, 0, 0)
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, size)
        self.text = ""

    def read_to_the_end(self, process):
        """Read until the process has ended and nothing is left to read."""
        end = time.monotonic() + WATCHDOG
        while True:
            assert time.monotonic() < end, f"the command hung: {self.text}"
            ended = process.poll() is not None
            while select.select([self.ours], [], [], 0.02)[0]:
                self.text += os.read(self.ours, 65536).decode()
            if ended:
                return process.returncode


@pytest.fixture
def terminal():
    terminal = Terminal()
    yield terminal
    os.close(terminal.ours)
    os.close(terminal.theirs)


@pytest.fixture(autouse=True)
def plain_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")


def test_a_bar_with_rate_time_left_and_failures(oxgang, target, terminal, tmp_path):
    words = ["map", target("odd_fails"), *range(300), "-o", "out.csv"]
    process = oxgang.start(*words, stderr=terminal.theirs)
    assert terminal.read_to_the_end(process) == 1
    assert re.search(r"odd_fails .*=.* +\d+/300 +[\d.,]+/s +ETA \d+s", terminal.text)
    assert re.search(r"300/300 .* 150 failed", terminal.text)
    assert "150 ok, 150 failed" in terminal.text


def test_without_a_total_there_is_a_count(oxgang, target, terminal):
    process = oxgang.start(
        "map",
        target("upper"),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=terminal.theirs,
    )
    process.stdin.write("a\nb\nc\n")
    process.stdin.close()
    process.stdin = None
    assert terminal.read_to_the_end(process) == 0
    assert re.search(r"upper . 3 done +[\d.,]+/s", terminal.text)
    assert "ETA" not in terminal.text


def test_results_on_the_same_terminal_keep_their_lines(oxgang, target, terminal):
    words = ["map", target("upper"), *(f"word{number}" for number in range(50))]
    process = oxgang.start(*words, stdout=terminal.theirs, stderr=terminal.theirs)
    assert terminal.read_to_the_end(process) == 0
    shown = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", terminal.text)
    lines = re.split(r"[\r\n]+", shown)
    for number in range(50):
        assert lines.count(f"WORD{number}") == 1, lines


@pytest.mark.parametrize("words", [["--progress", "never"], ["--quiet"]])
def test_no_bar_when_told_so(oxgang, target, terminal, words):
    words = ["map", target("upper"), "a", "b", *words]
    process = oxgang.start(*words, stdout=subprocess.DEVNULL, stderr=terminal.theirs)
    assert terminal.read_to_the_end(process) == 0
    assert "\x1b" not in terminal.text and "ETA" not in terminal.text


def test_nothing_is_drawn_without_a_terminal(oxgang, target):
    for words in ([], ["--progress", "auto"]):
        done = oxgang("map", target("upper"), "a", "b", *words)
        assert re.fullmatch(r"oxgang map: 2 ok, 0 failed in [\d.]+ s \([\d.]+/s\)\n", done.stderr)


def test_plain_lines_when_asked_without_a_terminal(oxgang, target):
    done = oxgang("map", target("odd_fails"), "1", "2", "--progress", "always")
    assert "odd_fails: 2 of 2, " in done.stderr and "1 failed\n" in done.stderr
    assert "\x1b" not in done.stderr


DRAW = """
from oxgang._core import Progress
progress = Progress({total}, "things", "{stream}")
for number in range(10):
    progress.advance(number != 3)
progress.finish()
progress.finish()
"""


def draw(total, stream, stderr):
    return subprocess.Popen(
        [sys.executable, "-c", DRAW.format(total=total, stream=stream)],
        stderr=stderr,
        text=True,
    )


def test_the_class_behind_it(terminal):
    process = draw(10, "auto", terminal.theirs)
    assert terminal.read_to_the_end(process) == 0
    assert re.search(r"things .*10/10 .*ETA .* 1 failed", terminal.text)
    process = draw(10, "auto", subprocess.PIPE)
    assert process.communicate(timeout=WATCHDOG)[1] == ""
    process = draw(None, "always", subprocess.PIPE)
    assert re.fullmatch(
        r"things: 10 done, .*, 1 failed\n", process.communicate(timeout=WATCHDOG)[1]
    )


def test_the_class_refuses_other_streams():
    from oxgang._core import Progress

    with pytest.raises(ValueError, match="'auto' or 'always'"):
        Progress(1, "x", "sometimes")
