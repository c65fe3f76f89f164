"""Process(target=f).start() and join(): one process (or thread) at a time."""

import importlib

PROCESS, THREAD = "process launch", "thread launch"


class Launcher:
    def __init__(self, _, module, start_method):
        self.module, self.start_method = module, start_method

    def load(self):
        module = importlib.import_module(self.module)
        if self.start_method == "thread":
            self.Process = module.Thread
        else:
            self.Process = module.get_context(self.start_method).Process


def entries(Contender, start_methods):
    def one(name, kind, requires, module, method, counterpart=None):
        return Contender(name, kind, requires, lambda n: Launcher(n, module, method), counterpart)

    for method in start_methods:
        for owner, module in (
            ("stdlib", "multiprocessing"),
            ("multiprocess", "multiprocess"),
            ("billiard", "billiard"),
            ("oxgang", "oxgang.multiprocessing"),
        ):
            yield one(
                f"{owner}-process-{method}",
                PROCESS,
                module.split(".")[0],
                module,
                method,
                f"stdlib-process-{method}" if owner == "oxgang" else None,
            )
    yield one("loky-process", PROCESS, "loky", "loky.backend.context", "loky")
    yield one("stdlib-thread", THREAD, "threading", "threading", "thread")
    yield one(
        "oxgang-thread", THREAD, "oxgang.threading", "oxgang.threading", "thread", "stdlib-thread"
    )
