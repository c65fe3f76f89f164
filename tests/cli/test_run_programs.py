"""Programs such as users have do the same under `oxgang run` as under plain `python`: the same
output, the same exit code, something on standard error or nothing; and nothing stays behind."""

import os
from pathlib import Path

import pytest

PROGRAMS = sorted(Path(__file__).parents[1].joinpath("programs").glob("*.py"))


@pytest.fixture
def scratch(tmp_path, monkeypatch, until):
    """Where temporary files go; they, and what is in /dev/shm, must be gone at the end."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    before = set(os.listdir("/dev/shm"))
    yield folder
    assert os.listdir(folder) == []
    # other programs of this machine come and go there, too
    until(lambda: not set(os.listdir("/dev/shm")) - before, what="an empty /dev/shm")


def lines(text):
    return text.splitlines()


@pytest.mark.watchdog(240)
@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_a_program_does_the_same(path, python, oxgang, scratch):
    plain = python(path)
    assert plain.returncode == 0, plain.stderr
    ours = oxgang("run", path)
    assert lines(ours.stdout) == lines(plain.stdout), ours.stderr
    assert ours.returncode == plain.returncode
    assert bool(ours.stderr) == bool(plain.stderr), ours.stderr


def test_there_are_enough_of_them():
    assert len(PROGRAMS) >= 40
