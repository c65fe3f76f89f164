"""What a workload is: a name, what it measures, on whom, and the code."""

from collections.abc import Callable
from typing import NamedTuple

from peerbench import contenders as pools

# unit -> is a bigger number better
BIGGER_IS_BETTER = {"s": False, "MB": False, "%": False, "/s": True}


class Metric(NamedTuple):
    label: str
    unit: str

    @property
    def bigger_is_better(self):
        return BIGGER_IS_BETTER[self.unit]


class Workload(NamedTuple):
    name: str
    title: str
    metrics: dict[str, Metric]
    run: Callable  # run(contender, report, spec), inside a cell
    entries: Callable  # -> every contender this workload could take
    reference: str  # the contender that ratios refer to
    extra: tuple = ()  # contenders measured but not compared (serial)
    limit: float = 150  # seconds before a cell counts as hung
    rounds: int = 5
    watch: Callable | None = None  # runner-side observer, see runner.Cell
    cases: tuple = ()  # faults: one cell per case
    efficiency: tuple = ()  # metrics to be set against serial time

    def contender(self, name):
        for entry in self.entries():
            if entry.name == name:
                return entry
        raise KeyError(name)


def pools_of(kind, every=True):
    """Pool contenders of one kind; `every` leaves out mere start-method variants."""

    def entries():
        return [c for c in pools.POOLS if c.kind == kind and (c.every or not every)]

    return entries
