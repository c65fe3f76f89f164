"""Threads that count together under each kind of lock."""

import threading

total = 0


def add(lock, times):
    global total
    for _ in range(times):
        with lock:
            total += 1


for name in ("Lock", "RLock", "Condition", "Semaphore"):
    total = 0
    lock = getattr(threading, name)()
    threads = [threading.Thread(target=add, args=(lock,), kwargs={"times": 500}) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(name, total)

lock = threading.Lock()
print(lock.acquire(), lock.locked(), lock.acquire(blocking=False), lock.acquire(timeout=0.01))
lock.release()
try:
    lock.release()
except RuntimeError as error:
    print("RuntimeError:", error)
again = threading.RLock()
print(again.acquire(), again.acquire())
again.release()
again.release()
try:
    again.release()
except RuntimeError as error:
    print("RuntimeError:", error)
