"""The exceptions for calls that were lost with their workers, from the engine's facts."""

from oxgang._sizes import readable

_PERHAPS = " (out of memory, perhaps)"


def crash_error(task_id, function, facts, alone=True):
    """The exception for a lost call. `facts`: for each try's death ``(pid, exit code, seconds or
    None, kind, limit, used or kills, stack, peak)``, the last one last. `alone`: its worker ran
    nothing else."""
    from oxgang import errors

    name = function if isinstance(function, str) else getattr(function, "__qualname__", None)
    deaths = tuple(errors.Death(*fact[:3], _reason(fact)) for fact in facts)
    pid, exitcode, seconds, kind, limit, detail, stack, peak = facts[-1]
    common = {
        "task_id": task_id,
        "function": name,
        "pid": pid,
        "deaths": deaths,
        "stack": stack,
    }
    if kind == "time":
        took = "" if seconds is None else f"after {seconds:.3g} s "
        message = (
            f"{name} ran longer than its time limit of {limit:g} s and did not stop when asked; "
            f"{took}its worker (pid {pid}) was ended"
        )
        error = errors.TaskTimeout(message + _history(deaths), limit=limit, **common)
    elif kind == "memory":
        most = "" if peak is None else f" (at its peak {readable(peak)})"
        message = (
            f"{name} was ended with its worker (pid {pid}): that had {readable(detail)} of memory"
            f"{most}, more than the limit of {readable(limit)}"
        )
        error = errors.MemoryLimitExceeded(
            message + _history(deaths),
            limit=limit,
            used=detail,
            peak=peak,
            exitcode=exitcode,
            **common,
        )
    elif kind == "terminated":
        message = f"{name} was running when it was terminated; its worker{_pid(pid)} was ended"
        error = errors.TaskTerminated(message + _history(deaths), exitcode=exitcode, **common)
    else:
        lost = f"only this task (number {task_id}) is lost,"
        if not alone:
            lost = f"this task (number {task_id}) is lost, and what else had begun there;"
        message = (
            f"the worker (pid {pid}) that ran {name} {_how(exitcode, detail)}; {lost} the pool "
            "goes on"
        )
        killed = None if exitcode != -9 or detail is None else detail > 0
        error = errors.WorkerCrashed(
            message + _history(deaths), exitcode=exitcode, out_of_memory=killed, **common
        )
    if stack:
        error.add_note(f"Where the task was (pid {pid}):\n{stack.rstrip()}")
    return error


def _pid(pid):
    return "" if pid is None else f" (pid {pid})"


def _history(deaths):
    return "" if len(deaths) < 2 else f". {history(deaths)}"


def history(deaths):
    """The workers that a task has ended, in a sentence."""
    told = "; ".join(
        f"pid {death.pid} {death.reason}"
        + ("" if death.seconds is None else f" after {death.seconds:.3g} s")
        for death in deaths
    )
    workers = "1 worker" if len(deaths) == 1 else f"{len(deaths)} workers"
    return f"It has ended {workers}: {told}"


def _reason(fact):
    _, exitcode, _, kind, limit, detail, _, _ = fact
    match kind:
        case "time":
            return f"ended at the time limit of {limit:g} s"
        case "memory":
            return f"ended with {readable(detail)} of memory, over the limit of {readable(limit)}"
        case "terminated":
            return "terminated"
        case _:
            return _how(exitcode, detail or None).removesuffix(_PERHAPS)


def _how(exitcode, kills):
    if exitcode is None:
        return "ended, nobody knows how"
    if exitcode >= 0:
        return f"exited with code {exitcode} without an answer"
    import signal

    try:
        name = signal.Signals(-exitcode).name
    except ValueError:
        name = "an unnamed signal"
    if name != "SIGKILL":
        by = ""
    elif kills is None:
        by = _PERHAPS
    elif kills:
        by = " by the kernel, for want of memory (it has just counted an out-of-memory kill)"
    else:
        by = " (not by the kernel for want of memory: it has counted no such kill)"
    return f"was killed by signal {-exitcode}, {name}{by}"
