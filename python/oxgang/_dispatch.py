"""`python -m oxgang._dispatch KIND CALLS`: what an empty call costs here and now, in seconds, by a
pool of ours and by one of the standard library; for `oxgang run --report`."""

import json
import sys
import time

_ROUNDS = 3


def nothing(_number):
    """The call."""


def _cost(pool, calls):
    list(pool.map(nothing, range(2)))  # the workers are up
    best = float("inf")
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        futures = [pool.submit(nothing, number) for number in range(calls)]
        for future in futures:
            future.result()
        best = min(best, (time.perf_counter() - began) / calls)
    return best


def main(kind, calls):
    """Prints both figures."""
    import concurrent.futures

    import oxgang.concurrent.futures

    name = {"process": "ProcessPoolExecutor", "thread": "ThreadPoolExecutor"}[kind]
    costs = []
    for package in (oxgang.concurrent.futures, concurrent.futures):
        with getattr(package, name)(2) as pool:
            costs.append(_cost(pool, calls))
    print(json.dumps(costs))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
