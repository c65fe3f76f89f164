"""Every queue of `queue`, every method."""

import queue
import threading

for make in (queue.Queue, queue.LifoQueue, queue.PriorityQueue):
    one = make(maxsize=3)
    for item in (2, 3, 1):
        one.put(item)
    print(make.__name__, one.full(), one.qsize(), one.empty(), one.maxsize)
    try:
        one.put_nowait(4)
    except queue.Full as error:
        print("Full", error.args)
    try:
        one.put(4, timeout=0.01)
    except queue.Full:
        print("Full after a while")
    print([one.get(), one.get(block=False), one.get_nowait()])
    try:
        one.get(timeout=0.01)
    except queue.Empty:
        print("Empty after a while")
    for _ in range(3):
        one.task_done()
    one.join()
    try:
        one.task_done()
    except ValueError as error:
        print("ValueError:", error)

simple = queue.SimpleQueue()
simple.put("a")
simple.put_nowait("b")
print(simple.qsize(), simple.get(), simple.get_nowait(), simple.empty())
try:
    simple.get_nowait()
except queue.Empty:
    print("Empty")


class Unique(queue.Queue):
    """Forgets what it has already."""

    def _init(self, maxsize):
        self.queue = []

    def _qsize(self):
        return len(self.queue)

    def _put(self, item):
        if item not in self.queue:
            self.queue.append(item)

    def _get(self):
        return self.queue.pop(0)


unique = Unique()
for item in "mississippi":
    unique.put(item)
print([unique.get() for _ in range(unique.qsize())])

with unique.mutex:
    print("under its mutex", unique.unfinished_tasks)

results = queue.Queue()


def work(source):
    while (item := source.get()) is not None:
        results.put(item * item)
        source.task_done()
    source.task_done()


source = queue.Queue(4)
threads = [threading.Thread(target=work, args=(source,)) for _ in range(3)]
for thread in threads:
    thread.start()
for number in range(20):
    source.put(number)
source.join()
for _ in threads:
    source.put(None)
for thread in threads:
    thread.join()
print(sorted(results.get() for _ in range(20)))
