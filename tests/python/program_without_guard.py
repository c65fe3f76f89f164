"""A program that starts processes wherever it likes: see test_process.py.

python program_without_guard.py START_METHOD ["by name"]
"""

import sys
import threading

from oxgang import multiprocessing

LOCK = threading.Lock()  # cannot be sent, so what uses it is found by running this script


def square(number):
    return number * number


def three():
    sys.exit(3)


def found_by_name():
    with LOCK:
        sys.exit(0)


multiprocessing.set_start_method(sys.argv[1])
by_name = len(sys.argv) > 2
process = multiprocessing.Process(target=found_by_name if by_name else three)
process.start()
process.join()
if by_name:
    print("exit code", process.exitcode, flush=True)
else:
    with multiprocessing.Pool(2) as pool:
        print(pool.map(square, range(3)), process.exitcode, "by value", flush=True)
