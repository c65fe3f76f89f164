"""`oxgang map`: the calls between the inputs and the rows.

The Rust side (`oxgang._core.MapJob`) reads the command line and the inputs, writes rows,
progress and summary, and knows the exit codes. This side finds the function, runs it on an
`oxgang.Executor`, and turns results into what a row can hold (`_cells`).

However a run ends, rows that were written are whole, and no worker is left:

* to its end: the pool is shut down in order;
* by a signal (Ctrl-C, SIGTERM, SIGHUP), `--fail-fast`, a broken pipe, an output that cannot be
  written, or bad input in the middle: calls that run are ended with their processes. A thread
  cannot be ended from outside, nor a coroutine that takes no notice, so after the summary the
  process leaves without waiting for any, also after a run to its end with calls beyond
  `--timeout`. A second Ctrl-C ends the
  process at once.
"""

import itertools
import json
import multiprocessing
import os
import signal
import sys
from concurrent.futures import BrokenExecutor

from oxgang._cells import Unwritable, encoder_for
from oxgang._core import CliStop, MapJob
from oxgang._live import live_outcomes
from oxgang._target import BadTarget, check_call, check_model, prepare_worker, resolve

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Signals:
    """Turns the first signal that asks us to end into KeyboardInterrupt, and remembers which."""

    def __init__(self):
        self.number = None
        self._before = {}

    def __enter__(self):
        for number in _SIGNALS:
            # One that is ignored (nohup, a job in the background) stays ignored.
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exc_info):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number, frame):
        self.number = number
        for other in self._before:
            signal.signal(other, signal.SIG_DFL)  # the second one ends the process
        raise KeyboardInterrupt


def run(argv):
    """Run the command; return the exit code, or leave the process where threads still run."""
    with _Signals() as signals:
        try:
            return _map(argv, signals)
        except CliStop as stop:
            code, out, err = stop.args
            sys.stdout.write(out)
            sys.stderr.write(err)
            return code
        except BadTarget as error:
            message = " ".join(str(error).split())
            sys.stderr.write(f"oxgang map: {message}\n")
            return 2
        except KeyboardInterrupt:
            number = signals.number or signal.SIGINT
            by = "Ctrl-C" if number == signal.SIGINT else f"signal {int(number)}"
            sys.stderr.write(f"oxgang map: stopped by {by}\n")
            return 128 + number


def _map(argv, signals):
    job = MapJob(argv)
    function, home = resolve(job.target)
    model = check_model(function, job.target, job.model, job.memory_limit)
    job.prepare()
    calls = _calls(job)
    first = next(calls, None)
    if first is not None:
        check_call(function, job.target, first)
    job.start(job.target.rpartition(":")[2])
    if first is None:
        return job.finish("done")

    from oxgang._executor import Executor

    here = model in ("thread", "coroutine")
    workers = {} if here else {"initializer": prepare_worker, "initargs": (home,)}
    try:
        limits = {"task_timeout": job.timeout, "memory_limit": job.memory_limit}
        executor = Executor(model, job.jobs, **workers, **limits)
    except (OSError, ValueError) as error:  # no processes or memory left, too many workers
        return job.finish("trouble", 1, f"cannot start the workers: {error}; try fewer with -j")
    ending = _run(job, function, itertools.chain([first], calls), executor, signals)
    if ending == ("done",):
        return _closed(executor, job, signals)
    _stop(executor)
    code = job.finish(*ending)
    return _leave(code)


def _calls(job):
    """The inputs as calls."""
    from oxgang._map import Call

    match job.kind:
        case "line":
            return (Call((text,), {}) for text in job)
        case "row":
            return (Call((), row) for row in job)
        case _:
            return (Call((), json.loads(text)) for text in job)


def _run(job, function, calls, executor, signals):
    """Run all calls; return how it ended, as `MapJob.finish` takes it."""
    from oxgang._map import outcomes

    options = {"retries": job.retries, "chunksize": job.chunksize}
    try:
        if job.waits:
            results = live_outcomes(executor, function, calls, **options)
        else:
            results = outcomes(executor, function, calls, ordered=False, **options)
        try:
            return _hand_in(job, results)
        finally:
            results.close()
    except KeyboardInterrupt:
        return ("signal", int(signals.number or signal.SIGINT))
    except BrokenPipeError:
        return ("pipe",)
    except CliStop as stop:
        code, _, line = stop.args
        return ("trouble", code, line.removeprefix("oxgang map: ").strip())
    except (BrokenExecutor, OSError) as error:
        return ("trouble", 1, f"the pool cannot go on: {type(error).__name__}: {error}")


def _hand_in(job, results):
    encode = encoder_for(job.form)
    for outcome in results:
        error = outcome.error
        if error is None:
            try:
                row = encode(outcome.value)
            except Unwritable as unwritable:
                error = unwritable
            else:
                ok = job.succeed(outcome.index, row)
        if error is not None:
            job.fail(outcome.index, *_described(error))
            ok = False
        if not ok and job.fail_fast:
            return ("fail_fast",)
    return ("done",)


def _described(error):
    """An exception as type and message, in text that any file can hold."""
    kind = "ResultError" if isinstance(error, Unwritable) else type(error).__name__
    try:
        message = str(error)
    except Exception as broken:
        message = f"(its message cannot be shown: {type(broken).__name__})"
    # Names of files that are not UTF-8 come as lone surrogates, which no text file takes.
    return kind, message.encode("utf-8", "backslashreplace").decode("utf-8")


def _closed(executor, job, signals):
    """All is done: end the pool in order; a signal meanwhile ends it at once."""
    try:
        executor.shutdown()
    except KeyboardInterrupt:
        _stop(executor)
        return _leave(job.finish("signal", int(signals.number or signal.SIGINT)))
    code = job.finish("done")
    if executor.statistics().get("abandoned"):
        return _leave(code)  # calls in threads that went beyond --timeout
    return code


def _stop(executor):
    """End the workers that can be ended, running calls or not; wait for none."""
    if executor.model != "thread":
        try:
            executor.kill_workers()
        except NotImplementedError:  # a pool of the standard library before 3.14
            for child in multiprocessing.active_children():
                child.kill()
    executor.shutdown(wait=False, cancel_futures=True)


def _leave(code):
    """End the process now: an exit in order would wait for threads that still run calls."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
