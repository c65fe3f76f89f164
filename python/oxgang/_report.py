"""The table at the end of `oxgang run --report`: what oxgang did for the program.

Everything in it is counted or measured. A process pool hands in its counters when it ends, a
thread pool when the program does. What dispatch costs is measured at the end, by a process of its
own that sends a few hundred empty calls through a pool of the standard library and through ours
(`measured`): it is this machine's cost under this machine's load, not the program's.

Processes of the program's that have pools of their own add a line each to a file without a name,
which they reach by ``/proc`` as long as the first process lives.
"""

import os
import sys
import time

_PROBE_LIMIT_S = 30
_CALLS = 200

_began = None  # when, in the process that prints the report
_lines = None  # the descriptor that lines are written to, open in this process
_pools = []  # of this process: dicts, as `_summary` adds them up
_open = {}  # id of a pool's handle -> (handle, kind, when)
_pid = None

_COUNTS = (
    "submitted",
    "answered",
    "lost",
    "stopped",
    "retried",
    "started",
    "crashed",
    "passed_bytes",
    "lent_bytes",
)


def begin(_command):
    """The program starts: its end prints the report."""
    global _began, _lines, _pid
    import atexit

    _pid = os.getpid()
    _began = time.perf_counter()
    _lines = os.memfd_create("oxgang-report", os.MFD_CLOEXEC)
    atexit.register(_at_end)  # the first to be registered is the last to be called
    _watch_processes()


def address():
    """How other processes reach the lines; None: nobody wants a report."""
    if _lines is None:
        return None
    return f"/proc/{os.getpid()}/fd/{_lines}"


def join(address):
    """In a process that the program has started."""
    global _lines
    if address is None or _lines is not None:
        return
    try:
        _lines = os.open(address, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    except OSError:
        return  # the program has ended meanwhile: nobody is left to read it
    _watch_end()


def _watch_end():
    import atexit

    atexit.register(hand_in)
    _watch_processes()


def _watch_processes():
    """A process of `multiprocessing` ends without what `atexit` has."""
    from oxgang import _standard

    _standard.when_loaded("multiprocessing.util", _hand_in_at_exit)


def _hand_in_at_exit(util):
    plain = util._exit_function

    def _exit_function(*arguments, **options):
        hand_in()
        return plain(*arguments, **options)

    util._exit_function = _exit_function


def wanted():
    """Whether pools are to be noted down."""
    return _lines is not None


def opened(handle, kind):
    """A pool has begun to work; its `handle` has ``counters()``."""
    _open[id(handle)] = (handle, kind, time.perf_counter())


def ended(handle):
    """It has ended."""
    entry = _open.pop(id(handle), None)
    if entry is None:
        return
    handle, kind, began = entry
    counts = handle.counters()
    pool = {name: counts.get(name, 0) for name in _COUNTS}
    _pools.append({"kind": kind, "seconds": time.perf_counter() - began, **pool})


def watched(handle):
    """What the driver of a process pool does."""
    opened(handle, "process")
    try:
        handle.drive()
    finally:
        ended(handle)


def hand_in():
    """At the end of a process that was started by the program: adds what it has to the lines."""
    if _pid == os.getpid():
        return
    for handle, *_ in list(_open.values()):
        ended(handle)
    if _lines is not None and _pools:
        import json

        os.write(_lines, (json.dumps(_pools) + "\n").encode())
        _pools.clear()


def _after_fork_in_child():
    _pools.clear()
    _open.clear()
    if _lines is not None and _pid is not None:
        _forked()


def _forked():
    # no program's first process any more; and what it writes goes to the end
    global _lines, _pid
    first = _pid
    _pid = None
    try:
        lines = os.open(f"/proc/{first}/fd/{_lines}", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    except OSError:
        lines = None
    os.close(_lines)
    _lines = lines


os.register_at_fork(after_in_child=_after_fork_in_child)


# -- the report ---------------------------------------------------------------------------------


def _at_end():
    if _pid != os.getpid():
        hand_in()
        return
    seconds = time.perf_counter() - _began
    for handle, *_ in list(_open.values()):
        ended(handle)
    pools = [*_pools, *_of_others()]
    sys.stdout.flush()
    sys.stderr.write(_text(pools, seconds))
    sys.stderr.flush()


def _of_others():
    import json

    with open(os.dup(_lines), "rb") as file:
        file.seek(0)
        return [pool for line in file for pool in json.loads(line)]


def _text(pools, seconds):
    from oxgang import _standard

    used = [name for name in _standard.installed if _is_used(name)]
    rows = [("exchanged, and used", ", ".join(used) or "none of them was imported")]
    summary = _summary(pools)
    for kind in ("process", "thread"):
        of_kind = [pool for pool in pools if pool["kind"] == kind]
        if of_kind:
            rows.append((f"{kind} pools", _pools_row(of_kind, kind)))
    cost = None
    if summary["answered"]:
        rows.append(("tasks", _tasks_row(summary)))
    if summary["passed_bytes"] or summary["lent_bytes"]:
        rows.append(("bytes moved", _size(summary["passed_bytes"])))
        rows.append(("bytes not copied", f"{_size(summary['lent_bytes'])} in shared memory"))
    kinds = {pool["kind"] for pool in pools if pool["answered"]}
    costs = {kind: measured(kind) for kind in sorted(kinds)}
    for kind, cost in costs.items():
        rows.append((f"dispatch, {kind}", _cost_row(kind, cost, pools)))
    if any(pool["kind"] == "process" for pool in pools):
        rows.append(("deaths survived", _deaths_row(summary)))
    rows.append(("hint", _hint(used, pools, summary, seconds)))
    width = max(len(name) for name, _ in rows)
    lines = [f"oxgang run: {seconds:.2f} s"]
    lines += [f"  {name:{width}}  {value}" for name, value in rows]
    return "\n".join(lines) + "\n"


def _is_used(family):
    """Whether the program, or a library that is not the standard one, has something of it."""
    from oxgang import _install

    users = (sys.modules[name] for name in _install.users((family,)))
    files = (getattr(user, "__file__", None) for user in users)
    return any(file is None or not _install.is_standard(file) for file in files)


def _summary(pools):
    names = (*_COUNTS, "seconds")
    return {name: sum(pool.get(name, 0) for pool in pools) for name in names}


def _pools_row(pools, kind):
    workers = sum(pool["started"] for pool in pools)
    each = "worker" if kind == "process" else "thread"
    return f"{len(pools)}, {workers} {each}{'s' if workers != 1 else ''} started"


def _tasks_row(summary):
    rate = summary["answered"] / summary["seconds"] if summary["seconds"] else 0.0
    return f"{summary['answered']:,}, {rate:,.0f}/s while their pools were open"


def _cost_row(kind, cost, pools):
    if cost is None:
        return "could not be measured"
    ours, standard = cost
    tasks = sum(pool["answered"] for pool in pools if pool["kind"] == kind)
    text = f"{ours * 1e6:.1f} µs a task, the standard library {standard * 1e6:.1f} µs, measured now"
    return f"{text}; for {tasks:,} tasks {tasks * (standard - ours):+.2f} s"


def _deaths_row(summary):
    if not summary["crashed"]:
        return "0"
    died, lost = summary["crashed"], summary["lost"]
    return (
        f"{died} worker{'s' * (died != 1)} died, {lost} task{'s were' if lost != 1 else ' was'} "
        f"lost with {'them' if died != 1 else 'it'}, {summary['retried']} tried again"
    )


def _hint(used, pools, summary, seconds):
    """One piece of advice that the figures support."""
    processes = [pool for pool in pools if pool["kind"] == "process"]
    tasks = sum(pool["answered"] for pool in processes)
    if not used:
        return "the program uses none of the modules in this process; see --children"
    if summary["crashed"] and not summary["retried"]:
        return "workers died: retries=1 tries their tasks again, if they are safe to repeat"
    if len(processes) > 4 and tasks < 4 * sum(pool["started"] for pool in processes):
        return "many pools with few tasks each: make one and keep it"
    if tasks and summary["passed_bytes"] / tasks > 1 << 20:
        return (
            "tasks carry more than 1 MiB of pickle each: oxgang.shared, or arrays, need no copies"
        )
    if tasks and summary["seconds"] < 0.1 * seconds:
        return "pools were open for less than a tenth of the time: the rest runs on one CPU"
    return "none"


def _size(count):
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def measured(kind):
    """Seconds that an empty call costs now: (by ours, by the standard library), or None."""
    import json
    import subprocess

    command = [sys.executable, "-m", "oxgang._dispatch", kind, str(_CALLS)]
    silent = {"stdin": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    try:
        ran = subprocess.run(
            command, stdout=subprocess.PIPE, timeout=_PROBE_LIMIT_S, check=True, **silent
        )
        ours, standard = json.loads(ran.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return ours, standard
