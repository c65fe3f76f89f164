"""Pools in workers of pools: they work, and end with the worker that has them."""

import os
import signal
import time

import pytest
from programs import HERE, Program, gone

METHODS = ("template", "fork", "spawn", "forkserver")
SCRIPT = HERE / "program_that_nests.py"
DEPTH = 5


@pytest.fixture
def chain(tmp_path, request):
    """A program with five pools below it, each in a worker of the one before: the program, the
    process numbers from the program down, and the folder of marks."""
    folder = tmp_path / "marks"
    folder.mkdir()
    program = Program(tmp_path, SCRIPT, folder, request.param, DEPTH)
    deepest = folder / "level-0"
    while not deepest.exists():
        time.sleep(0.005)
    levels = [int((folder / f"level-{depth}").read_text()) for depth in range(DEPTH, -1, -1)]
    assert levels[0] == program.pid and len(set(levels)) == DEPTH + 1
    yield program, levels, folder
    program.destroy()


every_method = pytest.mark.parametrize("chain", METHODS, indirect=True)


@every_method
def test_five_deep(chain):
    program, levels, folder = chain
    (folder / "go").touch()
    program.wait_for_line(" ".join(map(str, levels)))
    assert program.end() == (0, "")
    program.assert_nothing_left()


@every_method
def test_when_the_top_is_killed_all_below_end(chain):
    program, _, _ = chain
    program.signal(signal.SIGKILL)
    assert program.end() == (-signal.SIGKILL, "")
    program.assert_nothing_left(fork_server=True)


@every_method
@pytest.mark.parametrize("victim", [1, 3])
def test_when_one_between_is_killed_those_below_end_and_those_above_hear_of_it(chain, victim):
    program, levels, _ = chain
    os.kill(levels[victim], signal.SIGKILL)
    while not all(map(gone, levels[victim:])):
        time.sleep(0.01)
    program.wait_for_line(" ".join(map(str, [*levels[:victim], -signal.SIGKILL])))
    assert program.end() == (0, "")
    program.assert_nothing_left(fork_server=True)


@every_method
def test_ctrl_c_ends_them_all(chain):
    program, _, _ = chain
    program.signal_all(signal.SIGINT)
    code, errors = program.end()
    assert code == -signal.SIGINT
    assert errors.count("Traceback") == 1, errors
    program.assert_nothing_left(fork_server=True)
