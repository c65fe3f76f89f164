"""A worker that dies: the program is told, and can go on."""

import concurrent.futures
import os
import signal
from concurrent.futures.process import BrokenProcessPool


def die(how):
    if how == "exit":
        os._exit(3)
    os.kill(os.getpid(), signal.SIGKILL)


def main():
    for how in ("exit", "kill"):
        with concurrent.futures.ProcessPoolExecutor(1) as pool:
            try:
                pool.submit(die, how).result()
            except BrokenProcessPool as error:
                print(how, isinstance(error, concurrent.futures.BrokenExecutor))
        with concurrent.futures.ProcessPoolExecutor(1) as pool:
            print(pool.submit(pow, 2, 8).result())


if __name__ == "__main__":
    main()
