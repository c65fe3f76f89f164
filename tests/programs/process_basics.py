"""Processes: started, joined, named, ended."""

import multiprocessing
import os
import signal
import sys
import time


def greet(name, *, mark="."):
    print(f"hello {name}{mark}", flush=True)


def leave(code):
    sys.exit(code)


def fall():
    sys.stderr = open(os.devnull, "w")
    raise RuntimeError("as intended")


def tell(connection):
    current = multiprocessing.current_process()
    connection.send((current.name, current.daemon, multiprocessing.parent_process().pid))


class Worker(multiprocessing.Process):
    def __init__(self, connection):
        super().__init__(name="custom")
        self.connection = connection

    def run(self):
        self.connection.send([self.name, os.getpid() == self.pid])


def main():
    process = multiprocessing.Process(target=greet, args=("world",), kwargs={"mark": "!"})
    print(process.is_alive(), process.pid, process.exitcode, process.daemon)
    process.start()
    process.join()
    print(process.exitcode, process.is_alive())
    process.close()
    try:
        process.is_alive()
    except ValueError as error:
        print("ValueError:", error)
    for target, args in ((leave, (3,)), (leave, (None,)), (fall, ())):
        process = multiprocessing.Process(target=target, args=args)
        process.start()
        process.join()
        print(process.exitcode)
    for end, number in (("terminate", signal.SIGTERM), ("kill", signal.SIGKILL)):
        process = multiprocessing.Process(target=time.sleep, args=(60,), daemon=True)
        process.start()
        print(process.is_alive(), process in multiprocessing.active_children())
        getattr(process, end)()
        process.join()
        print(process.exitcode == -number)
    receiving, sending = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.Process(target=tell, args=(sending,), name="teller", daemon=True)
    process.start()
    name, daemon, parent = receiving.recv()
    print(name, daemon, parent == os.getpid())
    process.join()
    worker = Worker(sending)
    worker.start()
    print(receiving.recv(), worker.sentinel > 0)
    worker.join()
    print(multiprocessing.current_process().name, multiprocessing.parent_process())
    print(multiprocessing.active_children())
    slow = multiprocessing.Process(target=time.sleep, args=(0.2,))
    slow.start()
    slow.join(0.01)
    print(slow.exitcode)
    slow.join()
    print(slow.exitcode)


if __name__ == "__main__":
    main()
