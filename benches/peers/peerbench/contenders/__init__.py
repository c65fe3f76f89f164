"""The list of contenders.

Nothing here imports a contender's library: an adapter does that in load(), inside
a process of its own. A contender whose library is missing is skipped with a note.
"""

import importlib.util
from collections.abc import Callable
from typing import NamedTuple

from . import channels, launchers, shared_state

PROCESS, THREAD, SERIAL = "process", "thread", "serial"
START_METHODS = ("fork", "spawn", "forkserver")


class Contender(NamedTuple):
    name: str
    kind: str
    requires: str  # the module that must be importable
    make: Callable  # make(workers) -> an adapter
    counterpart: str | None = None  # the stdlib contender it replaces one for one
    every: bool = True  # False: only in start-up and fault workloads

    def missing(self):
        """Why it cannot run here, or None."""
        try:
            found = importlib.util.find_spec(self.requires)
        except ModuleNotFoundError:  # its parent package is not there
            found = None
        return None if found else f"{self.requires} is not installed"


def _lazy(module, cls, **options):
    def make(workers):
        adapters = importlib.import_module(f"{__name__}.{module}")
        return getattr(adapters, cls)(workers, **options)

    return make


def _stdlib_and_oxgang():
    for method in START_METHODS:
        yield Contender(
            f"stdlib-ppe-{method}",
            PROCESS,
            "concurrent.futures",
            _lazy("stdlib_like", "Processes", start_method=method),
        )
        yield Contender(
            f"stdlib-pool-{method}",
            PROCESS,
            "multiprocessing",
            _lazy("stdlib_like", "PoolOfProcesses", start_method=method),
            every=method == "fork",
        )
        yield Contender(
            f"oxgang-ppe-{method}",
            PROCESS,
            "oxgang",
            _lazy("stdlib_like", "Processes", start_method=method, root="oxgang."),
            counterpart=f"stdlib-ppe-{method}",
        )
        yield Contender(
            f"oxgang-pool-{method}",
            PROCESS,
            "oxgang",
            _lazy(
                "stdlib_like",
                "PoolOfProcesses",
                start_method=method,
                multiprocessing="oxgang.multiprocessing",
            ),
            counterpart=f"stdlib-pool-{method}",
            every=method == "fork",
        )
    yield Contender("stdlib-tpe", THREAD, "concurrent.futures", _lazy("stdlib_like", "Threads"))
    yield Contender(
        "stdlib-threadpool", THREAD, "multiprocessing", _lazy("stdlib_like", "PoolOfThreads")
    )
    yield Contender(
        "oxgang-tpe",
        THREAD,
        "oxgang",
        _lazy("stdlib_like", "Threads", root="oxgang."),
        counterpart="stdlib-tpe",
    )
    yield Contender(
        "oxgang-threadpool",
        THREAD,
        "oxgang",
        _lazy("stdlib_like", "PoolOfThreads", multiprocessing="oxgang.multiprocessing"),
        counterpart="stdlib-threadpool",
    )


def _third_party():
    own = "third_party"
    yield Contender("loky", PROCESS, "loky", _lazy(own, "Loky"))
    yield Contender("joblib-loky", PROCESS, "joblib", _lazy(own, "Joblib", backend="loky"))
    for method in ("fork", "spawn"):
        default = method == "fork"
        yield Contender(
            f"mpire-{method}",
            PROCESS,
            "mpire",
            _lazy(own, "Mpire", start_method=method),
            every=default,
        )
        yield Contender(
            f"pebble-{method}",
            PROCESS,
            "pebble",
            _lazy(own, "Pebble", start_method=method),
            every=default,
        )
        yield Contender(
            f"multiprocess-{method}",
            PROCESS,
            "multiprocess",
            _lazy(own, "Multiprocess", start_method=method),
            every=default,
        )
        yield Contender(
            f"billiard-{method}",
            PROCESS,
            "billiard",
            _lazy(own, "Billiard", start_method=method),
            every=default,
        )
    yield Contender("aiomultiprocess", PROCESS, "aiomultiprocess", _lazy(own, "Aiomultiprocess"))
    yield Contender("ray", PROCESS, "ray", _lazy("clusters", "Ray"))
    yield Contender("dask", PROCESS, "distributed", _lazy("clusters", "Dask"))
    yield Contender("joblib-threading", THREAD, "joblib", _lazy(own, "Joblib", backend="threading"))
    yield Contender("pebble-threads", THREAD, "pebble", _lazy(own, "PebbleThreads"))


POOLS = [
    *_stdlib_and_oxgang(),
    *_third_party(),
    Contender("serial", SERIAL, "math", _lazy("serial", "Serial")),
]

QUEUES = list(channels.entries(Contender))
STATES = list(shared_state.entries(Contender))
LAUNCHERS = list(launchers.entries(Contender, START_METHODS))

# what each kind of contender is measured against
REFERENCE = {
    PROCESS: "stdlib-ppe-fork",
    THREAD: "stdlib-tpe",
    channels.PROCESS: "stdlib-queue",
    channels.THREAD: "stdlib-thread-queue",
    shared_state.PROCESS: "stdlib-state",
    shared_state.THREAD: "stdlib-thread-state",
    launchers.PROCESS: "stdlib-process-fork",
    launchers.THREAD: "stdlib-thread",
}


def find(name):
    for contender in POOLS:
        if contender.name == name:
            return contender
    raise KeyError(name)
