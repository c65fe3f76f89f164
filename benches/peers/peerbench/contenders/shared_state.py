"""Locks, shared values and manager dicts of anything like multiprocessing."""

import importlib

PROCESS, THREAD = "process lock", "thread lock"


class ProcessState:
    def __init__(self, _, module):
        self.module = module

    def open(self):
        self.context = importlib.import_module(self.module).get_context("fork")
        self.Process = self.context.Process
        self.Lock, self.RLock = self.context.Lock, self.context.RLock
        self.Value, self.Manager = self.context.Value, self.context.Manager


class ThreadState:
    def __init__(self, _, module):
        self.module = module

    def open(self):
        module = importlib.import_module(self.module)
        self.Lock, self.RLock, self.Process = module.Lock, module.RLock, module.Thread
        self.Value = self.Manager = None


def entries(Contender):
    for owner, module in (
        ("stdlib", "multiprocessing"),
        ("multiprocess", "multiprocess"),
        ("billiard", "billiard"),
        ("oxgang", "oxgang.multiprocessing"),
    ):
        yield Contender(
            f"{owner}-state",
            PROCESS,
            module.split(".")[0],
            lambda n, module=module: ProcessState(n, module),
            "stdlib-state" if owner == "oxgang" else None,
        )
    for owner, module in (("stdlib", "threading"), ("oxgang", "oxgang.threading")):
        yield Contender(
            f"{owner}-thread-state",
            THREAD,
            module,
            lambda n, module=module: ThreadState(n, module),
            "stdlib-thread-state" if owner == "oxgang" else None,
        )
