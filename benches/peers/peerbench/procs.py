"""What /proc says about processes: who descends from whom, CPU used, memory held."""

import ctypes
import os
import signal
import time
from typing import NamedTuple

TICKS = os.sysconf("SC_CLK_TCK")
PR_SET_CHILD_SUBREAPER = 36
CLONE_NEWNS = 0x00020000
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000


class Proc(NamedTuple):
    pid: int
    ppid: int
    name: str
    state: str
    cpu: float  # user + system seconds, reaped children not included
    started: int  # in ticks since boot; with the pid, a unique key


def _parse(pid: int) -> Proc:
    with open(f"/proc/{pid}/stat", "rb") as f:
        text = f.read().decode("ascii", "replace")
    name = text[text.index("(") + 1 : text.rindex(")")]
    rest = text[text.rindex(")") + 2 :].split()
    return Proc(
        pid, int(rest[1]), name, rest[0], (int(rest[11]) + int(rest[12])) / TICKS, int(rest[19])
    )


def snapshot() -> dict[int, Proc]:
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                found[int(entry)] = _parse(int(entry))
            except (OSError, ValueError):
                pass  # it ended while we looked
    return found


def descendants(root: int, procs: dict[int, Proc] | None = None) -> list[Proc]:
    """All living (not zombie) processes below `root`, `root` itself left out."""
    procs = snapshot() if procs is None else procs
    below = {}
    for proc in procs.values():
        below.setdefault(proc.ppid, []).append(proc)
    found, queue = [], [root]
    while queue:
        for proc in below.get(queue.pop(), ()):
            queue.append(proc.pid)
            if proc.state not in "ZX":
                found.append(proc)
    return found


def alive(pid: int) -> bool:
    try:
        return _parse(pid).state not in "ZX"
    except OSError:
        return False


def role(proc: Proc) -> str:
    """A short human name for a survivor."""
    try:
        with open(f"/proc/{proc.pid}/cmdline", "rb") as f:
            line = f.read().replace(b"\0", b" ").decode("utf-8", "replace")
    except OSError:
        line = ""
    if "ray::" in line:
        return "ray worker"
    for word in (
        "resource_tracker",
        "semaphore_tracker",
        "forkserver",
        "raylet",
        "gcs_server",
        "log_monitor",
        "dashboard",
        "agent",
    ):
        if word in line:
            return word
    return "python process" if "python" in line or "python" in proc.name else proc.name


def tree_cpu() -> float:
    """CPU seconds used so far by this process and everything now below it.

    Threads count; children already reaped count through this process's own
    account, so the difference of two readings is right as long as no worker
    is replaced in between.
    """
    times = os.times()
    own = time.process_time() + times.children_user + times.children_system
    return own + sum(map(_cpu_of, descendants(os.getpid())))


def _cpu_of(proc: Proc) -> float:
    """Seconds on a CPU, summed over threads: finer than the 10 ms ticks of stat."""
    total = 0
    try:
        for thread in os.listdir(f"/proc/{proc.pid}/task"):
            with open(f"/proc/{proc.pid}/task/{thread}/schedstat") as f:
                total += int(f.read().split()[0])
    except (OSError, ValueError):
        return proc.cpu  # no schedstat here, or the process just ended
    return total / 1e9


def pss(pid: int) -> float:
    """Proportional set size in MB: shared pages are split among their users."""
    try:
        with open(f"/proc/{pid}/smaps_rollup") as f:
            for line in f:
                if line.startswith("Pss:"):
                    return int(line.split()[1]) * 1024 / 1e6
    except OSError:
        pass
    return 0.0


def rss(pid: int) -> float:
    try:
        with open(f"/proc/{pid}/statm") as f:
            return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    except OSError:
        return 0.0


def machine_busy() -> float:
    """Seconds of CPU spent by the whole machine (steal included) since boot."""
    with open("/proc/stat") as f:
        fields = [int(x) for x in f.readline().split()[1:9]]
    idle = fields[3] + fields[4]
    return (sum(fields) - idle) / TICKS


def adopt_orphans() -> None:
    """Become the parent of every orphan below us, so that none escapes the count."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def end(procs: list[Proc]) -> None:
    """Kill these processes, each by its own id, and only if it is still the same one."""
    for proc in procs:
        try:
            if _parse(proc.pid).started == proc.started:
                os.kill(proc.pid, signal.SIGKILL)
        except OSError:
            pass


def reap(keep: int = 0) -> None:
    """Collect the exit status of adopted orphans; `keep` is left to its owner."""
    for proc in snapshot().values():
        if proc.ppid == os.getpid() and proc.state == "Z" and proc.pid != keep:
            try:
                os.waitpid(proc.pid, os.WNOHANG)
            except OSError:
                pass


def end_all_below(root: int, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        left = descendants(root)
        if not left:
            break
        end(left)
        time.sleep(0.05)
        reap()
    reap()


def give_own_shm(directory: str) -> None:
    """From here on this process and its children see `directory` as /dev/shm.

    Needs root. `directory` must lie on the real /dev/shm, so that nothing changes but
    the name; whatever is left in it afterwards was left by this process tree.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    private = MS_REC | MS_PRIVATE
    for failed in (
        libc.unshare(CLONE_NEWNS),
        libc.mount(None, b"/", None, private, None),
        libc.mount(directory.encode(), b"/dev/shm", None, MS_BIND, None),
    ):
        if failed:
            raise OSError(ctypes.get_errno(), "no private /dev/shm")
