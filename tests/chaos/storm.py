"""A storm: pools come and go, thousands of tasks run in them, their workers are killed, stopped
and signalled all the time, futures are cancelled, pools are closed in every way. And the accounts
must be exact:

- every future is resolved, once;
- a result is the right one, an error the one that the task raised;
- a task that is lost is told to be, with its worker's number and a signal that was really sent;
- a task that was cancelled has not run, one that was answered has run once, and no task ever ran
  twice;
- what the pool counts is what has happened.

Everything is drawn from the seed but the moments at which the operating system runs whom.
"""

import gc
import multiprocessing
import os
import random
import signal
import threading
from collections import Counter
from concurrent.futures import CancelledError, as_completed, wait
from pathlib import Path

import deeds
from harasser import Harasser
from oxgang import TaskOptions
from oxgang.concurrent.futures import ProcessPoolExecutor
from oxgang.errors import BrokenProcessPool, PayloadError, TaskTimeout, WorkerCrashed

# how often a task is of a kind, in ten thousand
KINDS = {
    "same": 8000,
    "compute": 500,
    "nap": 900,
    "fail": 300,
    "bad result": 60,
    "bad argument": 60,
    "bad error": 60,
    "refusing": 60,
    "exits": 20,
    "die": 20,
    "leave": 15,
    "nested": 5,
    "overrun": 5,
}
METHODS = {"template": 90, "fork": 7, "spawn": 1, "forkserver": 2}
ENDINGS = {"wait": 60, "cancel": 15, "kill": 5, "terminate": 5, "interrupt": 10, "drop": 5}
SIZES = {0: 30, 10: 30, 1000: 30, 50_000: 3, 70_000: 3, 500_000: 1}


LIMITS = TaskOptions(timeout=0.05, timeout_grace=0.05)


def choose(dice, weights):
    return dice.choices(list(weights), list(weights.values()))[0]


class Task:
    """One that was handed in: what it is to come to."""

    __slots__ = ("cancelled", "expected", "future", "kind", "number", "told")

    def __init__(self, kind, number, expected):
        self.kind, self.number, self.expected = kind, number, expected
        self.cancelled = False  # by a cancel() that was successful
        self.told = None  # how many times its callback was called, if it has one


class Wrong(AssertionError):
    """The accounts do not add up; says with which seed, and of which task."""


class Storm:
    """`Storm(seed, folder).run(tasks)`; the folder is for the files of counts."""

    def __init__(self, seed, folder):
        self.seed = seed
        self.folder = Path(folder)
        self.outcomes = Counter()
        self.pools = Counter()
        self.tasks = 0
        self.started = 0
        self._dice = random.Random(seed)
        self.harasser = Harasser(random.Random(seed + 1))

    def run(self, tasks=None, until=None):
        """So many tasks, or for as long as `until()` is false."""
        try:
            while self.tasks < tasks if tasks is not None else not until():
                most = 5000 if tasks is None else min(5000, tasks - self.tasks)
                self._pool(max(1, min(most, int(self._dice.expovariate(1 / 2000)))))
        finally:
            self.harasser.end()

    # -- one pool's life -----------------------------------------------------------------

    def _pool(self, size):
        dice = self._dice
        method, ending = choose(dice, METHODS), choose(dice, ENDINGS)
        self.pools[f"by {method}"] += 1
        self.pools[f"ended by {ending}"] += 1
        options = {}
        if dice.random() < 0.2:
            options = {"initializer": deeds.set_up, "initargs": (dice.random() * 5,)}
        if method != "template":
            options["mp_context"] = multiprocessing.get_context(method)
        if method != "fork" and dice.random() < 0.1:
            options["max_tasks_per_child"] = dice.choice([10, 100, 1000])
        path = self.folder / f"counts-{sum(self.pools.values())}"
        path.write_bytes(bytes(size))
        threads = dice.choices([1, 2, 3], [70, 20, 10])[0]
        pool = ProcessPoolExecutor(dice.randint(1, 5), **options)
        self.harasser.aim(pool, with_template=method == "template")
        shares = [range(size)[one::threads] for one in range(threads)]
        seeds = [dice.randrange(2**60) for _ in shares]
        handed_in = [[] for _ in shares]
        submitters = [
            threading.Thread(target=self._submit, args=(random.Random(one), pool, path, *work))
            for one, *work in zip(seeds, shares, handed_in, strict=True)
        ]
        for one in submitters[1:]:
            one.start()
        submitters[0].run()
        for one in submitters[1:]:
            one.join()
        tasks = [task for some in handed_in for task in some]
        if len(tasks) != size:
            raise Wrong(f"seed {self.seed}: {len(tasks)} of {size} tasks could be handed in")
        futures = [task.future for task in tasks]
        driver = pool._driver
        counts = self._end(pool, ending, futures)
        del pool
        gc.collect()  # some futures are parts of cycles, and futures hold their pool
        wait(futures)
        if driver is not None:
            driver.join()  # callbacks come after those who wait
        self.harasser.aim(None)
        runs = path.read_bytes()
        path.unlink()
        came_to = Counter()
        for task in tasks:
            came_to[self._judge(task, ending, runs[task.number])] += 1
        self._check_counts(counts, came_to, tasks)
        self.outcomes += came_to
        self.tasks += size

    def _submit(self, dice, pool, path, share, handed_in):
        for number in share:
            kind = choose(dice, KINDS)
            function, argument, expected = call_of(dice, kind)
            task = Task(kind, number, expected)
            call = function, str(path), number, argument
            limited = kind == "overrun"
            task.future = pool.submit_with(LIMITS, *call) if limited else pool.submit(*call)
            handed_in.append(task)
            if dice.random() < 0.1:
                self._watch(task)
            if dice.random() < 0.02:
                one = dice.choice(handed_in)
                one.cancelled = one.future.cancel() or one.cancelled
            if dice.random() < 0.01:
                dice.choice(handed_in).future.done()
            if dice.random() < 0.003:
                dice.choice(handed_in).future.running()
            if dice.random() < 0.002:
                wait([task.future], timeout=dice.random() * 0.01)
            if dice.random() < 0.002:
                some = [one.future for one in handed_in[-10:]]
                next(as_completed(some))
            if dice.random() < 0.002:
                one = dice.choice(handed_in)
                if not one.future.cancelled():
                    one.future.exception()
        del pool  # this frame lives on, in the tracebacks of what could not be pickled

    def _watch(self, task):
        task.told = 0

        def told(_):
            task.told += 1

        task.future.add_done_callback(told)

    def _end(self, pool, ending, futures):
        """Ends the pool; gives its counts, where nothing can come after them."""
        if ending == "wait":
            if self._dice.random() < 0.5:
                for future in futures:
                    future.cancelled() or future.exception()
            pool.shutdown()
        elif ending == "cancel":
            pool.shutdown(cancel_futures=True)
        elif ending == "kill":
            pool.kill_workers()
            pool.shutdown()
        elif ending == "terminate":
            pool.terminate_workers()
            pool.shutdown()
        elif ending == "interrupt":
            try:
                with pool:
                    raise KeyboardInterrupt
            except KeyboardInterrupt:
                pass
        else:  # to be dropped: it works off what it has, and ends
            self.harasser.aim(None)
            return None
        self.started += pool.statistics()["started"]
        return pool.statistics()

    # -- the accounts ------------------------------------------------------------------------

    def _judge(self, task, ending, runs):
        """What the task came to, if that is right."""
        came_to = self._came_to(task, ending)
        least, most = RUNS[came_to]
        if task.kind == "bad argument":
            least = most = 0
        if came_to == "wrong" or not least <= runs <= most:
            raise Wrong(
                f"seed {self.seed}: task {task.number} ({task.kind}), in a pool ended by {ending}, "
                f"came to {came_to}, and was begun {runs} times: {task.future}, "
                f"{task.future.cancelled() or task.future.exception()!r}"
            )
        if task.told not in (None, 1):
            raise Wrong(f"seed {self.seed}: {task.future} was told of {task.told} times")
        return came_to

    def _came_to(self, task, ending):  # noqa: PLR0911
        try:
            error = task.future.exception(timeout=0)
        except CancelledError:
            return "cancelled" if task.cancelled or ending == "cancel" else "wrong"
        if task.cancelled:
            return "wrong"
        if isinstance(error, WorkerCrashed):
            return self._crashed(task, ending, error)
        if type(error) is BrokenProcessPool:
            return "ended" if ending in ("kill", "terminate", "interrupt") else "wrong"
        if task.kind in ("same", "compute", "nap", "nested") and error is None:
            # asked twice: it is the same
            right = task.future.result() == task.expected == task.future.result()
            return "result" if right else "wrong"
        failed = {
            "overrun": lambda: isinstance(error, TaskTimeout),
            "fail": lambda: type(error) is LookupError and error.args == (task.expected,),
            "exits": lambda: type(error) is SystemExit and error.code == task.expected,
            "bad result": lambda: type(error) is TypeError,
            "bad argument": lambda: type(error) is TypeError,
            "bad error": lambda: isinstance(error, PayloadError),
            "refusing": lambda: isinstance(error, PayloadError),
        }.get(task.kind)
        if failed is None or not failed():
            return "wrong"
        return "overrun" if task.kind == "overrun" else "failure"

    def _crashed(self, task, ending, error):
        if error.task_id is None or not error.function:
            return "wrong"
        if error.exitcode is None:  # who could have told was killed as well
            return "lost" if self.harasser.templates_killed else "wrong"
        sent = (error.pid, -error.exitcode) in self.harasser.sent
        if ending == "terminate" and error.exitcode == -signal.SIGTERM:
            sent = True
        if sent:  # perhaps before a task came to kill itself
            return "lost"
        own = task.kind in ("die", "leave") and error.exitcode == task.expected
        return "died" if own else "wrong"

    def _check_counts(self, counts, came_to, tasks):
        if counts is None:
            return
        never_sent = sum(task.kind == "bad argument" for task in tasks)
        expected = {
            "submitted": len(tasks) - never_sent,
            "answered": came_to["result"] + came_to["failure"] - never_sent,
            "lost": came_to["lost"] + came_to["died"],
        }
        got = {name: counts[name] for name in expected}
        if came_to["overrun"]:
            # one that is asked to stop answers; one that is ended is neither answered nor lost
            expected["answered or stopped"] = expected.pop("answered") + came_to["overrun"]
            got["answered or stopped"] = got.pop("answered") + counts["stopped"]
        if got != expected:
            raise Wrong(f"seed {self.seed}: the pool counts {got}, it was {expected}")

    def __str__(self):
        lines = [f"seed {self.seed}: {self.tasks} tasks in {sum(self.pools.values()) // 2} pools"]
        for name, counts in (
            ("tasks", self.outcomes),
            ("pools", self.pools),
            ("signals", self.harasser.counts),
        ):
            some = ", ".join(f"{key} {count}" for key, count in counts.most_common())
            lines.append(f"  {name}: {some}")
        lines.append(
            f"  workers started: {self.started}, templates killed: {self.harasser.templates_killed}"
        )
        return "\n".join(lines)


# how often a task was begun that came to this: at least, at most
RUNS = {
    "result": (1, 1),
    "failure": (1, 1),
    "died": (1, 1),
    "overrun": (0, 1),  # it may have been ended before it came to count
    "lost": (0, 1),  # the worker may have died between taking it up and counting
    "cancelled": (0, 0),
    "ended": (0, 1),
    "wrong": (0, 255),
}


def call_of(dice, kind):
    """``(function, argument, what it must come to)`` of a task of this kind."""
    return CALLS[kind](dice)


def _same(dice):
    data = dice.randbytes(choose(dice, SIZES))
    return deeds.same, data, data


def _compute(dice):
    rounds = dice.randrange(3000)
    return deeds.compute, rounds, sum(i * i for i in range(rounds))


def _nap(dice):
    seconds = dice.random() * 0.002
    return deeds.nap, seconds, seconds


def _die(dice):
    number = int(dice.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGBUS, signal.SIGSEGV]))
    return deeds.die, number, -number


def _leave(dice):
    code = dice.randrange(1, 200)
    return deeds.leave, code, code


def _overrun(dice):
    return deeds.overrun, dice.random() < 0.5, None


def _bad_argument(_dice):
    return deeds.same, threading.Lock(), None


def _plain(function):
    def call(dice):
        value = dice.randrange(10**9)
        return function, value, value

    return call


CALLS = {
    "same": _same,
    "compute": _compute,
    "nap": _nap,
    "die": _die,
    "leave": _leave,
    "bad argument": _bad_argument,
    "fail": _plain(deeds.fail),
    "exits": _plain(deeds.exits),
    "bad result": _plain(deeds.bad_result),
    "bad error": _plain(deeds.bad_error),
    "refusing": _plain(deeds.refusing),
    "nested": _plain(deeds.nested),
    "overrun": _overrun,
}


def leftovers():
    """Child processes that live, but for the helpers that stay."""
    helpers = (b"oxgang-template", b"multiprocessing")
    own, left = str(os.getpid()), []
    for path in Path("/proc").iterdir():
        try:
            stat = (path / "stat").read_text() if path.name.isdecimal() else ""
            command = (path / "cmdline").read_bytes() if stat else b""
        except (FileNotFoundError, ProcessLookupError):
            continue
        fields = stat.rpartition(")")[2].split()
        if fields and fields[1] == own and not any(one in command for one in helpers):
            left.append(f"{path.name} ({fields[0]}) {command!r}")
    return left
