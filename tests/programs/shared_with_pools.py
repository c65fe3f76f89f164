"""Locks, queues, events and values handed to pools by their initializer or by a manager."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

lock = total = results = None


def begin(*shared):
    global lock, total, results
    lock, total, results = shared


def add(n):
    with lock:
        total.value += n
    results.put(n)


def put(queue, n):
    queue.put(n * n)


def main():
    shared = multiprocessing.Lock(), multiprocessing.RawValue("i"), multiprocessing.SimpleQueue()
    with multiprocessing.Pool(2, begin, shared) as pool:
        pool.map(add, range(10))
    print(shared[1].value, sorted(shared[2].get() for _ in range(10)))
    with ProcessPoolExecutor(2, multiprocessing.get_context("fork"), begin, shared) as pool:
        list(pool.map(add, range(5)))
    print(shared[1].value, sorted(shared[2].get() for _ in range(5)))
    with multiprocessing.Manager() as manager:
        queue = manager.Queue()
        with multiprocessing.Pool(2) as pool:
            pool.starmap(put, [(queue, n) for n in range(4)])
        print(sorted(queue.get() for _ in range(4)))


if __name__ == "__main__":
    main()
