"""3: CPU-bound work, of even and of very uneven size."""

import math
import random

from peerbench import contenders as pools
from peerbench import procs, tasks
from peerbench.timing import timed

from .base import Metric, Workload

METRICS = {
    "primes": Metric("is_prime list, own chunking", "s"),
    "primes1": Metric("is_prime list, chunksize=1", "s"),
    "pareto": Metric("Pareto sizes, own chunking", "s"),
    "pareto1": Metric("Pareto sizes, chunksize=1", "s"),
    # does not depend on how many CPUs others leave: what the pool itself costs
    "cpu": Metric("CPU used for the is_prime list, all processes", "s"),
}

# trial division by 6k±1 up to the square root: 1 to 5 ms a number with CPython 3.11
# on a core that does 13 million rounds of that loop a second
SMALLEST_ROOT, LARGEST_ROOT = 65_000, 325_000


def _surely_prime(n):
    """Miller-Rabin with bases that decide every n below 3.4e14."""
    if any(n % p == 0 for p in (2, 3, 5, 7, 11, 13, 17)):
        return n in (2, 3, 5, 7, 11, 13, 17)
    odd, twos = n - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in (2, 3, 5, 7, 11, 13, 17):
        x = pow(base, odd, n)
        if x in (1, n - 1):
            continue
        for _ in range(twos - 1):
            x = x * x % n
            if x == n - 1:
                break
        else:
            return False
    return True


def primes(count):
    """Primes only: anything else would end its division early."""
    dice = random.Random(20_000)
    found = []
    for _ in range(count):
        n = dice.randint(SMALLEST_ROOT, LARGEST_ROOT) ** 2 | 1
        while not _surely_prime(n):
            n += 2
        found.append(n)
    return found


def pareto_steps(count, total_steps):
    """Sizes of a Pareto law (alpha 1.1), none above a tenth of the whole."""
    dice = random.Random(7)
    raw = [dice.paretovariate(1.1) for _ in range(count)]
    cap = 0.08 * sum(raw)
    raw = [min(x, cap) for x in raw]
    unit = total_steps / sum(raw)
    return [max(1, math.floor(x * unit)) for x in raw]


def run(contender, report, spec):
    count = 200 if spec["quick"] else 2_000
    numbers = primes(count)
    sizes = pareto_steps(300, 6_000_000 if spec["quick"] else 60_000_000)
    with contender.make(spec["workers"]).opened() as pool:
        report.event("ready")
        pool.map(tasks.is_prime, numbers[:20])
        pool.map(tasks.burn, [1000] * 20)
        for chunksize, suffix in ((None, ""), (1, "1")):
            if chunksize and not pool.has_chunks:
                continue
            report.stage("primes" + suffix)
            cpu = procs.tree_cpu()
            seconds, answers = timed(pool.map, tasks.is_prime, numbers, chunksize)
            cpu = procs.tree_cpu() - cpu
            assert list(answers) == [True] * count, "wrong results"
            report.metric("primes" + suffix, seconds)
            if not chunksize:
                report.metric("cpu", cpu)
            report.stage("pareto" + suffix)
            seconds, answers = timed(pool.map, tasks.burn, sizes, chunksize)
            assert len(list(answers)) == len(sizes), "results missing"
            report.metric("pareto" + suffix, seconds)


def entries():
    return [c for c in pools.POOLS if c.kind == pools.PROCESS and c.every] + [
        pools.find("stdlib-tpe"),
        pools.find("oxgang-tpe"),
        pools.find("serial"),
    ]


WORKLOADS = [
    Workload(
        "cpu",
        "CPU-bound: 2 000 primality tests of 1-5 ms, and 300 Pareto-sized tasks",
        METRICS,
        run,
        entries,
        pools.REFERENCE[pools.PROCESS],
        extra=("serial",),
        efficiency=("primes", "primes1", "pareto", "pareto1"),
    ),
]
