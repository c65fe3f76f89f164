"""What can cross and what cannot; reducers of one's own."""

import copyreg
import io
import multiprocessing
import pickle
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.reduction import ForkingPickler


class Handle:
    def __init__(self, number):
        self.number = number
        self.lock = threading.Lock()  # does not cross


class Connection:
    def __init__(self, where):
        self.where = where

    def __getstate__(self):
        return {"where": self.where + ", again"}


def rebuilt(number):
    return Handle(number + 100)


copyreg.pickle(Handle, lambda handle: (rebuilt, (handle.number,)))


def number_of(handle):
    return handle.number


def where(connection):
    return connection.where


def echo(value):
    return value


def main():
    values = [None, True, 2**100, -1.5, "æ", b"\0", (1, [2, {3}]), {"k": (None,)}, range(3), 1j]
    with ProcessPoolExecutor(1) as pool:
        print(list(pool.map(echo, values)) == values)
        print(pool.submit(number_of, Handle(1)).result())
        print(pool.submit(where, Connection("here")).result())
        shared = [1]
        back = pool.submit(echo, (shared, shared)).result()
        print(back[0] is back[1], back[0] is shared)
        error = pool.submit(echo, threading.Lock()).exception()
        print(type(error).__name__)
        print(pool.submit(echo, "goes on").result())
        big = bytes(range(256)) * 8192
        print(pool.submit(len, big).result(), pool.submit(echo, big).result() == big)
    ForkingPickler.register(io.StringIO, lambda stream: (io.StringIO, (stream.getvalue() + "!",)))
    here, there = multiprocessing.Pipe()
    here.send(io.StringIO("text"))
    print(there.recv().getvalue())
    print(pickle.loads(ForkingPickler.dumps({"a": 1})))


if __name__ == "__main__":
    main()
