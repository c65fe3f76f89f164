"""Frozen programs: `sys.executable` is the program, and children are started by running it."""

import os
import subprocess
import sys
import time

import pytest
from programs import HERE, processes_of_session

METHODS = ("fork", "spawn", "forkserver", "template")
SCRIPT = HERE / "program_to_freeze.py"
EXPECTED = "3 [0, 1, 4] 10\n"


@pytest.fixture
def fake(tmp_path):
    """A program that takes itself for frozen."""
    program = tmp_path / "program"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{SCRIPT}" "$@"\n')
    program.chmod(0o755)
    return program


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
    """A program that PyInstaller has made one file of."""
    pytest.importorskip("PyInstaller", reason="needs PyInstaller")
    folder = tmp_path_factory.mktemp("frozen")
    command = [sys.executable, "-m", "PyInstaller", "--onefile", "--log-level", "ERROR"]
    command += ["--specpath", folder, "--workpath", folder / "work", "--distpath", folder]
    command += ["--collect-submodules", "oxgang", SCRIPT]
    subprocess.run(list(map(str, command)), check=True, cwd=folder)
    return folder / "program_to_freeze"


def run(program, method, **environ):
    process = subprocess.Popen(
        [program, method],
        env=os.environ | environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    output, errors = process.communicate()
    return process, output, errors


@pytest.mark.parametrize("method", METHODS)
def test_a_program_that_takes_itself_for_frozen(fake, method):
    process, output, errors = run(fake, method, FAKE_FROZEN=str(fake))
    assert (output, errors, process.returncode) == (EXPECTED, "", 0)


@pytest.mark.parametrize("method", METHODS[1:])
def test_without_freeze_support_it_fails_and_is_no_bomb(fake, method):
    process, output, errors = run(fake, method, FAKE_FROZEN=str(fake), UNPREPARED="1")
    assert output == ""
    assert "freeze_support()" in errors
    while processes_of_session(process.pid):
        time.sleep(0.01)  # helpers end when their owner has; the watchdog says who does not


@pytest.mark.slow
@pytest.mark.watchdog(400)
@pytest.mark.parametrize("method", METHODS)
def test_one_file(frozen, method):
    process, output, errors = run(frozen, method)
    assert (output, errors, process.returncode) == (EXPECTED, "", 0)
