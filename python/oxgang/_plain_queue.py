"""A queue by Python's hand: what `oxgang.queue` does with queues whose insides Python code sees.

Each function is a method of `Queue` with `mutex` held, and calls `_qsize`, `_put` and `_get`, which
classes may have of their own.
"""

import threading
from collections import deque
from queue import Empty, Full
from time import monotonic as now

from oxgang._shut_down import ShutDown
from oxgang._thread_primitives import Condition

NOTHING = object()  # stands for no item


def open_up(queue):
    """Makes a queue plain, unless it is."""
    mutex = threading.Lock()
    conditions = [Condition(mutex) for _ in range(3)]
    items = deque() if queue._kind == 0 else []
    with mutex:  # nobody sees the queue between here and there
        items.extend(queue._give_over(mutex, *conditions, items) or ())


def put(queue, item, block, timeout):
    """`Queue.put`."""
    with queue.mutex:
        full = queue.maxsize > 0 and _persists(
            lambda: queue._qsize() >= queue.maxsize, queue, queue.not_full, block, timeout
        )
        if queue.is_shutdown:
            raise ShutDown
        if full:
            raise Full
        queue._put(item)
        queue.unfinished_tasks += 1
        queue.not_empty.notify()


def get(queue, block, timeout):
    """`Queue.get`."""
    with queue.mutex:
        if _persists(lambda: not queue._qsize(), queue, queue.not_empty, block, timeout):
            raise ShutDown if queue.is_shutdown else Empty
        item = queue._get()
        queue.not_full.notify()
        return item


def _persists(obstacle, queue, condition, block, timeout):
    """Waits for the end of an obstacle; whether it is still there."""
    end = None
    if block and timeout is not None:
        if timeout < 0:
            raise ValueError("'timeout' must be a non-negative number")
        end = now() + timeout
    while obstacle():
        left = None if end is None else end - now()
        if not block or queue.is_shutdown or (left is not None and left <= 0):
            return True
        condition.wait(left)
    return False


def task_done(queue):
    """`Queue.task_done`."""
    with queue.mutex:
        unfinished = queue.unfinished_tasks - 1
        if unfinished < 0:
            raise ValueError("task_done() called too many times")
        queue.unfinished_tasks = unfinished
        if unfinished == 0:
            queue.all_tasks_done.notify_all()


def join(queue):
    """`Queue.join`."""
    with queue.mutex:
        while queue.unfinished_tasks:
            queue.all_tasks_done.wait()


def qsize(queue):
    """`Queue.qsize`."""
    with queue.mutex:
        return queue._qsize()


def empty(queue):
    """`Queue.empty`."""
    return not qsize(queue)


def full(queue):
    """`Queue.full`."""
    return 0 < queue.maxsize <= qsize(queue)


def shutdown(queue, immediate):
    """`Queue.shutdown`."""
    with queue.mutex:
        queue.is_shutdown = True
        if immediate:
            while queue._qsize():
                queue._get()
                if queue.unfinished_tasks > 0:
                    queue.unfinished_tasks -= 1
            queue.all_tasks_done.notify_all()
        queue.not_empty.notify_all()
        queue.not_full.notify_all()
