"""Pools in workers of pools, threads in workers, workers from threads."""

import concurrent.futures
import multiprocessing
import threading


def inner(n):
    return n + 1


def in_threads(n):
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        return sum(pool.map(inner, range(n)))


def in_processes(n):
    with concurrent.futures.ProcessPoolExecutor(1) as pool:
        return list(pool.map(inner, range(n)))


def by_pool(n):
    with multiprocessing.Pool(1) as pool:
        return pool.map(inner, range(n))


def main():
    with concurrent.futures.ProcessPoolExecutor(2) as pool:
        print(list(pool.map(in_threads, range(4))))
        print(list(pool.map(in_processes, range(3))))
        print(pool.submit(by_pool, 3).result())
    with multiprocessing.Pool(2) as pool:
        print(pool.map(in_threads, range(4)))
    results = {}

    def from_thread(name):
        with concurrent.futures.ProcessPoolExecutor(1) as pool:
            results[name] = pool.submit(pow, 2, name).result()

    threads = [threading.Thread(target=from_thread, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(sorted(results.items()))


if __name__ == "__main__":
    main()
