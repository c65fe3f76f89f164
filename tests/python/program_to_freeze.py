"""A program that is frozen, or takes itself for frozen: see test_frozen.py.

    program_to_freeze METHOD [unprepared]

Prints what processes and pools of the start method gave.
"""

import os
import sys

if "FAKE_FROZEN" in os.environ:
    sys.frozen = True
    sys.executable = os.environ["FAKE_FROZEN"]

from oxgang import multiprocessing
from oxgang.concurrent.futures import ProcessPoolExecutor


def square(number):
    return number * number


def leave(code):
    sys.exit(code)


def main(method):
    context = multiprocessing.get_context(method)
    process = context.Process(target=leave, args=(3,))
    process.start()
    process.join()
    with context.Pool(2) as pool:
        squares = pool.map(square, range(3))
    pool.join()
    with ProcessPoolExecutor(1) as executor:
        more = executor.submit(lambda number: square(number) + 1, 3).result()
    print(process.exitcode, squares, more, flush=True)


if __name__ == "__main__":
    if "UNPREPARED" not in os.environ:
        multiprocessing.freeze_support()
    main(sys.argv[1] if len(sys.argv) == 2 else "template")
