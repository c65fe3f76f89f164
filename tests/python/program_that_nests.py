"""A program whose pool's worker has a pool, whose worker has a pool, …: see test_nested.py.

    python program_that_nests.py FOLDER START_METHOD DEPTH

Each level writes its process number to the file "level-N", the deepest is 0; that one waits for
the mark "go".
"""

import os
import sys
import time
from pathlib import Path

from oxgang.concurrent.futures import ProcessPoolExecutor
from oxgang.concurrent.futures.process import WorkerCrashed


def descend(folder, method, depth):
    """Process numbers from this level down; the exit code in place of a level that is lost."""
    draft = folder / f"draft-{depth}"
    draft.write_text(str(os.getpid()))
    draft.rename(folder / f"level-{depth}")
    if depth == 0:
        while not (folder / "go").exists():
            time.sleep(0.005)
        return [os.getpid()]
    context = None
    if method != "template":
        import multiprocessing

        context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            below = pool.submit(descend, folder, method, depth - 1).result()
        except WorkerCrashed as crash:
            below = [crash.exitcode]
        return [os.getpid(), *below]


if __name__ == "__main__":
    print(*descend(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])), flush=True)
