"""examples/csv_stats.py: right figures, and one clear line for each file that cannot be read."""

import json
import multiprocessing
import random
import statistics
from concurrent.futures import ProcessPoolExecutor

import csv_stats
import pytest


@pytest.fixture(scope="module")
def stats():
    """``csv_stats.stats`` in a process of its own: polars starts threads, and whoever forks this
    one afterwards, as other tests do, would inherit their locks without them."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        pool.submit(abs, 0).result(120)  # it is there before the first test looks around
        yield lambda *args, **options: pool.submit(csv_stats.stats, *args, **options).result(120)


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_figures_agree_with_python(stats, tmp_path):
    numbers = random.Random(7)
    rows = [(numbers.randint(-999, 999), numbers.gauss(0, 50), "x") for _ in range(3000)]
    text = "whole,real,word\n" + "".join(f"{a},{b!r},{c}\n" for a, b, c in rows)
    found = stats(write(tmp_path / "a.csv", text))
    assert (found["rows"], found["columns"]) == (3000, 3)
    assert found["other_columns"] == ["word"]
    for place, name in enumerate(["whole", "real"]):
        column = [row[place] for row in rows]
        assert found["numeric"][name]["max"] == max(column)
        assert found["numeric"][name]["min"] == min(column)
        assert found["numeric"][name]["missing"] == 0
        assert found["numeric"][name]["mean"] == pytest.approx(statistics.fmean(column))


@pytest.mark.parametrize(
    ("content", "rows", "numeric"),
    [
        ("a,b\n", 0, {}),
        ("a,b,c\n1,2,3\n4\n", 2, {"a": (2.5, 0), "b": (2.0, 1), "c": (3.0, 1)}),
        ("a,b\nNA,1\n,3\n4,null\n", 3, {"a": (4.0, 2), "b": (2.0, 1)}),
        ("a,b\r\n1,2\r\n", 1, {"a": (1.0, 0), "b": (2.0, 0)}),
        ("\ufeffa,b\n1,2\n", 1, {"a": (1.0, 0), "b": (2.0, 0)}),
        ('a,b\n"two\nlines",1\n"say ""hi""",2\n', 2, {"b": (1.5, 0)}),
        ("a\n" + "1\n" * 20_000 + "late text\n", 20_001, {}),
        ("a\n" + "1\n" * 20_000 + "2.5\n", 20_001, {"a": ((20_000 + 2.5) / 20_001, 0)}),
        ("a,b\n" + "1,\n" * 5_000 + "1,7\n", 5_001, {"a": (1.0, 0), "b": (7.0, 5_000)}),
        ("a\n" + "1\n" * 2_000 + f"{10**19}\n", 2_001, {"a": ((10**19 + 2_000) / 2_001, 0)}),
        ("a\n99999999999999999999\n1\n", 2, {"a": (5e19, 0)}),
        ("a,a\n1,x\n", 1, {"a": (1.0, 0)}),
    ],
    ids=[
        "header",
        "short-rows",
        "missing",
        "crlf",
        "bom",
        "quotes",
        "late-text",
        "late-real",
        "late",
        "late-huge",
        "huge",
        "duplicate",
    ],
)
def test_odd_files_are_handled(stats, tmp_path, content, rows, numeric):
    found = stats(write(tmp_path / "odd.csv", content))
    assert found["rows"] == rows
    columns = {
        name: (pytest.approx(figures["mean"]), figures["missing"])
        for name, figures in found["numeric"].items()
    }
    assert columns == numeric


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"\n\n", "empty"),
        ("name,v\nJosé,1\n".encode("latin-1"), "byte 10 is not utf-8"),
        ("é,v\n1,2\n".encode("latin-1"), "byte 0 is not utf-8"),
        ("a,b\n1,2\n".encode("utf-16-le"), "UTF-16"),
        (b"a,b\n1,2\n3,4,5\n6,7\n", "line 3 has 3 fields, the header has 2"),
        (b'a,b\n"x,1\ny,2\n', 'opening " is never closed'),
    ],
    ids=["empty", "blank", "latin1", "latin1-header", "utf16", "long-row", "open-quote"],
)
def test_unreadable_files_say_what_is_wrong(stats, tmp_path, content, message):
    path = write(tmp_path / "bad.csv", content)
    with pytest.raises(ValueError, match=r"bad\.csv") as caught:
        stats(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bad_byte_far_into_the_file_is_located(stats, tmp_path):
    # "é" begins one byte before the end of a read: its two bytes arrive in different chunks
    head = b"a\n" + b"1\n" * ((csv_stats._CHUNK - 2) // 2 - 1) + b"1"
    content = head + "é\n".encode() + b"\xff\n"
    assert len(head) == csv_stats._CHUNK - 1
    path = write(tmp_path / "far.csv", content)
    with pytest.raises(ValueError, match=f"byte {content.index(0xFF)} is not utf-8"):
        stats(path)


def test_other_encodings_and_separators(stats, tmp_path):
    path = write(tmp_path / "l.csv", "größe;n\nä;1\nö;2\n".encode("latin-1"))
    found = stats(path, encoding="latin-1", separator=";")
    assert found["other_columns"] == ["größe"]
    assert found["numeric"]["n"]["mean"] == 1.5
    wide = write(tmp_path / "w.csv", "a,b\n1,2\n".encode("utf-16"))
    assert stats(wide, encoding="utf-16")["numeric"]["a"]["max"] == 1


def test_program_goes_on_past_bad_files(tmp_path, run_example):
    good = [write(tmp_path / f"{n}.csv", f"n\n{n}\n{n + 2}\n") for n in range(4)]
    bad = write(tmp_path / "bad.csv", b"a,b\n1,2,3\n")
    missing = tmp_path / "missing.csv"
    done = run_example("csv_stats.py", "--json", "-j", 2, *good[:2], bad, missing, *good[2:])
    assert done.returncode == 1
    summaries = [json.loads(line) for line in done.stdout.splitlines()]
    assert [summary["numeric"]["n"]["mean"] for summary in summaries] == [1, 2, 3, 4]
    failures = done.stderr.splitlines()
    assert len(failures) == 2
    assert "bad.csv: line 2 has 3 fields" in failures[0]
    assert "missing.csv" in failures[1]


def test_program_prints_a_table(tmp_path, run_example):
    done = run_example("csv_stats.py", write(tmp_path / "a.csv", "n,w\n1,x\n4,y\n"))
    assert done.returncode == 0, done.stderr
    header, line = done.stdout.splitlines()
    assert header.split() == ["file", "rows", "column", "mean", "max", "min"]
    assert line.split() == ["a.csv", "2", "n", "2.5", "4", "1"]


@pytest.mark.parametrize(
    "words", [["-j", "0", "x"], ["--encoding", "klingon", "x"], ["--separator", "ab", "x"], []]
)
def test_program_refuses_bad_options(run_example, words):
    done = run_example("csv_stats.py", *words)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
