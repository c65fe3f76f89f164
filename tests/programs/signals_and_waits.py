"""Signals in the middle of waits, in the main thread and across processes."""

import multiprocessing
import os
import queue
import signal
import threading
import time


def nap(ready):
    signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
    ready.set()
    while True:
        time.sleep(60)


def interrupted(wait):
    def ring(_number, _frame):
        raise TimeoutError("the alarm")

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        wait()
    except TimeoutError as error:
        return str(error)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return "waited to the end"


def main():
    print(interrupted(threading.Event().wait))
    print(interrupted(queue.Queue().get))
    print(interrupted(queue.SimpleQueue().get))
    taken = threading.Lock()
    taken.acquire()
    print(interrupted(taken.acquire))
    print(interrupted(lambda: taken.acquire(timeout=60)))
    there, _kept = multiprocessing.Pipe(duplex=False)
    print(interrupted(there.recv))
    print(interrupted(multiprocessing.Event().wait))
    print(interrupted(multiprocessing.Queue().get))
    print(interrupted(lambda: time.sleep(60)))
    seen = []
    signal.signal(signal.SIGUSR1, lambda number, _frame: seen.append(number))
    os.kill(os.getpid(), signal.SIGUSR1)
    event = threading.Event()
    event.wait(0.01)
    print(seen == [signal.SIGUSR1])
    try:
        signal.raise_signal(signal.SIGINT)
        event.wait(10)
    except KeyboardInterrupt:
        print("KeyboardInterrupt")
    ready = multiprocessing.Event()
    process = multiprocessing.Process(target=nap, args=(ready,))
    process.start()
    ready.wait()
    process.terminate()
    process.join()
    print(process.exitcode)


if __name__ == "__main__":
    main()
