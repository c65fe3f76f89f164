"""Subclasses: of Executor, of Thread, of the pools, of queues, of events."""

import concurrent.futures
import multiprocessing
import multiprocessing.pool
import threading


class AtOnce(concurrent.futures.Executor):
    def submit(self, function, /, *args, **kwargs):
        future = concurrent.futures.Future()
        try:
            future.set_result(function(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


class Counting(concurrent.futures.ThreadPoolExecutor):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.submitted = 0

    def submit(self, function, /, *args, **kwargs):
        self.submitted += 1
        return super().submit(function, *args, **kwargs)


class Stoppable(threading.Thread):
    def __init__(self):
        super().__init__()
        self._stop_asked = threading.Event()
        self.turns = 0

    def stop(self):
        self._stop_asked.set()

    def run(self):
        while not self._stop_asked.wait(0.001):
            self.turns += 1


class Loud(threading.Timer):
    def run(self):
        super().run()
        print("the timer has run")


class Adding(multiprocessing.Process):
    def __init__(self, numbers, total):
        super().__init__()
        self.numbers = numbers
        self.total = total

    def run(self):
        for number in iter(self.numbers.get, None):
            with self.total:
                self.total.value += number


def half(n):
    return n / 2


def main():
    with AtOnce() as executor:
        print(list(executor.map(half, [2, 4])), executor.submit(half, "x").exception() is not None)
    with Counting(2) as executor:
        print(list(executor.map(half, range(3))), executor.submitted in (0, 3))
        executor.submit(half, 1).result()
    thread = Stoppable()
    thread.start()
    while not thread.turns:
        thread.join(0.01)
    thread.stop()
    thread.join()
    print(thread.turns > 0)
    timer = Loud(0.01, print, ["first"])
    timer.start()
    timer.join()
    numbers, total = multiprocessing.SimpleQueue(), multiprocessing.Value("i")
    processes = [Adding(numbers, total) for _ in range(2)]
    for process in processes:
        process.start()
    for number in [*range(10), None, None]:
        numbers.put(number)
    for process in processes:
        process.join()
    print(total.value)
    print(isinstance(multiprocessing.pool.ThreadPool(1), multiprocessing.pool.Pool))


if __name__ == "__main__":
    main()
