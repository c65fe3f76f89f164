"""The inputs of the CPU-bound scenarios: the same on every machine."""

import heapq
import random

# up to the square root of these, trial division takes 1 to 5 ms on a core of 2020
SMALLEST_ROOT, LARGEST_ROOT = 65_000, 325_000
_BASES = (2, 3, 5, 7, 11, 13, 17)  # Miller-Rabin with these decides every n below 3.4e14


def primes(count):
    """Primes only: anything else would end its division early."""
    chance = random.Random(20_000)
    found = []
    while len(found) < count:
        n = chance.randint(SMALLEST_ROOT, LARGEST_ROOT) ** 2 | 1
        while not _surely_prime(n):
            n += 2
        found.append(n)
    return found


def _surely_prime(n):
    if any(n % base == 0 for base in _BASES):
        return n in _BASES
    odd, twos = n - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    return all(_passes(n, base, odd, twos) for base in _BASES)


def _passes(n, base, odd, twos):
    x = pow(base, odd, n)
    if x in (1, n - 1):
        return True
    return any((x := x * x % n) == n - 1 for _ in range(twos - 1))


def pareto_steps(count, total_steps):
    """Task sizes of a Pareto law (alpha 1.1), none above a twelfth of the whole."""
    chance = random.Random(7)
    raw = [chance.paretovariate(1.1) for _ in range(count)]
    cap = sum(raw) / 12
    raw = [min(size, cap) for size in raw]
    return [max(1, int(size * total_steps / sum(raw))) for size in raw]


def balanced(items, costs, shares):
    """Split into shares of nearly equal cost, largest first: what a perfect pool would do."""
    heap = [(0.0, share, []) for share in range(shares)]
    for cost, item in sorted(zip(costs, items, strict=True), reverse=True):
        load, share, taken = heapq.heappop(heap)
        taken.append(item)
        heapq.heappush(heap, (load + cost, share, taken))
    return [taken for _, _, taken in heap]
