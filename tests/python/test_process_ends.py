"""However the program ends, nothing of its pools is left."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

PROGRAM = """
import os, signal, sys, time
from oxgang.concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

def work(folder):
    open(os.path.join(folder, str(os.getpid())), "w").close()
    time.sleep(600)

def start(folder, method):
    context = None
    if method != "template":
        import multiprocessing
        context = multiprocessing.get_context(method)
    pool = ProcessPoolExecutor(2, mp_context=context)
    for _ in range(2):
        pool.submit(work, folder)
    while len(os.listdir(folder)) < 2:
        time.sleep(0.01)
    return pool

if __name__ == "__main__":
    pool = start(sys.argv[1], sys.argv[2])
    print("busy", flush=True)
    {ending}
"""


def start(tmp_path, ending, method="template"):
    path, folder = tmp_path / "program.py", tmp_path / "pids"
    folder.mkdir()
    path.write_text(PROGRAM.replace("{ending}", ending))
    program = subprocess.Popen(
        [sys.executable, str(path), str(folder), method],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert program.stdout.readline() == "busy\n"
    return program, [int(one.name) for one in folder.iterdir()]


def gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def assert_all_gone(pids, group):
    while not all(map(gone, pids)):
        time.sleep(0.01)
    # the template and whatever else was started in the program's session
    while any(session_of(int(one.name)) == group for one in processes()):
        time.sleep(0.01)


def processes():
    return [one for one in Path("/proc").iterdir() if one.name.isdecimal()]


def session_of(pid):
    try:
        state, _, _, session = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:4]
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state in "ZX" else int(session)


@pytest.mark.parametrize("method", ["template", "fork", "spawn", "forkserver"])
def test_killed(tmp_path, method):
    program, pids = start(tmp_path, "time.sleep(600)", method)
    program.kill()
    program.communicate()
    assert_all_gone(pids, program.pid)


@pytest.mark.parametrize("method", ["template", "fork", "spawn", "forkserver"])
def test_os_exit(tmp_path, method):
    program, pids = start(tmp_path, "os._exit(5)", method)
    program.communicate()
    assert program.returncode == 5
    assert_all_gone(pids, program.pid)


def test_terminated(tmp_path):
    program, pids = start(tmp_path, "time.sleep(600)")
    program.terminate()
    program.communicate()
    assert program.returncode == -signal.SIGTERM
    assert_all_gone(pids, program.pid)


@pytest.mark.parametrize("group", [False, True], ids=["alone", "group"])
def test_ctrl_c_in_a_with_block(tmp_path, group):
    program, pids = start(tmp_path, "\n    with pool:\n        time.sleep(600)")
    if group:
        os.killpg(program.pid, signal.SIGINT)
    else:
        program.send_signal(signal.SIGINT)
    _, errors = program.communicate()
    assert "KeyboardInterrupt" in errors
    assert errors.count("Traceback") == 1
    assert_all_gone(pids, program.pid)


def test_a_normal_end_waits_for_the_work(tmp_path):
    path = tmp_path / "program.py"
    path.write_text(
        textwrap.dedent(
            """
            import time
            from oxgang.concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
            def late(word):
                time.sleep(0.2)
                print(word, flush=True)
            ProcessPoolExecutor(1).submit(late, "process")
            ThreadPoolExecutor(1).submit(late, "thread")
            """
        )
    )
    done = subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.split()) == ["process", "thread"]


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
