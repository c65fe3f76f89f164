"""From the raw records of one or more runs to medians and ratios."""

import math
import statistics
from collections import defaultdict
from typing import NamedTuple


class Figure(NamedTuple):
    median: float
    rounds: int
    ratio: float | None  # to the reference; above 1 is better than the reference
    low: float | None
    high: float | None


def values_of(runs, workload):
    """metric -> contender -> {(run, round): value}"""
    found = defaultdict(lambda: defaultdict(dict))
    for number, run in enumerate(runs):
        for record in run["records"]:
            if record["workload"] == workload:
                for metric, value in record["metrics"].items():
                    found[metric][record["contender"]][number, record["round"]] = value
    return found


def ratio(value, reference, bigger_is_better):
    """How many times better than the reference: 2 is twice as fast, or half the memory."""
    above, below = (value, reference) if bigger_is_better else (reference, value)
    return above / below if below > 0 else math.inf


def ratios(values, reference, bigger_is_better):
    """One ratio per round in which both were measured: never across rounds or runs."""
    return [
        ratio(values[key], reference[key], bigger_is_better) for key in values if key in reference
    ]


def best(values, bigger_is_better):
    return (max if bigger_is_better else min)(values.values())


def figure(values, reference, bigger_is_better):
    against = ratios(values, reference, bigger_is_better)
    return Figure(
        statistics.median(values.values()),
        len(values),
        statistics.median(against) if against else None,
        min(against, default=None),
        max(against, default=None),
    )


def foreign_load(runs, workload):
    """Median number of CPUs that others kept busy during this workload's cells."""
    loads = [r["foreign"] for run in runs for r in run["records"] if r["workload"] == workload]
    return statistics.median(loads) if loads else None
