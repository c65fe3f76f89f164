"""Blocks of shared memory with names: the standard ones, which outlive those who only look."""

import multiprocessing.managers
import multiprocessing.shared_memory as standard
import os
import pickle
import signal
import struct

import oxgang.multiprocessing.managers
import oxgang.multiprocessing.shared_memory as ours
import pytest
from programs import Program

KINDS = {"standard": standard, "oxgang": ours}
MANAGERS = {"standard": multiprocessing.managers, "oxgang": oxgang.multiprocessing.managers}


@pytest.fixture(params=KINDS)
def module(request):
    return KINDS[request.param]


@pytest.fixture
def block(module):
    block = module.SharedMemory(create=True, size=100)
    yield block
    block.close()
    if os.path.exists(f"/dev/shm/{block.name}"):
        block.unlink()


def run(tmp_path, code, *words):
    """Runs a program in a tree of processes of its own: exit code, and what it said on stderr."""
    program = Program(tmp_path, "-c", code, *words)
    outcome = program.end()
    program.assert_nothing_left()
    return outcome


@pytest.mark.parametrize("other", KINDS)
def test_one_memory_for_all(block, other):
    block.buf[:3] = b"abc"
    seen = KINDS[other].SharedMemory(block.name)
    assert bytes(seen.buf[:3]) == b"abc" and seen.size == block.size >= 100
    seen.buf[1:2] = b"X"
    assert bytes(block.buf[:3]) == b"aXc"
    seen.close()
    again = pickle.loads(pickle.dumps(block))
    assert type(again) is type(block) and again.name == block.name
    again.close()


def test_bad_arguments(module):
    for arguments in ({}, {"create": True}, {"create": True, "size": -1}, {"create": False}):
        with pytest.raises(ValueError):
            module.SharedMemory(**arguments)
    with pytest.raises(FileNotFoundError):
        module.SharedMemory("no_such_block_of_oxgang")


def test_names(module, block):
    with pytest.raises(FileExistsError):
        module.SharedMemory(block.name, create=True, size=10)
    assert not block.name.startswith("/") and repr(block).startswith("SharedMemory('psm_")
    block.close()
    block.close()
    block.unlink()
    with pytest.raises(FileNotFoundError):
        block.unlink()
    standard.resource_tracker.register(block._name, "shared_memory")
    standard.resource_tracker.unregister(block._name, "shared_memory")


LOOK = """
import sys
from oxgang.multiprocessing.shared_memory import SharedMemory
block = SharedMemory(sys.argv[1], **eval(sys.argv[2]))
block.buf[0] += 1
"""


def test_who_only_looks_destroys_nothing(tmp_path, block):
    assert run(tmp_path, LOOK, block.name, "{}") == (0, "")
    assert block.buf[0] == 1
    assert os.path.exists(f"/dev/shm/{block.name}")


def test_who_wants_to_answer_for_it_does(tmp_path, block):
    code, errors = run(tmp_path, LOOK, block.name, "dict(track=True)")
    assert code == 0 and "leaked shared_memory" in errors
    assert not os.path.exists(f"/dev/shm/{block.name}")
    block.close()
    standard.resource_tracker.unregister(block._name, "shared_memory")


MAKE = """
import os, signal, sys
from oxgang.multiprocessing.shared_memory import SharedMemory
block = SharedMemory("oxgang_test_" + sys.argv[1], create=True, size=10, **eval(sys.argv[2]))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_program_made_goes(tmp_path):
    name = str(os.getpid())
    code, errors = run(tmp_path, MAKE, name, "{}")
    assert code == -signal.SIGKILL and "leaked shared_memory" in errors
    assert not os.path.exists(f"/dev/shm/oxgang_test_{name}")


def test_what_nobody_answers_for_stays(tmp_path):
    name = f"oxgang_test_{os.getpid()}"
    program = Program(tmp_path, "-c", MAKE, os.getpid(), "dict(track=False)")
    assert program.end() == (-signal.SIGKILL, "")
    found = ours.SharedMemory(name)
    assert found.size >= 10
    found.close()
    found.unlink()


UNLINK = """
from oxgang.multiprocessing.shared_memory import SharedMemory
made = SharedMemory(create=True, size=10)
found = SharedMemory(made.name)
found.close()
found.unlink()
made.close()
other = SharedMemory(create=True, size=10, track=False)
other.close()
other.unlink()
"""


def test_whoever_unlinks_there_is_no_word_of_leaks(tmp_path):
    assert run(tmp_path, UNLINK) == (0, "")


ITEMS = [1, -(2**40), 2.5, True, None, "text", "é", b"bytes", ""]


@pytest.mark.parametrize("other", KINDS)
def test_lists(module, other):
    made = module.ShareableList(ITEMS)
    try:
        found = KINDS[other].ShareableList(name=made.shm.name)
        assert list(found) == ITEMS == list(made) and len(found) == len(ITEMS)
        found[0] = "seven 7"
        found[-1] = "1234567"
        assert made[0] == "seven 7" and made[-1] == "1234567"
        assert made.count(True) == 1 and made.index(2.5) == 2 and made.format == found.format
        for refused in ("12345678" * 2, b"x" * 100):
            with pytest.raises(ValueError, match="exceeds"):
                made[0] = refused
        with pytest.raises(IndexError):
            made[len(ITEMS)]
        again = pickle.loads(pickle.dumps(made))
        assert type(again) is type(made) and list(again) == list(made)
        count = struct.unpack_from("q", made.shm.buf)[0]
        assert count == len(ITEMS)
        again.shm.close()
        found.shm.close()
    finally:
        made.shm.close()
        made.shm.unlink()


@pytest.mark.parametrize("kind", MANAGERS)
def test_managers_destroy_what_they_made(kind):
    with MANAGERS[kind].SharedMemoryManager() as manager:
        block, items = manager.SharedMemory(10), manager.ShareableList([1, 2])
        names = [block.name, items.shm.name]
        block.buf[0] = 7
        found = KINDS[kind].SharedMemory(block.name)
        assert found.buf[0] == 7 and list(items) == [1, 2]
        found.close()
        block.close()
        items.shm.close()
    assert not any(os.path.exists(f"/dev/shm/{name}") for name in names)
