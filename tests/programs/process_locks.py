"""Locks, semaphores, events, conditions, barriers between processes."""

import multiprocessing


def add(lock, total, times):
    for _ in range(times):
        with lock:
            total.value += 1


def wait_for(event, results):
    results.put(event.wait(30))


def meet(barrier, results):
    results.put(barrier.wait(30) in range(barrier.parties))


def follow(condition, ready, state):
    with condition:
        ready.release()
        condition.wait_for(lambda: state.value == 1, timeout=30)
        state.value = 2
        condition.notify_all()


def all_done(processes):
    for process in processes:
        process.start()
    for process in processes:
        process.join()


def main():
    for make in (multiprocessing.Lock, multiprocessing.RLock, multiprocessing.Semaphore):
        total = multiprocessing.RawValue("i", 0)
        lock = make()
        all_done([multiprocessing.Process(target=add, args=(lock, total, 200)) for _ in range(3)])
        print(make.__name__, total.value)
    lock = multiprocessing.Lock()
    print(lock.acquire(), lock.acquire(False), lock.acquire(timeout=0.01))
    lock.release()
    bounded = multiprocessing.BoundedSemaphore(1)
    try:
        bounded.release()
    except ValueError as error:
        print("ValueError:", error)
    event, results = multiprocessing.Event(), multiprocessing.SimpleQueue()
    process = multiprocessing.Process(target=wait_for, args=(event, results))
    process.start()
    print(event.is_set(), event.wait(0.01))
    event.set()
    print(results.get())
    process.join()
    event.clear()
    barrier = multiprocessing.Barrier(2)
    all_done([multiprocessing.Process(target=meet, args=(barrier, results)) for _ in range(2)])
    print(results.get(), results.get(), barrier.broken)
    condition, state = multiprocessing.Condition(), multiprocessing.RawValue("i", 0)
    ready = multiprocessing.Semaphore(0)
    process = multiprocessing.Process(target=follow, args=(condition, ready, state))
    process.start()
    ready.acquire()
    with condition:
        state.value = 1
        condition.notify()
        print(condition.wait_for(lambda: state.value == 2, timeout=30))
    process.join()


if __name__ == "__main__":
    main()
