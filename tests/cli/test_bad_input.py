"""Each mistake: one line on standard error, exit code 2, nothing started, nothing created."""

import os
import subprocess

import pytest

MISTAKES = [
    # words, what the line says
    (["T:upper", "a", "-j", "0"], "at least 1 worker is needed"),
    (["T:upper", "a", "-j", "many"], "give a whole number of workers"),
    (["T:upper", "a", "--retries", "x"], "0 or more"),
    (["T:upper", "a", "--chunksize", "0"], "'auto' or a whole number"),
    (["T:upper", "a", "--model", "fiber"], "auto, process, thread, coroutine"),
    (["T:upper", "a", "--model", "coroutine"], "is no coroutine function"),
    (["T:upper", "a", "--progress", "maybe"], "auto, always, never"),
    (["T:upper", "a", "--timeout", "0"], "give a number of seconds above 0"),
    (["T:upper", "a", "--timeout", "soon"], "give a number of seconds above 0"),
    (["T:upper", "a", "--memory-limit", "much"], "such as 512MiB or 2GB"),
    (["T:upper", "a", "--memory-limit", "1G", "--model", "thread"], "is for processes"),
    (["T:upper", "a", "--no-such-option"], "--no-such-option"),
    (["T:upper", "a", "--from", "lines.txt"], "not both"),
    (["T:upper", "--from", "missing.txt"], "cannot read missing.txt: No such file"),
    (["T:upper", "--from", "."], "cannot read .: it is a directory"),
    (["T:upper", "--from", "latin.txt"], "latin.txt, line 2: not UTF-8"),
    (["T:keywords", "--from", "broken.jsonl"], "broken.jsonl, line 2: not JSON"),
    (["T:keywords", "--from", "array.jsonl"], "array.jsonl, line 1: an array"),
    (["T:keywords", "--from", "ragged.csv"], "ragged.csv, line 3: 1 fields where the header has 2"),
    (["T:keywords", "--from", "same.csv"], "two columns are named a"),
    (["T:upper", "a", "-o", "out.txt"], "written as .csv or .jsonl"),
    (["T:upper", "a", "-o", "missing/out.csv"], "cannot write missing/out.csv"),
    (["T:upper", "a", "-o", "folder.csv"], "not a regular file"),
    (["T:upper", "a", "-o", "table.csv"], "add --resume to go on with it"),
    (["T:upper", "a", "-o", "table.csv", "--resume"], "table.csv, line 1: its columns are not"),
    (["T:upper", "a", "--resume"], "name it with -o FILE"),
    (["no_such_module:fn", "a"], "cannot import no_such_module: no such module"),
    (["missing/file.py:fn", "a"], "cannot import missing/file.py: no such file"),
    (["broken.py:fn", "a"], "cannot import broken.py: SyntaxError"),
    (["raises:fn", "a"], "cannot import raises: ZeroDivisionError: division by zero"),
    (["exits:fn", "a"], "cannot import exits: SystemExit"),
    (["imports:fn", "a"], "cannot import imports: ModuleNotFoundError: No module named 'absent'"),
    (["T:uper", "a"], "has no function 'uper'; did you mean 'upper'?"),
    (["T:not_callable", "a"], "is not callable (it is of type int)"),
    (["T:coroutine", "a", "--model", "process"], "is a coroutine function; leave --model out"),
    (["T:coroutine", "a", "--memory-limit", "1G"], "leave --memory-limit out"),
    (["T:two", "a"], "does not take each input as its one argument"),
    (["T:two", "--from", "table.csv"], "does not take each input as keyword arguments name"),
    (["T", "a"], "module:function or path/to/file.py:function"),
    ([":fn", "a"], "module:function or path/to/file.py:function"),
    (["some/folder:fn", "a"], "module:function or path/to/file.py:function"),
    ([], "<TARGET>"),
]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "lines.txt").write_text("a\n")
    (tmp_path / "latin.txt").write_bytes(b"a\n\xe9\n")
    (tmp_path / "broken.jsonl").write_text('{"a": 1}\n{"a":\n')
    (tmp_path / "array.jsonl").write_text("[1]\n")
    (tmp_path / "ragged.csv").write_text("a,b\n1,2\n3\n")
    (tmp_path / "same.csv").write_text("a,a\n1,2\n")
    (tmp_path / "table.csv").write_text("name\nx\n")
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "broken.py").write_text("def fn(:\n")
    (tmp_path / "raises.py").write_text("1 / 0\n")
    (tmp_path / "exits.py").write_text("raise SystemExit(3)\n")
    (tmp_path / "imports.py").write_text("import absent\n")
    return tmp_path


def content(folder):
    return {
        path.name: path.read_bytes() if path.is_file() else None
        for path in folder.iterdir()
        if path.name != "__pycache__"
    }


@pytest.mark.parametrize(("words", "said"), MISTAKES, ids=[" ".join(m[0]) for m in MISTAKES])
def test_one_line_that_says_what_to_do(oxgang, target, folder, words, said):
    before = content(folder)
    words = [
        target("").rstrip(":") + word[1:] if word[:2] in ("T", "T:") else word for word in words
    ]
    done = oxgang("map", *words)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert said in done.stderr
    assert done.stderr.startswith("oxgang map: ")
    assert done.stderr.count("\n") == 1 and done.stderr.endswith("\n")
    assert content(folder) == before


@pytest.mark.parametrize(
    "words",
    [
        ["{touch}", "ran", "-o", "missing/out.csv"],
        ["{two}", "ran", "-o", "out.csv"],
        ["{touch}", "--from", "bad.jsonl", "-o", "out.csv"],
    ],
)
def test_nothing_is_started_and_nothing_is_created(oxgang, target, tmp_path, words):
    (tmp_path / "bad.jsonl").write_text('{"path": "ran"}\n{"path": \n')
    words = [word.format(touch=target("touch"), two=target("two")) for word in words]
    assert oxgang("map", *words).returncode == 2
    assert os.listdir(tmp_path) == ["bad.jsonl"]


def test_an_argument_that_is_not_utf8(oxgang, target, tmp_path):
    done = oxgang("map", target("upper"), "good", os.fsdecode(b"bad\xff"))
    assert done.returncode == 2
    assert "input 2 is not UTF-8 text" in done.stderr


def test_a_bad_line_in_a_pipe_ends_the_run_after_the_lines_before_it(oxgang, target, tmp_path):
    process = oxgang.start(
        "map", target("upper"), "-o", "out.jsonl", stdin=subprocess.PIPE, encoding="latin-1"
    )
    process.stdin.write("a\nb\n\xff\n")
    code, _, err = oxgang.end(process)
    assert code == 2
    assert "stopped: standard input, line 3: not UTF-8" in err
    assert "to go on with out.jsonl, add --resume" in err
    assert (tmp_path / "out.jsonl").read_text().count("\n") == 2


def test_an_output_that_another_run_is_writing(oxgang, target, tmp_path, until):
    words = ["map", target("hold_unless_first"), "first", "other", "-o", "out.csv", "--resume"]
    process = oxgang.start(*words)
    out = tmp_path / "out.csv"
    until(lambda: out.exists() and "first" in out.read_text(), process)
    before = out.read_text()
    done = oxgang(*words)
    assert done.returncode == 2
    assert "another run is writing it" in done.stderr
    assert out.read_text() == before
    process.terminate()
    assert oxgang.end(process)[0] == 143


def test_nothing_to_do_is_said_with_the_usage(oxgang):
    done = oxgang()
    assert done.returncode == 2
    assert "Usage: oxgang" in done.stderr
