"""Inputs, outputs and options of `oxgang map`, when all goes well or only inputs fail."""

import csv
import json
import os
import re
import subprocess

import pytest
from oxgang.concurrent.futures import ProcessPoolExecutor

NASTY = ["plain", "with, comma", 'a "quote"', "é ü 漢字 🐂", "  spaces  ", "-dash", "semi;colon"]


def rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def objects(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def by_input(found):
    table = {json.dumps(row["input"]): row for row in found}
    assert len(table) == len(found), "an input has two rows"
    return table


def test_arguments_to_standard_output(oxgang, target):
    done = oxgang("map", target("upper"), "a", "b", "ü")
    assert (done.returncode, sorted(done.stdout.splitlines())) == (0, ["A", "B", "Ü"])
    assert done.stderr.startswith("oxgang map: 3 ok, 0 failed in ")


def test_lines_of_standard_input(oxgang, target):
    for words in ([], ["--from", "-"]):
        done = oxgang("map", target("upper"), *words, stdin="a\r\n\nb c\nlast")
        assert (done.returncode, sorted(done.stdout.splitlines())) == (0, ["A", "B C", "LAST"])


def test_a_slow_pipe_does_not_hold_results_back(oxgang, target, tmp_path, until):
    """Each row is awaited before the next line is sent, so none may depend on a later line."""
    out = tmp_path / "out.jsonl"
    words = ["map", target("second_try"), "-o", "out.jsonl", "--retries", "1", "-j", "2"]
    process = oxgang.start(*words, stdin=subprocess.PIPE)
    for number in range(1, 4):
        process.stdin.write(f"mark {number}\n")
        process.stdin.flush()
        until(
            lambda number=number: out.exists() and len(objects(out)) == number,
            process,
            what=f"row {number}",
        )
    code, _, err = oxgang.end(process)
    assert code == 0 and "3 ok, 0 failed" in err
    assert [row["result"] for row in objects(out)] == ["done"] * 3


def test_lines_of_a_file(oxgang, target, tmp_path):
    (tmp_path / "in.txt").write_text("\ufeffx\ny\n", encoding="utf-8")
    done = oxgang("map", target("upper"), "--from", "in.txt")
    assert sorted(done.stdout.splitlines()) == ["X", "Y"]


def test_csv_rows_are_keyword_arguments(oxgang, target, tmp_path):
    (tmp_path / "in.csv").write_text('name,age\n"O""Hara, P",07\nbob,\n', encoding="utf-8")
    done = oxgang("map", target("named"), "--from", "in.csv", "-o", "out.csv")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.csv").read_text().splitlines()[0] == "name,age,result,error"
    assert sorted(row["result"] for row in rows(tmp_path / "out.csv")) == [
        'O"Hara, P:07:str',
        "bob::str",
    ]


def test_jsonl_objects_are_keyword_arguments(oxgang, target, tmp_path):
    inputs = [{"a": 1, "b": [None, "é"]}, {"c": 2**70, "a": 1.5}]
    text = "".join(json.dumps(one) + "\n" for one in inputs)
    for name in ("in.jsonl", "in.ndjson"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        out = tmp_path / f"{name}.out.jsonl"
        done = oxgang("map", target("keywords"), "--from", name, "-o", out)
        assert done.returncode == 0, done.stderr
        found = sorted(objects(out), key=str)
        assert found == sorted(({"input": one, "result": one} for one in inputs), key=str)


@pytest.mark.parametrize("name", ["out.csv", "out.jsonl"])
def test_any_text_survives_the_way_through(oxgang, target, tmp_path, name):
    inputs = [*NASTY, "two\nlines", "carriage\rreturn", "tab\t", ""]
    done = oxgang("map", target("same"), "-o", name, "--", *inputs)
    assert done.returncode == 0, done.stderr
    found = (rows if name.endswith("csv") else objects)(tmp_path / name)
    assert sorted(row["input"] for row in found) == sorted(inputs)
    assert all(row["result"] == row["input"] for row in found)


def test_a_dict_becomes_columns(oxgang, target, tmp_path):
    oxgang("map", target("length"), "ab", "-o", "out.csv")
    assert (tmp_path / "out.csv").read_text() == "input,length,text,error\nab,2,ab,\n"


def test_new_columns_widen_the_file(oxgang, target, tmp_path):
    done = oxgang("map", target("columns"), "a=1", "b=2,a=3", "error=4,input=5", "-o", "out.csv")
    assert done.returncode == 0, done.stderr
    found = by_input(rows(tmp_path / "out.csv"))
    assert set(found['"a=1"']) == {"input", "a", "b", "result.error", "result.input", "error"}
    assert found['"a=1"']["a"] == "1" and found['"a=1"']["b"] == ""
    assert found['"b=2,a=3"']["b"] == "2"
    assert found['"error=4,input=5"']["result.error"] == "4"
    assert all(row["error"] == "" for row in found.values())


def test_what_values_become(oxgang, target, tmp_path):
    kinds = ["pair", "point", "nan", "nested nan", "none", "true", "list", "path", "big", "text"]
    oxgang("map", target("make"), *kinds, "-o", "out.csv")
    cells = {row["input"]: row for row in rows(tmp_path / "out.csv")}
    assert (cells["pair"]["left"], cells["pair"]["right"]) == ("1", "2")
    assert (cells["point"]["x"], cells["point"]["y"]) == ("1.5", "2.5")
    assert cells["nested nan"]["m"] == "[null,null,1.0]"
    expected = {"nan": "nan", "none": "", "true": "true", "list": '[1,"é",null]', "path": "a/b"}
    expected |= {"big": str(2**70), "text": 'comma, "quote"\nnewline'}
    assert {kind: cells[kind]["result"] for kind in expected} == expected
    oxgang("map", target("make"), *kinds, "-o", "out.jsonl")
    found = {row["input"]: row["result"] for row in objects(tmp_path / "out.jsonl")}
    assert found["pair"] == {"left": 1, "right": 2}
    assert found["point"] == {"x": 1.5, "y": 2.5}
    assert found["nan"] is None and found["nested nan"] == {"m": [None, None, 1.0]}
    assert (found["true"], found["path"], found["big"]) == (True, "a/b", 2**70)


@pytest.mark.parametrize("name", ["out.csv", "out.jsonl"])
def test_a_result_that_cannot_be_a_row_is_that_inputs_failure(oxgang, target, tmp_path, name):
    done = oxgang("map", target("make"), "opaque", "holds opaque", "surrogate", "true", "-o", name)
    assert done.returncode == 1
    assert "1 ok, 3 failed" in done.stderr
    assert "opaque: ResultError: a result of type targets.Opaque cannot be written" in done.stderr
    assert "holds opaque: ResultError: a result of type dict cannot be written" in done.stderr
    assert "surrogate: ResultError: a result of type str cannot be written" in done.stderr
    found = (rows if name.endswith("csv") else objects)(tmp_path / name)
    assert len(by_input(found)) == 4


def test_results_on_standard_output_are_text(oxgang, target):
    done = oxgang("map", target("make"), "pair", "none", "list", "unprintable", "opaque", "-j1")
    assert done.returncode == 1
    found = set(done.stdout.splitlines())
    assert {'{"left":1,"right":2}', "null", '[1,"é",null]'} <= found
    assert any("Opaque object" in line for line in found)
    assert "unprintable: ResultError" in done.stderr


@pytest.mark.parametrize("name", ["out.csv", "out.jsonl"])
def test_failures_are_rows_too_and_listed(oxgang, target, tmp_path, name):
    done = oxgang("map", target("odd_fails"), *range(50), "-o", name)
    assert done.returncode == 1
    assert "25 ok, 25 failed" in done.stderr
    listed = re.findall(r"^  (\d+): ValueError: (\d+) is odd\\nreally$", done.stderr, re.MULTILINE)
    assert len(set(listed)) == 20 and all(label == told for label, told in listed)
    assert "  and 5 more\n" in done.stderr
    assert "to try the failed inputs again, add --resume" in done.stderr
    if name.endswith("csv"):
        found = by_input(rows(tmp_path / name))
        assert found['"7"'] == {"input": "7", "result": "", "error": "ValueError: 7 is odd\nreally"}
        assert found['"8"'] == {"input": "8", "result": "8", "error": ""}
    else:
        found = by_input(objects(tmp_path / name))
        assert found['"7"']["error"] == {"type": "ValueError", "message": "7 is odd\nreally"}
        assert found['"8"'] == {"input": "8", "result": 8}
    assert len(found) == 50


@pytest.mark.parametrize(
    ("name", "left"), [("out.csv", "input,error\n"), ("out.jsonl", ""), (None, None)]
)
def test_no_inputs_is_no_failure(oxgang, target, tmp_path, name, left):
    (tmp_path / "none.txt").write_text("\n\n")
    (tmp_path / "none.csv").write_text("name,age\n")
    output = [] if name is None else ["-o", name, "--resume"]
    for source in (["--from", "none.txt"], ["--from", "/dev/null"], []):
        done = oxgang("map", target("same"), *source, *output)
        assert (done.returncode, done.stdout) == (0, "")
        assert done.stderr.startswith("oxgang map: 0 ok, 0 failed")
        assert name is None or (tmp_path / name).read_text() == left
    done = oxgang("map", target("named"), "--from", "none.csv", "-o", "rows.csv")
    assert done.returncode == 0
    assert (tmp_path / "rows.csv").read_text() == "name,age,error\n"


def test_a_module_of_the_current_directory(oxgang, tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    text = "class Tool:\n    @staticmethod\n    def run(x): return x + '!'\n"
    (tmp_path / "package" / "tools.py").write_text(text)
    done = oxgang("map", "package.tools:Tool.run", "a")
    assert (done.returncode, done.stdout) == (0, "a!\n"), done.stderr


def test_a_builtin(oxgang):
    assert oxgang("map", "builtins:len", "abc").stdout == "3\n"


def test_a_file_may_import_its_neighbours_and_have_a_taken_name(oxgang, tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "neighbour.py").write_text("def mark(x): return f'<{x}>'\n")
    text = "from neighbour import mark\ndef fn(x): return mark(x)\nif __name__ == '__main__': 1/0\n"
    for name in ("mine.py", "json.py", "time.py", "with-dash.py", "with.dots.py"):
        (folder / name).write_text(text)
        done = oxgang("map", f"elsewhere/{name}:fn", "a")
        assert (done.returncode, done.stdout) == (0, "<a>\n"), (name, done.stderr)
        (folder / name).unlink()


def test_a_file_with_a_taken_name_takes_it_from_nobody(oxgang, tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    text = "import statistics\ndef fn(x): return statistics.mean([int(x), int(x) + 1])\n"
    (folder / "fractions.py").write_text(text)  # which `statistics` imports
    done = oxgang("map", "elsewhere/fractions.py:fn", "1")
    assert (done.returncode, done.stdout) == (0, "1.5\n"), done.stderr


def test_jobs_and_model(oxgang, target):
    def workers(*words):
        done = oxgang("map", target("pid"), *words, *range(100))
        assert done.returncode == 0, done.stderr
        return set(done.stdout.split())

    assert len(workers("-j", "1")) == 1
    assert len(workers("-j", "3", "--model", "process")) in (2, 3)
    assert len(workers("-j", "3", "--model", "auto", "--chunksize", "5")) in (2, 3)
    assert len(workers("-j", "3", "--model", "thread", "--chunksize", "auto")) == 1


def test_retries(oxgang, target):
    done = oxgang("map", target("second_try"), "mark")
    assert done.returncode == 1 and "OSError: try again" in done.stderr
    done = oxgang("map", target("second_try"), "other mark", "--retries", "1")
    assert (done.returncode, done.stdout) == (0, "done\n")


@pytest.mark.skipif(
    not ProcessPoolExecutor.__module__.startswith("oxgang"),
    reason="the standard pool is broken for good when a worker dies",
)
def test_a_worker_that_dies_costs_its_own_input(oxgang, target, tmp_path):
    inputs = ["die", *map(str, range(20)), "leave", *map(str, range(20, 40))]
    done = oxgang("map", target("die"), *inputs, "-j", "2", "-o", "out.jsonl")
    assert done.returncode == 1
    assert "40 ok, 2 failed" in done.stderr
    found = by_input(objects(tmp_path / "out.jsonl"))
    assert len(found) == len(inputs)
    for name in ("die", "leave"):
        assert found[f'"{name}"']["error"]["type"] == "WorkerCrashed"


@pytest.mark.parametrize("model", ["process", "thread"])
def test_a_timeout_costs_its_own_input(oxgang, target, tmp_path, model):
    # one that its exception ends, and one that nothing does
    inputs = ["spin", *map(str, range(20)), "stuck", *map(str, range(20, 40))]
    words = ["--timeout", "0.3", "--model", model, "-j", "3", "-o", "out.jsonl"]
    done = oxgang("map", target("sometimes_slow"), *inputs, *words)
    assert done.returncode == 1
    assert "40 ok, 2 failed" in done.stderr
    assert "TaskTimeout" in done.stderr
    found = by_input(objects(tmp_path / "out.jsonl"))
    for name in ("spin", "stuck"):
        error = found[f'"{name}"']["error"]
        assert error["type"] == "TaskTimeout" and "time limit of 0.3 s" in error["message"]


def test_a_memory_limit_costs_its_own_input(oxgang, target, tmp_path):
    inputs = [*map(str, range(10)), "fill", *map(str, range(10, 20))]
    words = ["--memory-limit", "150MiB", "-j", "2", "-o", "out.jsonl", "--retries", "1"]
    done = oxgang("map", target("sometimes_slow"), *inputs, *words)
    assert done.returncode == 1
    assert "20 ok, 1 failed" in done.stderr
    error = by_input(objects(tmp_path / "out.jsonl"))['"fill"']["error"]
    assert error["type"] == "MemoryLimitExceeded" and "150 MiB" in error["message"]


def test_fail_fast_ends_what_runs(oxgang, target, tmp_path):
    # The other worker's call would hold for longer than the watchdog.
    done = oxgang("map", target("hold_unless_first"), "fail", *range(9), "--fail-fast", "-j2")
    assert done.returncode == 1
    assert "stopped at the first failure" in done.stderr
    assert "0 ok, 1 failed" in done.stderr
    words = ["--fail-fast", "-j2", "--model", "thread", "-o", "out.csv"]
    done = oxgang("map", target("hold_unless_first"), "fail", *range(9), *words)
    assert done.returncode == 1
    assert [row["input"] for row in rows(tmp_path / "out.csv")] == ["fail"]


def test_resume_runs_what_is_left_and_what_failed(oxgang, target, tmp_path, monkeypatch):
    log = tmp_path / "log"
    monkeypatch.setenv("OXGANG_TEST_LOG", str(log))
    before = 'input,result,error\na,a,\nb,,ValueError: no\ntwice,twice,\n"torn, ro'
    (tmp_path / "out.csv").write_text(before)
    inputs = ["a", "b", "twice", "twice", "torn, row", "new"]
    done = oxgang("map", target("log_run"), *inputs, "-o", "out.csv", "--resume")
    assert done.returncode == 0, done.stderr
    assert "4 ok, 0 failed, 2 skipped (done before)" in done.stderr
    assert sorted(log.read_text().split("\n")) == ["", "b", "new", "torn, row", "twice"]
    assert sorted(row["input"] for row in rows(tmp_path / "out.csv")) == sorted(inputs)
    again = oxgang("map", target("log_run"), *inputs, "-o", "out.csv", "--resume")
    assert "0 ok, 0 failed, 6 skipped" in again.stderr
    assert len(log.read_text().split()) == 5


def test_resume_matches_objects_in_any_order_of_their_members(oxgang, target, tmp_path):
    (tmp_path / "one.jsonl").write_text('{"a": 1, "b": 2}\n{"a": 3}\n')
    (tmp_path / "two.jsonl").write_text('{"b":2,"a":1}\n{"a":4}\n')
    for name, count in (("out.jsonl", 3), ("out.csv", 3)):
        oxgang("map", target("keywords"), "--from", "one.jsonl", "-o", name)
        done = oxgang("map", target("keywords"), "--from", "two.jsonl", "-o", name, "--resume")
        assert "1 ok, 0 failed, 1 skipped" in done.stderr
        found = rows(tmp_path / name) if name.endswith("csv") else objects(tmp_path / name)
        assert len(found) == count


def test_quiet_still_lists_failures(oxgang, target):
    done = oxgang("map", target("odd_fails"), "2", "-q")
    assert (done.returncode, done.stdout, done.stderr) == (0, "2\n", "")
    done = oxgang("map", target("odd_fails"), "1", "--quiet")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "failed inputs:\n  1: ValueError: 1 is odd\\nreally\n"


def test_help_and_version(oxgang):
    import oxgang as package

    assert oxgang("--version").stdout == f"oxgang {package.__version__}\n"
    for words in (["--help"], ["map", "--help"]):
        done = oxgang(*words)
        assert (done.returncode, done.stderr) == (0, "")
        assert "map" in done.stdout


def test_an_error_message_with_a_name_that_is_not_utf8(oxgang, tmp_path):
    text = "def fn(x): raise OSError('no \\udcff here')\n"
    (tmp_path / "bad_name.py").write_text(text)
    done = oxgang("map", "bad_name:fn", "a", "-o", "out.jsonl")
    assert done.returncode == 1
    assert "no \\udcff here" in done.stderr
    assert objects(tmp_path / "out.jsonl")[0]["error"]["message"] == "no \\udcff here"


def test_the_permissions_of_the_output_stay(oxgang, target, tmp_path):
    out = tmp_path / "out.csv"
    out.write_text("input,error\na,E\n")
    os.chmod(out, 0o640)
    oxgang("map", target("length"), "a", "-o", "out.csv", "--resume")
    assert os.stat(out).st_mode & 0o777 == 0o640
    assert [name for name in os.listdir(tmp_path) if name != "out.csv"] == []
