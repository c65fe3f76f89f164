"""ThreadPoolExecutor: all of its arguments, all of a future's methods."""

import concurrent.futures
import threading
import time
from concurrent.futures import ThreadPoolExecutor

names, ready = set(), []
with ThreadPoolExecutor(3, "worker", ready.append, ("up",)) as pool:
    futures = [pool.submit(pow, n, 2) for n in range(5)]
    print([future.result() for future in futures])
    list(pool.map(lambda _: names.add(threading.current_thread().name), range(10)))
    print(all(name.startswith("worker") for name in names), set(ready))
    print(list(pool.map(max, [1, 5, 2], [4, 3, 2])))
    failed = pool.submit(int, "x")
    print(repr(failed.exception()), failed.done(), failed.cancelled(), failed.running())
    try:
        failed.result()
    except ValueError as error:
        print("raised", error)
    told = []
    future = pool.submit(sum, [1, 2])
    future.result()
    future.add_done_callback(lambda one: told.append(one.result()))
    print(told)
    go, all_there = threading.Event(), threading.Barrier(4)
    slow = [pool.submit(lambda: all_there.wait() and go.wait(30)) for _ in range(3)]
    all_there.wait()
    waiting = pool.submit(print, "never")
    print(waiting.cancel(), waiting.cancelled(), slow[0].cancel())
    try:
        slow[0].result(timeout=0.01)
    except concurrent.futures.TimeoutError:
        print("not yet", concurrent.futures.TimeoutError is TimeoutError)
    done, rest = concurrent.futures.wait(slow, timeout=0.01)
    print(len(done), len(rest))
    go.set()
    done, rest = concurrent.futures.wait(slow, return_when=concurrent.futures.FIRST_COMPLETED)
    print(len(done) >= 1)
    try:
        waiting.result()
    except concurrent.futures.CancelledError:
        print("cancelled")
try:
    pool.submit(print)
except RuntimeError as error:
    print("RuntimeError:", error)

pool = ThreadPoolExecutor(1)
first = pool.submit(time.sleep, 0.05)
others = [pool.submit(time.sleep, 0) for _ in range(4)]
pool.shutdown(wait=True, cancel_futures=True)
print(sum(one.cancelled() for one in others) >= 3, first.done())

with ThreadPoolExecutor(2) as pool:
    try:
        for value in pool.map(lambda n: 1 // (2 - n), range(4)):
            print(value)
    except ZeroDivisionError as error:
        print("map:", error)
    order = [
        f.result()
        for f in concurrent.futures.as_completed([pool.submit(abs, -n) for n in range(4)])
    ]
    print(sorted(order))

future = concurrent.futures.Future()
print(future.set_running_or_notify_cancel(), future.running())
future.set_result(42)
print(future.result(), future.done())
try:
    future.set_exception(ValueError())
except concurrent.futures.InvalidStateError:
    print("InvalidStateError")
print(isinstance(pool, concurrent.futures.Executor), isinstance(future, concurrent.futures.Future))
