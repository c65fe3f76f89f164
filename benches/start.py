"""``python -m benches.start CONTENDER WORKERS FOLDER``: seconds until all workers of a new pool
answered.

The clock starts before the pool's module is imported: that time is the user's, too. Nothing has
been imported then that a fresh interpreter does not have.
"""

import sys
import time

from benches import meeting


def main():
    name, workers, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    began = time.perf_counter()
    if name.startswith("oxgang"):
        from oxgang.concurrent.futures import ProcessPoolExecutor

        options = {}
    else:
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor

        options = {"mp_context": multiprocessing.get_context("fork")}  # its fastest start
    with ProcessPoolExecutor(workers, **options) as pool:
        tasks = [pool.submit(meeting.meet, folder, workers) for _ in range(workers)]
        found = {task.result() for task in tasks}
        seconds = time.perf_counter() - began
    if len(found) != workers:
        raise AssertionError(f"{workers} workers were asked for, {len(found)} answered")
    print(seconds)


if __name__ == "__main__":
    main()
