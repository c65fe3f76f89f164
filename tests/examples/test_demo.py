"""The demo, with less of everything."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_demo_finds_nothing_wrong(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.chdir(ROOT)  # its server is a process of its own
    from tools import demo

    smaller = {"FOLDER": tmp_path, "FILES": 6, "BYTES_EACH": 1_200_000, "ROUNDS": 1}
    fewer = {"SMALL_TASKS": 200, "ROUND_TRIPS": 20}
    for name, value in (smaller | fewer).items():
        monkeypatch.setattr(demo, name, value)
    code = demo.main()
    said = capsys.readouterr()
    assert (code, "wrong" in said.out) == (0, False), said
    assert "resumed at byte" in said.out and "download of the 100 MB" in said.out
    assert sys.modules["download"].__file__ == str(ROOT / "examples" / "download.py")
