"""What a Thread knows of itself and of the others."""

import threading
import time


class Squarer(threading.Thread):
    def __init__(self, number):
        super().__init__(name=f"squarer-{number}", daemon=True)
        self.number = number
        self.result = None

    def run(self):
        self.result = self.number**2, threading.current_thread() is self, self.daemon


workers = [Squarer(n) for n in range(3)]
print([worker.is_alive() for worker in workers], [worker.ident for worker in workers])
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
print([(worker.name, worker.result, worker.is_alive()) for worker in workers])
for misuse in (lambda: workers[0].start(), lambda: threading.Thread().join()):
    try:
        misuse()
    except RuntimeError as error:
        print("RuntimeError:", error)

go = threading.Event()
thread = threading.Thread(target=go.wait)
before = threading.active_count()
thread.start()
print(threading.active_count() - before, thread in threading.enumerate())
thread.join(timeout=0.01)
print("still there:", thread.is_alive())
go.set()
thread.join()
print(thread in threading.enumerate(), isinstance(thread.ident, int), thread.native_id > 0)
main = threading.main_thread()
print(main is threading.current_thread(), main.name, main.ident == threading.get_ident())

own = threading.local()
own.value = "main"
seen = []


def look():
    seen.append(hasattr(own, "value"))
    own.value = threading.current_thread().name
    time.sleep(0.01)
    seen.append(own.value)


for name in ("one", "two"):
    thread = threading.Thread(target=look, name=name)
    thread.start()
    thread.join()
print(seen, own.value)
