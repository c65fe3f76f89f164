"""A scheduler: jobs with priorities, several threads, jobs that make jobs."""

import dataclasses
import itertools
import queue
import threading


@dataclasses.dataclass(order=True)
class Job:
    priority: int
    number: int
    name: str = dataclasses.field(compare=False)


numbers = itertools.count()
jobs, done = queue.PriorityQueue(), queue.Queue()
for priority, name in ((3, "sleep"), (1, "feed"), (2, "plough"), (1, "water")):
    jobs.put(Job(priority, next(numbers), name))


def work():
    while True:
        job = jobs.get()
        if job.name == "stop":
            jobs.task_done()
            return
        done.put(job.name)
        if job.name == "plough":
            jobs.put(Job(2, next(numbers), "sow"))
        jobs.task_done()


thread = threading.Thread(target=work)
thread.start()
jobs.join()
jobs.put(Job(9, next(numbers), "stop"))
thread.join()
print([done.get() for _ in range(done.qsize())])
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads:
    thread.start()
for number in range(30):
    jobs.put(Job(number % 3, next(numbers), f"job {number}"))
jobs.join()
for _ in threads:
    jobs.put(Job(9, next(numbers), "stop"))
for thread in threads:
    thread.join()
print(sorted(done.get() for _ in range(done.qsize()))[:3], jobs.empty())
stack = queue.LifoQueue()
for item in "abc":
    stack.put(item)
print("".join(stack.get() for _ in range(3)))
