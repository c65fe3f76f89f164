"""However a program ends, nothing of its pools is left, its exit code is what it would be without
a pool, and nobody has to read pages.

Each ending of `program_that_ends.py` is run with each start method. Nothing here measures time;
what hangs is caught by the watchdog.
"""

import os
import signal
import time
from typing import NamedTuple

import pytest
from programs import HERE, Program, gone

METHODS = ("template", "fork", "spawn", "forkserver")
SCRIPT = HERE / "program_that_ends.py"


class Case(NamedTuple):
    """What is done to the program once it is ready, and what must come of it."""

    ending: str
    do: str = "go"  # go: let its tasks end; or a signal's name, "all" for all of its processes
    code: int = 0
    raised: str = ""  # on stderr, with one traceback; otherwise there must be nothing
    done: int = 0  # tasks that must have been done


CASES = {
    "returns": Case("returns", done=4),
    "with block ends": Case("closes", done=4),
    "exception": Case("raises", code=1, raised="LookupError", done=4),
    "exception in a with block": Case("raises_within", code=1, raised="LookupError", done=4),
    "sys.exit": Case("exits", code=3, done=4),
    "sys.exit in a with block": Case("exits_within", "", code=3),
    "os._exit": Case("os_exit", "", code=5),
    "SIGTERM": Case("sleeps_within", "SIGTERM", code=-signal.SIGTERM),
    "SIGHUP": Case("sleeps", "SIGHUP", code=-signal.SIGHUP),
    "SIGKILL": Case("sleeps_within", "SIGKILL", code=-signal.SIGKILL),
    "Ctrl-C": Case("sleeps", "SIGINT", -signal.SIGINT, "KeyboardInterrupt"),
    "Ctrl-C in a with block": Case("sleeps_within", "SIGINT", -signal.SIGINT, "KeyboardInterrupt"),
    "Ctrl-C to all": Case("sleeps_within", "SIGINT all", -signal.SIGINT, "KeyboardInterrupt"),
    "Ctrl-C while waiting for a result": Case(
        "waits_for_result", "SIGINT all", -signal.SIGINT, "KeyboardInterrupt"
    ),
    "Ctrl-C while a with block ends": Case(
        "closes", "SIGINT asleep", -signal.SIGINT, "KeyboardInterrupt"
    ),
    "Ctrl-C while waiting at exit": Case("waits_at_exit", "SIGINT asleep", -signal.SIGINT),
    "in a thread": Case("in_thread", done=4),
    "in a daemon thread": Case("in_daemon_thread", done=5),
    "killed, in a thread": Case("in_thread", "SIGKILL", code=-signal.SIGKILL),
    "a fork of it ends": Case("fork_ends", done=4),
}


@pytest.fixture
def start(tmp_path):
    started = []

    def start(*words):
        started.append(Program(tmp_path, *words))
        return started[-1]

    yield start
    for program in started:
        program.destroy()


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "marks"
    path.mkdir()
    return path


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_ending(start, folder, method, case):
    program = start(SCRIPT, folder, method, case.ending)
    program.wait_for_line("ready")
    if case.do == "go":
        (folder / "go").touch()
    elif case.do:
        name, _, how = case.do.partition(" ")
        if how == "asleep":
            program.wait_until_asleep()
        send = program.signal_all if how == "all" else program.signal
        send(getattr(signal, name))
    code, errors = program.end()
    assert code == case.code, errors
    if case.raised:
        assert errors.count("Traceback") == 1
        assert errors.splitlines()[-1].startswith(case.raised)
    else:
        assert errors == ""
    assert len(list(folder.glob("done-*"))) == case.done
    program.assert_nothing_left(fork_server=method == "forkserver")


@pytest.mark.parametrize("method", METHODS)
def test_ctrl_c_twice(start, folder, method):
    program = start(SCRIPT, folder, method, "sleeps_within")
    program.wait_for_line("ready")
    program.signal_all(signal.SIGINT)
    program.signal_all(signal.SIGINT)
    code, errors = program.end()
    assert code == -signal.SIGINT
    assert 1 <= errors.count("Traceback") <= 2
    assert errors.count("\n") < 60
    program.assert_nothing_left(fork_server=method == "forkserver")


@pytest.mark.parametrize("method", METHODS)
def test_ctrl_c_while_workers_start(start, folder, method):
    """Workers that have not got as far as to ignore it have nothing to say about it either."""
    script = folder / "starting.py"
    script.write_text(
        "import multiprocessing, sys\n"
        "from oxgang.concurrent.futures import ProcessPoolExecutor\n"
        "if __name__ == '__main__':\n"
        f"    method = {method!r}\n"
        "    context = None if method == 'template' else multiprocessing.get_context(method)\n"
        "    with ProcessPoolExecutor(4, mp_context=context) as pool:\n"
        "        futures = [pool.submit(abs, -number) for number in range(8)]\n"
        "        print('ready', flush=True)\n"
        "        for future in futures * 10_000_000:\n"
        "            future.result()\n"
    )
    program = start(script)
    program.wait_for_line("ready")
    program.signal_all(signal.SIGINT)
    code, errors = program.end()
    assert code == -signal.SIGINT
    if method != "forkserver":  # the fork server is not ours, nor are its first moments
        assert errors.count("Traceback") == 1, errors
    program.assert_nothing_left(fork_server=method == "forkserver")


@pytest.mark.parametrize("method", METHODS)
def test_a_fork_of_the_program_does_not_keep_its_workers(start, folder, method):
    program = start(SCRIPT, folder, method, "forks")
    program.wait_for_line("ready")
    workers = [int(path.name.partition("-")[2]) for path in folder.glob("begun-*")]
    (fork,) = [int(path.name.partition("-")[2]) for path in folder.glob("forked-*")]
    program.kill_it_alone()
    while not all(map(gone, workers)):
        time.sleep(0.01)
    assert not gone(fork)
    (folder / "end").touch()
    program.assert_nothing_left(fork_server=method == "forkserver")


TESTS = """
import time
from oxgang.concurrent.futures import ProcessPoolExecutor

pools = []

def nap(seconds):
    time.sleep(seconds)
    return seconds

def test_leaves_a_pool_open():
    pools.append(ProcessPoolExecutor(2))
    assert pools[0].submit(nap, 0.01).result() == 0.01
    pools[0].submit(nap, 0.1)

def test_fails_in_a_with_block():
    with ProcessPoolExecutor(2) as pool:
        assert pool.submit(nap, 0.01).result() == 5

def test_is_interrupted():
    with ProcessPoolExecutor(2) as pool:
        running = pool.submit(nap, 600)
        while not running.running():
            time.sleep(0.01)
        print("ready", flush=True)
        running.result()
"""


def test_under_pytest(start, folder):
    script = folder / "test_them.py"
    script.write_text(TESTS)
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-s", f"--rootdir={folder}", script]
    program = start(*words)
    program.wait_for_line("ready")
    program.signal_all(signal.SIGINT)
    code, errors = program.end()
    assert code == pytest.ExitCode.INTERRUPTED
    assert errors == ""
    program.assert_nothing_left()


def test_nothing_is_kept_open_by_a_closed_pool():
    from oxgang.concurrent.futures import ProcessPoolExecutor

    def descriptors():
        return len(os.listdir("/proc/self/fd"))

    with ProcessPoolExecutor(2) as pool:
        list(pool.map(abs, range(10)))
    before = descriptors()
    for _ in range(5):
        with ProcessPoolExecutor(2) as pool:
            list(pool.map(abs, range(10)))
        del pool
    assert descriptors() <= before


def test_a_normal_end_waits_for_the_work_of_threads_too(start, folder):
    script = folder / "late.py"
    script.write_text(
        "import time\n"
        "from oxgang.concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor\n"
        "def late(path):\n"
        "    time.sleep(0.2)\n"
        "    open(path, 'w').close()\n"
        f"ProcessPoolExecutor(1).submit(late, {str(folder / 'process')!r})\n"
        f"ThreadPoolExecutor(1).submit(late, {str(folder / 'thread')!r})\n"
    )
    program = start(script)
    assert program.end() == (0, "")
    assert (folder / "process").exists() and (folder / "thread").exists()
    program.assert_nothing_left()


def test_ctrl_c_at_exit_with_threads(start, folder):
    """A thread cannot be ended, and does not keep the program after a second Ctrl-C."""
    script = folder / "threads.py"
    script.write_text(
        "import threading, time\n"
        "from oxgang.concurrent.futures import ThreadPoolExecutor\n"
        "pool = ThreadPoolExecutor(1)\n"
        "for _ in range(100):\n"
        "    pool.submit(time.sleep, 600)\n"
        "threading._register_atexit(lambda: print('ready', flush=True))\n"
    )
    program = start(script)
    program.wait_for_line("ready")
    program.wait_until_asleep()
    program.signal(signal.SIGINT)
    _, errors = program.end()
    assert errors.count("Traceback") <= 1
    program.assert_nothing_left()
