"""Queues that are shut down, where Python has that (3.13)."""

import queue
import sys
import threading

if sys.version_info < (3, 13):
    print("not here")
    sys.exit()

one = queue.Queue()
one.put("left")
one.shutdown()
print(one.get())
for misuse in (one.get, lambda: one.put(1)):
    try:
        misuse()
    except queue.ShutDown:
        print("shut down")

two = queue.Queue()
two.put("lost")
ended = []


def wait():
    try:
        while True:
            two.get()
            two.task_done()
    except queue.ShutDown:
        ended.append(True)


threads = [threading.Thread(target=wait) for _ in range(2)]
for thread in threads:
    thread.start()
two.join()
two.shutdown(immediate=True)
for thread in threads:
    thread.join()
print(ended)
