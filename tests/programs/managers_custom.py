"""A manager with classes of one's own; one that others connect to."""

import multiprocessing
import queue
from multiprocessing.managers import BaseManager, BaseProxy, NamespaceProxy


class Counter:
    def __init__(self, begin=0):
        self.count = begin

    def add(self, by=1):
        self.count += by
        return self.count

    def _secret(self):
        return "secret"


class CounterProxy(BaseProxy):
    _exposed_ = ("add", "_secret")

    def add(self, by=1):
        return self._callmethod("add", (by,))

    def told(self):
        return self._callmethod("_secret")


class Numbers(BaseManager):
    pass


Numbers.register("Counter", Counter)
Numbers.register("Open", Counter, CounterProxy)
Numbers.register("Space", Counter, NamespaceProxy)

jobs = queue.Queue()


class Server(BaseManager):
    pass


Server.register("jobs", callable=lambda: jobs)


class Client(BaseManager):
    pass


Client.register("jobs")


def put_from_elsewhere(address):
    client = Client(address=address, authkey=b"shared")
    client.connect()
    client.jobs().put("a job")


def add_ten(counter):
    for _ in range(10):
        counter.add()


def main():
    with Numbers() as manager:
        counter = manager.Counter(5)
        process = multiprocessing.Process(target=add_ten, args=(counter,))
        process.start()
        process.join()
        print(counter.add(0), hasattr(counter, "_secret"))
        opened = manager.Open()
        print(opened.add(2), opened.told())
        print(manager.Space(4).count)
    fork = multiprocessing.get_context("fork")
    server = Server(address=("127.0.0.1", 0), authkey=b"shared", ctx=fork)
    server.start()
    process = multiprocessing.Process(target=put_from_elsewhere, args=(server.address,))
    process.start()
    print(server.jobs().get())
    process.join()
    try:
        client = Client(address=server.address, authkey=b"wrong")
        client.connect()
    except multiprocessing.AuthenticationError:
        print("AuthenticationError")
    server.shutdown()


if __name__ == "__main__":
    main()
