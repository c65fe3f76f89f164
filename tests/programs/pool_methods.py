"""multiprocessing.Pool: every method."""

import multiprocessing
import os
import time

state = []


def begin(*values):
    state.extend(values)


def square(n):
    return n * n


def power(base, exponent):
    return base**exponent


def held(_):
    return tuple(state)


def fail(n):
    raise ValueError(f"not {n}")


def main():
    told, failures = [], []
    with multiprocessing.Pool(2, initializer=begin, initargs=("a", 1)) as pool:
        print(pool.apply(power, (2, 5)), pool.apply(power, (2,), {"exponent": 3}))
        result = pool.apply_async(square, (9,), callback=told.append)
        print(result.get(timeout=30), result.ready(), result.successful())
        failed = pool.apply_async(fail, ("this",), error_callback=failures.append)
        failed.wait(30)
        print(failed.ready(), failed.successful())
        try:
            failed.get()
        except ValueError as error:
            print("ValueError:", error)
        print(pool.map(square, range(6)), pool.map(square, range(6), chunksize=2))
        print(pool.map_async(square, [1, 2], callback=told.append).get())
        print(list(pool.imap(square, range(5))), list(pool.imap(square, range(5), chunksize=3)))
        print(sorted(pool.imap_unordered(square, range(5))))
        print(pool.starmap(power, [(2, 3), (3, 2)]), pool.starmap_async(power, [(5, 2)]).get())
        print(set(pool.map(held, range(4))))
        slow = pool.apply_async(time.sleep, (0.3,))
        try:
            slow.get(timeout=0.01)
        except multiprocessing.TimeoutError:
            print("TimeoutError")
        try:
            slow.successful()
        except ValueError:
            print("not ready")
        iterator = pool.imap(square, [3])
        print(iterator.next(timeout=30), next(iterator, "end"))
        try:
            pool.map(fail, [1, 2])
        except ValueError as error:
            print("map:", error)
        slow.wait()
    print(told, [str(error) for error in failures])
    pool = multiprocessing.Pool(1, maxtasksperchild=1)
    print(len({pool.apply(os.getpid) for _ in range(3)}))
    pool.close()
    try:
        pool.apply(square, (1,))
    except ValueError as error:
        print("ValueError:", error)
    pool.join()
    pool = multiprocessing.Pool(2)
    pool.map_async(time.sleep, [60] * 4)
    pool.terminate()
    pool.join()
    print("terminated")


if __name__ == "__main__":
    main()
