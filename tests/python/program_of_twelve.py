"""The programs of test_twelve_behaviours.py: a pool that is idle, busy, or interrupted.

python program_of_twelve.py FOLDER START_METHOD STATE
"""

import os
import sys
import time
from pathlib import Path

from oxgang.concurrent.futures import ProcessPoolExecutor


def nap(folder, seconds):
    (folder / str(os.getpid())).touch()
    time.sleep(seconds)


def main(folder, method, state):
    context = None
    if method != "template":
        import multiprocessing

        context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        futures = [pool.submit(nap, folder, 0 if state == "idle" else 600) for _ in range(2)]
        if state == "idle":
            for future in futures:
                future.result()
        else:
            while len(list(folder.iterdir())) < 2:
                time.sleep(0.005)
        print("ready", flush=True)
        time.sleep(600)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
