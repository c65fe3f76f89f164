"""ProcessPoolExecutor in the ways that programs use it."""

import concurrent.futures
import math
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor, as_completed

NUMBERS = [112272535095293, 112582705942171, 115280095190773, 1099726899285419]
state = None


def is_prime(n):
    if n % 2 == 0:
        return n == 2
    return all(n % i for i in range(3, min(math.isqrt(n), 20000) + 1, 2))


def begin(value):
    global state
    state = value


def look():
    return state


def fail(n):
    raise KeyError(n)


class Point:
    def __init__(self, x):
        self.x = x

    def moved(self, by):
        return Point(self.x + by)


def main():
    with ProcessPoolExecutor(2) as pool:
        for number, prime in zip(NUMBERS, pool.map(is_prime, NUMBERS)):
            print(number, prime)
        print(sum(pool.map(is_prime, range(100), chunksize=20)))
        futures = {pool.submit(pow, n, 3): n for n in range(6)}
        print(sorted((futures[future], future.result()) for future in as_completed(futures)))
        error = pool.submit(fail, "key").exception()
        print(type(error).__name__, error.args, error.__cause__ is not None)
        print(pool.submit(Point(1).moved, by=2).result().x)
        print(pool.submit(os.getpid).result() != os.getpid())
        try:
            list(pool.map(fail, [1]))
        except KeyError as error:
            print("map:", error)
        done, rest = concurrent.futures.wait(futures, return_when="FIRST_EXCEPTION")
        print(len(done), len(rest))
    for method in multiprocessing.get_all_start_methods():
        context = multiprocessing.get_context(method)
        with ProcessPoolExecutor(
            1, mp_context=context, initializer=begin, initargs=(method,)
        ) as pool:
            print(pool.submit(look).result())
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=1) as pool:
        print(len({pool.submit(os.getpid).result() for _ in range(3)}))


if __name__ == "__main__":
    main()
