"""A program with a busy pool, that ends in the way it is told: see test_clean_ends.py.

    python program_that_ends.py FOLDER START_METHOD ENDING

In the folder, a task leaves its worker's process number when it begins ("begun-…") and a mark
when it is done ("done-…"). Tasks wait for the mark "go".
"""

import os
import sys
import threading
import time
import warnings
from pathlib import Path

from oxgang.concurrent.futures import ProcessPoolExecutor

ENDINGS = {}
TASKS = 4  # two run, two are queued


def wait_for(path):
    while not path.exists():
        time.sleep(0.005)


def task(folder, number):
    (folder / f"begun-{os.getpid()}").touch()
    wait_for(folder / "go")
    (folder / f"done-{number}").touch()


def busy_pool(folder, method):
    context = None
    if method != "template":
        import multiprocessing

        context = multiprocessing.get_context(method)
    pool = ProcessPoolExecutor(2, mp_context=context)
    for number in range(TASKS):
        pool.submit(task, folder, number)
    while len(list(folder.glob("begun-*"))) < 2:
        time.sleep(0.005)
    return pool


def ready():
    print("ready", flush=True)


def ending(function):
    ENDINGS[function.__name__] = function
    return function


@ending
def returns(folder, method):
    globals()["pool"] = busy_pool(folder, method)
    ready()


@ending
def closes(folder, method):
    with busy_pool(folder, method):
        ready()


@ending
def raises(folder, method):
    globals()["pool"] = busy_pool(folder, method)
    ready()
    raise LookupError("the program's own")


@ending
def raises_within(folder, method):
    with busy_pool(folder, method):
        ready()
        raise LookupError("the program's own")


@ending
def exits(folder, method):
    globals()["pool"] = busy_pool(folder, method)
    ready()
    sys.exit(3)


@ending
def exits_within(folder, method):
    with busy_pool(folder, method):
        ready()
        sys.exit(3)


@ending
def os_exit(folder, method):
    with busy_pool(folder, method):
        ready()
        os._exit(5)


@ending
def sleeps(folder, method):
    globals()["pool"] = busy_pool(folder, method)
    ready()
    time.sleep(600)


@ending
def sleeps_within(folder, method):
    with busy_pool(folder, method):
        ready()
        time.sleep(600)


@ending
def waits_for_result(folder, method):
    with busy_pool(folder, method) as pool:
        future = pool.submit(task, folder, TASKS)
        ready()
        future.result()


@ending
def waits_at_exit(folder, method):
    globals()["pool"] = busy_pool(folder, method)
    # called just before the pool's own
    threading._register_atexit(ready)


@ending
def in_thread(folder, method):
    def work():
        with busy_pool(folder, method):
            begun.set()

    begun = threading.Event()
    threading.Thread(target=work).start()
    begun.wait()  # a pool that begins after the program's end is refused
    ready()


@ending
def in_daemon_thread(folder, method):
    def work():
        with busy_pool(folder, method) as pool:
            future = pool.submit(task, folder, TASKS)
            begun.set()
            future.result()

    begun = threading.Event()
    threading.Thread(target=work, daemon=True).start()
    begun.wait()
    ready()


@ending
def forks(folder, method):
    """A fork of the program lives on, idle, after the program."""
    globals()["pool"] = pool = busy_pool(folder, method)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        forked = os.fork()
    if forked == 0:
        pool.shutdown()  # not its own: nothing to wait for
        (folder / f"forked-{os.getpid()}").touch()
        wait_for(folder / "end")
        os._exit(0)
    wait_for(folder / f"forked-{forked}")
    ready()
    time.sleep(600)


@ending
def fork_ends(folder, method):
    """A fork of the program ends as any Python program does; the program's pool goes on."""
    with busy_pool(folder, method):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # from Python 3.12 on: the program has threads
            forked = os.fork()
        if forked == 0:
            with ProcessPoolExecutor(1) as pool:
                sys.exit(pool.submit(abs, -7).result())
        _, status = os.waitpid(forked, 0)
        assert os.waitstatus_to_exitcode(status) == 7, status
        (folder / "fork ended").touch()
        ready()


if __name__ == "__main__":
    ENDINGS[sys.argv[3]](Path(sys.argv[1]), sys.argv[2])
