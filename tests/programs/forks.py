"""os.fork in a program that has threads, queues and pools."""

import concurrent.futures
import os
import queue
import threading


def in_child(function):
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(reading)
        os.write(writing, repr(function()).encode())
        os._exit(0)
    os.close(writing)
    with open(reading) as stream:
        text = stream.read()
    return text, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def pool_work():
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(sum, [1, 2]).result()


def queue_work():
    channel = queue.Queue()
    thread = threading.Thread(target=channel.put, args=("made here",))
    thread.start()
    thread.join()
    return channel.get(timeout=10)


go = threading.Event()
threads = [threading.Thread(target=go.wait) for _ in range(2)]
for thread in threads:
    thread.start()
left = queue.Queue()
left.put("from before")
lock = threading.RLock()
with lock:
    print(in_child(lambda: (lock.acquire(), threading.active_count())))
print(in_child(lambda: left.get(timeout=10)), left.get())
print(in_child(pool_work), in_child(queue_work))
print(in_child(lambda: [threading.current_thread() is threading.main_thread(), go.is_set()]))
go.set()
for thread in threads:
    thread.join()
