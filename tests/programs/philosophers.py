"""Philosophers at a table; a lock for readers and writers; a turnstile."""

import contextlib
import threading


class ReadersWriter:
    def __init__(self):
        self.changed = threading.Condition(threading.RLock())
        self.readers = 0

    @contextlib.contextmanager
    def reading(self):
        with self.changed:
            self.readers += 1
        try:
            yield
        finally:
            with self.changed:
                self.readers -= 1
                self.changed.notify_all()

    @contextlib.contextmanager
    def writing(self):
        with self.changed:
            self.changed.wait_for(lambda: self.readers == 0)
            yield


forks = [threading.Lock() for _ in range(5)]
meals = [0] * 5


def dine(place):
    first, second = sorted((place, (place + 1) % 5))
    for _ in range(50):
        with forks[first], forks[second]:
            meals[place] += 1


def together(target, arguments):
    threads = [threading.Thread(target=target, args=one) for one in arguments]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


together(dine, [(n,) for n in range(5)])
print(meals)
lock, book, torn = ReadersWriter(), [0, 0], []


def write(_number):
    for _ in range(50):
        with lock.writing():
            book[0] += 1
            book[1] += 1


def read(_number):
    for _ in range(50):
        with lock.reading():
            if book[0] != book[1]:
                torn.append(list(book))


together(lambda kind, n: kind(n), [(write, 1), (read, 2), (write, 3), (read, 4)])
print(book, torn)
turn, order = threading.Semaphore(0), []


def pass_through(name):
    with turn:
        order.append(name)


threads = [threading.Thread(target=pass_through, args=(n,)) for n in range(4)]
for thread in threads:
    thread.start()
turn.release(2)
turn.release()
turn.release()
for thread in threads:
    thread.join()
print(sorted(order), turn.acquire(timeout=0.01), turn.acquire(blocking=False))
