"""When the system has no more to give: a clear error, or plain progress. Never a hang, and never
a program that is gone because its pool wanted memory.

Each case is a program of its own, since a limit cannot be taken back. What it prints is compared.
"""

import os
import signal
import subprocess
import sys
import textwrap

import calls
import pytest
import sandbox
from oxgang.concurrent.futures import ProcessPoolExecutor
from oxgang.concurrent.futures.process import BrokenProcessPool
from programs import HERE, state_of

needs_filter = pytest.mark.skipif(
    not sandbox.known, reason="the numbers of system calls are not known for this machine"
)

TOP = """
import errno, multiprocessing, os, resource, sys, time
sys.path.insert(0, {here!r})
import calls, sandbox
from oxgang.concurrent.futures import ProcessPoolExecutor

def limit(which, soft):
    _, hard = resource.getrlimit(which)
    resource.setrlimit(which, (soft, hard))

def outcome(function, *args):
    try:
        return function(*args)
    except Exception as error:
        return f"{{type(error).__name__}}: {{error}}"

def alive(pool):
    return [one.result() for one in [pool.submit(calls.same, i) for i in range(20)]] == [*range(20)]
"""


def program(tmp_path, text, before=()):
    """Runs it; gives its lines. It must end well and say nothing else."""
    script = tmp_path / "program.py"
    script.write_text(TOP.format(here=str(HERE)) + textwrap.dedent(text))
    command = [*before, sys.executable, script]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout.splitlines()


# -- memory ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bytes", "list"])
def test_no_memory_for_a_result(tmp_path, kind):
    """The address space of the program is too small for it; that of the worker is not."""
    make = {"bytes": "bytes(size)", "list": "[7] * (size // 16)"}[kind]
    said = program(
        tmp_path,
        f"""
        def make(size):
            return {make}

        def used():
            with open("/proc/self/statm") as file:
                return int(file.read().split()[0]) * 4096

        if __name__ == "__main__":
            with ProcessPoolExecutor(1) as pool:
                alive(pool)
                limit(resource.RLIMIT_AS, used() + (40 << 20))
                answer = outcome(lambda: len(pool.submit(make, 200 << 20).result()))
                print(answer.partition(":")[0] if isinstance(answer, str) else answer)
                print(alive(pool))
        """,
    )
    assert said[0] in ("PayloadError", "MemoryError")
    assert said[1] == "True"


def test_no_memory_for_an_argument(tmp_path):
    """No block of shared memory may be as long as this."""
    (said, alive) = program(
        tmp_path,
        """
        if __name__ == "__main__":
            data = bytes(50 << 20)
            with ProcessPoolExecutor(1) as pool:
                alive(pool)
                limit(resource.RLIMIT_FSIZE, 10 << 20)  # counts for memory without a name too
                print(outcome(lambda: pool.submit(calls.length, data).result()))
                print(alive(pool))
        """,
    )
    assert said.startswith("MemoryError: no shared memory for 524")
    assert alive == "True"


def test_no_memory_for_a_result_in_the_worker(tmp_path):
    (said, alive) = program(
        tmp_path,
        """
        def make(size):
            limit(resource.RLIMIT_FSIZE, 10 << 20)
            return bytes(size)

        if __name__ == "__main__":
            with ProcessPoolExecutor(1) as pool:
                print(outcome(lambda: len(pool.submit(make, 50 << 20).result())))
                print(alive(pool))
        """,
    )
    assert said.startswith("MemoryError: no shared memory for 524")
    assert alive == "True"


@pytest.mark.parametrize("how", ["-o size=64m", "-o ro"])
def test_a_small_or_read_only_dev_shm(tmp_path, how):
    """Of no concern: no file is made there."""
    mounted = ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs {how} none /dev/shm && exec "$@"']
    tried = subprocess.run([*mounted, "sh", "true"], capture_output=True, check=False)
    if tried.returncode:
        pytest.skip("no mount namespace can be made here")
    said = program(
        tmp_path,
        """
        if __name__ == "__main__":
            data = bytes(100 << 20)
            with ProcessPoolExecutor(1) as pool:
                futures = [pool.submit(calls.same, data) for _ in range(2)]
                print([one.result() == data for one in futures])
        """,
        [*mounted, "sh"],
    )
    assert said == ["[True, True]"]


# -- processes -----------------------------------------------------------------------------


def test_the_limit_of_processes_is_reached(tmp_path):
    """Not for root, whom the limit does not concern."""
    before = []
    if os.geteuid() == 0:
        drop = ["setpriv", "--reuid=54321", "--clear-groups", "--bounding-set=-all,+dac_override"]
        before = [*drop, "--inh-caps=-all,+dac_override", "--ambient-caps=-all,+dac_override"]
        tried = subprocess.run([*before, "true"], capture_output=True, check=False)
        if tried.returncode:
            pytest.skip("root cannot become somebody else here")
    said = program(
        tmp_path,
        """
        if __name__ == "__main__":
            fork = multiprocessing.get_context("fork")
            early, late, not_begun = (ProcessPoolExecutor(2, mp_context=fork) for _ in range(3))
            alive(early), late.submit(int).result()
            _, hard = resource.getrlimit(resource.RLIMIT_NPROC)
            limit(resource.RLIMIT_NPROC, 0)
            print(alive(late))  # with the worker that it has
            print(outcome(lambda: alive(not_begun)))
            for pool in (early, late):
                while pool.statistics()["workers"] and pool._broken is False:
                    for worker in pool.statistics()["workers"]:
                        outcome(os.kill, worker["pid"], 9)
                print(outcome(lambda: alive(pool)))
            print(outcome(ProcessPoolExecutor))  # by a template
            limit(resource.RLIMIT_NPROC, hard)
            print(alive(not_begun))
        """,
        before,
    )
    assert said[0] == "True"
    assert said[1] == "RuntimeError: can't start new thread"
    for line in said[2:4]:
        assert line.startswith("BrokenProcessPool: no worker can be started: ")
    assert all("Resource temporarily unavailable" in line for line in said[2:5])
    assert said[5] == "True"


@needs_filter
def test_the_template_cannot_fork(tmp_path):
    (said,) = program(
        tmp_path,
        """
        import no_fork_in_template

        if __name__ == "__main__":
            with ProcessPoolExecutor(2) as pool:
                print(outcome(lambda: alive(pool)))
        """,
    )
    assert said.startswith("BrokenProcessPool: fork failed: ")


@needs_filter
@pytest.mark.parametrize("method", ["template", "fork", "spawn"])
@pytest.mark.parametrize("error", ["EPERM", "ENOSYS"])
@pytest.mark.parametrize("call", ["memfd_create", "pidfd_open"])
def test_a_sandbox_forbids_what_is_needed(tmp_path, call, error, method):
    """There is no lesser way; it is said at once, and by name."""
    (said,) = program(
        tmp_path,
        f"""
        def attempt():
            context = {method!r} != "template" and multiprocessing.get_context({method!r}) or None
            with ProcessPoolExecutor(1, mp_context=context) as pool:
                return alive(pool)

        if __name__ == "__main__":
            sandbox.forbid({call!r}, errno.{error})
            print(outcome(attempt))
        """,
    )
    assert f"{call} was refused: " in said
    assert "oxgang needs it" in said


# -- descriptors -----------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["template", "fork"])
@pytest.mark.parametrize("room", [0, 3, 6, 9, 12, 15, 20])
def test_the_limit_of_descriptors_is_reached(tmp_path, room, method):
    """With room for a few workers the pool works with them; with room for none it says why."""
    (said,) = program(
        tmp_path,
        f"""
        def attempt():
            with ProcessPoolExecutor(8, mp_context=context) as pool:
                return alive(pool)

        if __name__ == "__main__":
            context = {method!r} != "template" and multiprocessing.get_context({method!r}) or None
            with ProcessPoolExecutor(1, mp_context=context) as pool:
                alive(pool)
            free = os.dup(0)
            os.close(free)
            limit(resource.RLIMIT_NOFILE, free + {room})
            print(outcome(attempt))
        """,
    )
    assert said == "True" or "too many open files" in said.lower()
    assert room < 20 or said == "True"


def test_a_pool_that_works_goes_on_when_there_are_no_more_descriptors(tmp_path):
    said = program(
        tmp_path,
        """
        if __name__ == "__main__":
            with ProcessPoolExecutor(4) as pool:
                alive(pool)
                free = os.dup(0)
                os.close(free)
                limit(resource.RLIMIT_NOFILE, free)
                print(all(alive(pool) for _ in range(20)))
                naps = [pool.submit(calls.nap, 0.01) for _ in range(100)]
                print(sum(one.result() == 0.01 for one in naps))
        """,
    )
    assert said == ["True", "100"]


# -- workers that are stopped ----------------------------------------------------------------


def stop(pid):
    os.kill(pid, signal.SIGSTOP)
    while state_of(pid) != "T":
        pass


def test_a_stopped_worker_holds_up_its_own_task_only():
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(calls.same, range(100)))
        both = [pool.submit(calls.nap, 0.2) for _ in range(2)]
        while not all(one.running() for one in both):
            pass
        victim = pool.statistics()["workers"][0]["pid"]
        stop(victim)
        others = [pool.submit(calls.same, number) for number in range(200)]
        assert [one.result() for one in others] == list(range(200))
        assert sum(one.done() for one in both) == 1
        os.kill(victim, signal.SIGCONT)
        assert [one.result() for one in both] == [0.2, 0.2]


def test_a_stopped_worker_can_be_ended():
    with ProcessPoolExecutor(2) as pool:
        futures = [pool.submit(calls.nap, 600) for _ in range(2)]
        while not all(one.running() for one in futures):
            pass
        for worker in pool.statistics()["workers"]:
            stop(worker["pid"])
        pool.kill_workers()
        for one in futures:
            with pytest.raises(BrokenProcessPool):
                one.result()
