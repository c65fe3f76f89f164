"""Events, conditions, barriers, semaphores and timers between threads."""

import threading

event = threading.Event()
print(event.is_set(), event.wait(0.01))
threading.Timer(0.02, event.set).start()
print(event.wait(10), event.is_set())
event.clear()
print(event.is_set())
timer = threading.Timer(60, print, args=("never",))
timer.start()
timer.cancel()
timer.join()
print("cancelled")

items, room = [], threading.Condition()


def take(count, into):
    for _ in range(count):
        with room:
            room.wait_for(lambda: items, timeout=10)
            into.append(items.pop())
            room.notify_all()


taken = []
taker = threading.Thread(target=take, args=(5, taken))
taker.start()
for number in range(5):
    with room:
        room.wait_for(lambda: not items)
        items.append(number)
        room.notify()
taker.join()
print(taken)
with room:
    print(room.wait(0.01))

turns = []
barrier = threading.Barrier(3, action=lambda: turns.append("all here"))


def meet():
    turns.append(type(barrier.wait()).__name__)


threads = [threading.Thread(target=meet) for _ in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(turns, barrier.parties, barrier.n_waiting, barrier.broken)
barrier.abort()
try:
    barrier.wait()
except threading.BrokenBarrierError as error:
    print("broken", barrier.broken, isinstance(error, RuntimeError))
barrier.reset()
print(barrier.broken)

limit, most, inside = threading.BoundedSemaphore(2), [0], []


def enter(number):
    with limit:
        inside.append(number)
        most[0] = max(most[0], len(inside))
        event.wait(0.005)
        inside.remove(number)


threads = [threading.Thread(target=enter, args=(n,)) for n in range(6)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("at most two:", most[0] <= 2)
try:
    limit.release()
except ValueError as error:
    print("ValueError:", error)
