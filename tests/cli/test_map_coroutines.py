"""`oxgang map` with functions that are async."""

import json
import signal

import pytest


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.parametrize("words", [[], ["--model", "coroutine"], ["--model", "auto"]])
def test_chosen_by_the_function(oxgang, target, words):
    done = oxgang("map", target("nap_and_upper"), "a", "b", "c", *words)
    assert (done.returncode, sorted(done.stdout.split())) == (0, ["A", "B", "C"])
    assert done.stderr.startswith("oxgang map: 3 ok, 0 failed in ")


def test_so_many_at_once(oxgang, target):
    """None ends before all have begun, 150 or, by default, 100."""
    for count, words in ((150, ["-j", "150"]), (100, [])):
        inputs = [f"{count} {number}" for number in range(count)]
        done = oxgang("map", target("meet_all"), *inputs, *words)
        assert sorted(map(int, done.stdout.split())) == list(range(count)), done.stderr


def test_retries_and_failures(oxgang, target, tmp_path):
    done = oxgang("map", target("second_try_async"), "x", "y", "--retries", "1")
    assert (done.returncode, done.stdout) == (0, "done\ndone\n")
    words = ["map", target("hold_after_first"), "first", "fail", "-o", "out.jsonl"]
    done = oxgang(*words)
    assert done.returncode == 1
    assert "fail: ValueError: fail" in done.stderr
    again = oxgang(*words, "--resume")
    assert again.returncode == 1
    assert sorted(row["input"] for row in rows(tmp_path / "out.jsonl")) == ["fail", "first"]


def test_time_limit(oxgang, target, tmp_path):
    words = ["map", target("hold_after_first"), "first", "late", "--timeout", "0.2"]
    done = oxgang(*words, "-o", "out.jsonl")
    assert done.returncode == 1
    late = {row["input"]: row for row in rows(tmp_path / "out.jsonl")}["late"]
    assert late["error"]["type"] == "TaskTimeout"


@pytest.mark.parametrize("name", ["hold_after_first", "stand_still"])
def test_ctrl_c(oxgang, target, tmp_path, until, name):
    """Also where a coroutine blocks the loop."""
    words = ["map", target(name), "hold", "-o", "out.jsonl"]
    process = oxgang.start(*words)
    until((tmp_path / "holding hold").exists, process, what="a running call")
    process.send_signal(signal.SIGINT)
    code, _, err = oxgang.end(process)
    assert code == 130
    assert "stopped by Ctrl-C" in err and "0 ok, 0 failed" in err
    assert "Traceback" not in err and "never awaited" not in err


def test_fail_fast(oxgang, target, tmp_path):
    done = oxgang("map", target("hold_after_first"), "first", "hold", "fail", "--fail-fast")
    assert done.returncode == 1
    assert "fail: ValueError" in done.stderr and "Traceback" not in done.stderr
