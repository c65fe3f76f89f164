"""The functions of the examples as targets of ``oxgang map``."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def oxgang_map(tmp_path):
    def run(target, *words):
        command = [sys.executable, "-m", "oxgang", "map", f"{EXAMPLES / target}", *words]
        return subprocess.run(
            [str(word) for word in command],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=50,
            stdin=subprocess.DEVNULL,
            check=False,
        )

    return run


def test_stats_of_files(tmp_path, oxgang_map):
    for number in range(3):
        (tmp_path / f"{number}.csv").write_text(f"n,w\n{number},x\n{number + 2},y\n")
    (tmp_path / "bad.csv").write_text("")
    inputs = ["0.csv", "1.csv", "bad.csv", "2.csv"]
    done = oxgang_map("csv_stats.py:stats", *inputs, "-j", 2, "-o", "out.jsonl")
    assert done.returncode == 1
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    results = {row["input"]: row["result"] for row in rows if row.get("result")}
    assert {name: found["numeric"]["n"]["mean"] for name, found in results.items()} == {
        f"{number}.csv": number + 1 for number in range(3)
    }
    assert "bad.csv: empty" in done.stderr


def test_fetch_of_urls(tmp_path, server, oxgang_map):
    from tools.file_server import Fault

    (server.folder / "a.txt").write_text("hello")
    (server.folder / "b.txt").write_text("there")
    server.faults["/b.txt"] = [Fault(drop_after=2)]
    table = tmp_path / "urls.csv"
    rows = [f"{server.url}/{name}.txt,got," for name in "ab"]
    table.write_text("\n".join(["url,directory,checksum", *rows]) + "\n")
    done = oxgang_map("download.py:fetch", "--from", table, "--model", "thread", "-j", 2)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "got" / "a.txt").read_text() == "hello"
    assert (tmp_path / "got" / "b.txt").read_text() == "there"
