"""Runs that are stopped in the middle: nothing is torn, nothing is left, and they can go on."""

import csv
import json
import os
import random
import signal
import subprocess
import sys

import pytest

SEED = int(os.environ.get("OXGANG_TEST_SEED", "20"))


def rows(path):
    """The rows of an output, each of which must be whole."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    assert text == "" or text.endswith("\n"), text[-100:]
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in text.splitlines()]
    found = list(csv.DictReader(text.splitlines()))
    assert all(None not in row and None not in row.values() for row in found)
    return found


def count(path):
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.parametrize("name", ["out.csv", "out.jsonl"])
def test_killed_at_any_moment_and_resumed(oxgang, target, tmp_path, until, name):
    moments = random.Random(f"{SEED} {name}")
    print(f"OXGANG_TEST_SEED={SEED}")
    inputs = [f'"{number}", é' for number in range(1500)]
    (tmp_path / "in.txt").write_text("\n".join(inputs), encoding="utf-8")
    out = tmp_path / name
    words = ["map", target("slowly"), "--from", "in.txt", "-o", name, "-j", "2", "--resume"]
    for _ in range(3):
        goal = count(out) + moments.randint(1, 300)
        process = oxgang.start(*words)
        until(lambda goal=goal: count(out) >= goal, process, what=f"row {goal}")
        oxgang.kill(process)
        found = rows(out)
        assert len({row["input"] for row in found}) == len(found)
    done = oxgang(*words)
    assert done.returncode == 0, done.stderr
    found = rows(out)
    assert sorted(row["input"] for row in found) == sorted(inputs)
    for row in found:
        result = row if name.endswith("csv") else row["result"]
        assert result["twice"] == row["input"] * 2


@pytest.mark.parametrize("model", ["process", "thread"])
def test_ctrl_c_keeps_what_is_done(oxgang, target, tmp_path, until, model):
    out = tmp_path / "out.jsonl"
    words = ["map", target("hold_unless_first"), "first 1", "first 2", "hold 1", "hold 2", "hold 3"]
    process = oxgang.start(*words, "-o", "out.jsonl", "-j", "2", "--model", model)
    until(lambda: count(out) == 2, process, what="two rows")
    process.send_signal(signal.SIGINT)
    code, _, err = oxgang.end(process)
    assert code == 130
    assert "stopped by Ctrl-C" in err and "2 ok, 0 failed" in err
    assert "to go on with out.jsonl, add --resume" in err
    assert "Traceback" not in err
    assert sorted(row["input"] for row in rows(out)) == ["first 1", "first 2"]


def test_ctrl_c_of_a_terminal_reaches_the_workers_too(oxgang, target, tmp_path, until):
    """A terminal sends the signal to every process of the job."""
    marks = [tmp_path / name for name in ("one", "two")]
    process = oxgang.start("map", target("note_then_hold"), *marks, "-j", "2")
    until(lambda: all(mark.exists() for mark in marks), process, what="two running calls")
    os.killpg(process.pid, signal.SIGINT)
    code, out, err = oxgang.end(process)
    assert (code, out) == (130, "")
    assert "Traceback" not in err and "stopped by Ctrl-C" in err
    assert "0 ok, 0 failed" in err


def test_ctrl_c_in_a_worker_is_no_failure_of_its_call(oxgang, target, tmp_path, until):
    """What becomes of a call after Ctrl-C is the command's to say, not the worker's."""
    mark = tmp_path / "mark"
    process = oxgang.start("map", target("note_then_wait"), mark, "-j", "1")
    until(lambda: mark.exists() and mark.read_text(), process, what="a running call")
    os.kill(int(mark.read_text()), signal.SIGINT)
    mark.with_name("mark.go").touch()
    assert oxgang.end(process)[:2] == (0, "done\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_signals_end_it_in_order_too(oxgang, target, tmp_path, until, number):
    mark = tmp_path / "mark"
    process = oxgang.start("map", target("note_then_hold"), mark, "-o", "out.csv")
    until(mark.exists, process, what="a running call")
    process.send_signal(number)
    code, _, err = oxgang.end(process)
    assert code == 128 + number
    assert f"stopped by signal {int(number)}" in err


def test_ctrl_c_while_waiting_for_the_first_input(oxgang, target, until):
    process = oxgang.start("map", target("upper"), stdin=subprocess.PIPE)
    until(lambda: _polls(process.pid), process, what="a wait for input")
    process.send_signal(signal.SIGINT)
    code, out, err = oxgang.end(process)
    assert (code, out) == (130, "")
    assert err == "oxgang map: stopped by Ctrl-C\n"


def test_ctrl_c_while_waiting_for_more_input(oxgang, target, tmp_path, until):
    process = oxgang.start(
        "map", target("touch"), "-o", "out.csv", "-j", "1", stdin=subprocess.PIPE
    )
    process.stdin.write("mark\n")
    process.stdin.flush()
    until(lambda: count(tmp_path / "out.csv") == 2, process, what="the first row")
    process.send_signal(signal.SIGINT)
    code, _, err = oxgang.end(process)
    assert code == 130
    assert "stopped by Ctrl-C" in err and "1 ok, 0 failed" in err


def test_ctrl_c_while_nobody_reads_the_results(oxgang, target, tmp_path, until):
    (tmp_path / "in.txt").write_text("\n".join(str(number) * 1000 for number in range(1000)))
    process = oxgang.start("map", target("upper"), "--from", "in.txt", "-j", "1")
    until(lambda: _is_full(process.stdout), process, what="a full pipe")
    process.send_signal(signal.SIGINT)
    code, _, err = oxgang.end(process)
    assert code == 130
    assert "stopped by Ctrl-C" in err


def test_a_reader_that_has_enough(oxgang, target, tmp_path):
    (tmp_path / "in.txt").write_text("\n".join(str(number) * 100 for number in range(20_000)))
    process = oxgang.start("map", target("upper"), "--from", "in.txt", "-j", "2")
    assert process.stdout.readline()
    process.stdout.close()
    process.stdout = None
    code, _, err = oxgang.end(process)
    assert (code, err) == (141, "")


def test_an_output_that_cannot_be_written_any_more(oxgang, target, tmp_path):
    """A limit on the size of files stands in for a full disk; threads need no other files."""
    (tmp_path / "in.txt").write_text("\n".join(map(str, range(5000))))
    limited = "import resource, signal, sys; from oxgang.__main__ import main; "
    limited += "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    limited += "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)); sys.exit(main())"
    words = ["map", target("same"), "--from", "in.txt", "-o", "out.csv", "--model", "thread"]
    done = subprocess.run(
        [sys.executable, "-c", limited, *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "stopped: cannot write out.csv: " in done.stderr
    found = rows(tmp_path / "out.csv")
    assert 100 < len(found) < 1000
    words = [*words, "--resume"]
    assert oxgang(*words).returncode == 0
    assert sorted(int(row["input"]) for row in rows(tmp_path / "out.csv")) == list(range(5000))


def test_a_full_disk(oxgang, target, tmp_path):
    """The rows that fit are whole and kept, the reason is told; with room it can be resumed."""
    (tmp_path / "in.txt").write_text("\n".join(map(str, range(50_000))))
    (tmp_path / "disk").mkdir()
    script = """
        mount -t tmpfs -o size=64k none disk || exit 99
        "$@"; code=$?
        cp disk/out.csv* disk/.out* . 2>/dev/null
        exit $code
    """
    words = ["map", target("same"), "--from", "in.txt", "--model", "thread"]
    command = ["unshare", "--mount", "sh", "-c", script, "sh", sys.executable, "-m", "oxgang"]
    done = subprocess.run(
        [*command, *words, "-o", "disk/out.csv"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode == 99 or "unshare" in done.stderr:
        pytest.skip("no small file system can be mounted here")
    assert done.returncode == 1, done.stderr
    assert "stopped: cannot write disk/out.csv: no storage space" in done.stderr
    assert "Traceback" not in done.stderr
    found = rows(tmp_path / "out.csv")
    assert 1000 < len(found) < 50_000
    assert oxgang(*words, "-o", "out.csv", "--resume").returncode == 0
    assert sorted(int(row["input"]) for row in rows(tmp_path / "out.csv")) == list(range(50_000))


def _polls(pid):
    """Whether a process sleeps in `ppoll`."""
    numbers = {"x86_64": "271", "aarch64": "73"}
    if os.uname().machine not in numbers:
        pytest.skip("the number of the system call is not known here")
    with open(f"/proc/{pid}/syscall") as file:
        return file.read().split()[0] == numbers[os.uname().machine]


def _is_full(pipe):
    """Whether less than a page is free in a pipe that we read."""
    import array
    import fcntl
    import termios

    waiting = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, waiting)
    return waiting[0] > fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ) - 8192
