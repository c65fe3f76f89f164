"""What the tests of managers have in managers, and run in other processes."""

import gc
import multiprocessing.managers
import os
import threading
import weakref

import oxgang.multiprocessing
import oxgang.multiprocessing.managers

KINDS = {"standard": multiprocessing.managers, "oxgang": oxgang.multiprocessing.managers}


class Counter:
    """Something to have in a manager."""

    all = weakref.WeakSet()  # noqa: RUF012

    def __init__(self, start=0):
        self.value = start
        self.all.add(self)

    def alive(self):
        gc.collect()
        return len(self.all)

    def add(self, by=1):
        self.value += by
        return self.value

    def fail(self, text):
        raise LookupError(text)

    def unpicklable(self):
        return threading.Lock()

    def _hidden(self):
        return "hidden"

    def up_to(self, end):
        return iter(range(self.value, end))

    def same(self, *args, **kwargs):
        return args, kwargs

    def pid(self):
        return os.getpid()

    def threads(self):
        return threading.active_count()

    def wait(self, event):
        event.wait()


class Failing:
    def __init__(self):
        raise LookupError("not made")


def registered(module, **options):
    """A manager class that knows counters."""

    class Manager(module.SyncManager):
        pass

    Manager.register("Counter", Counter, **options)
    Manager.register("Failing", Failing)
    Manager.register("iterator", create_method=False, proxytype=module.IteratorProxy)
    return Manager


# -- in other processes --------------------------------------------------------------------


def put_items(items, queue, count):
    for number in range(count):
        items[number] = number * number
    queue.put(os.getpid())


def count_up(lock, namespace, times):
    for _ in range(times):
        with lock:
            namespace.count += 1


def keys_of(items, found):
    found.extend(sorted(items))


def nest(items):
    items["inner"]["deep"].append("from afar")


def use_key(key):
    """The standard library's proxies that were unpickled open every manager with this."""
    multiprocessing.current_process().authkey = key


def crash_start():
    os._exit(7)


# -- as programs: python managing.py WHAT KIND ADDRESS… --------------------------------------


def serve(module, address):
    manager = registered(module)(address, b"key")
    server = manager.get_server()
    print("serving", server.address, flush=True)
    server.serve_forever()


def visit(module, address):
    if module is KINDS["standard"]:
        use_key(b"key")
    manager = registered(module)(address, b"key")
    manager.connect()
    items, numbers = manager.dict({"a": 1}), manager.list([1, 2])
    items["numbers"] = numbers
    numbers.append(3)
    assert items["numbers"][2] == 3, str(items)
    assert sorted(items.keys()) == ["a", "numbers"]
    assert sorted(iter(items)) == ["a", "numbers"]
    counter = manager.Counter(5)
    assert counter.add() == 6
    assert counter.same(1, [b"x" * 100_000], k=None) == ((1, [b"x" * 100_000]), {"k": None})
    with manager.Lock():
        pass
    try:
        counter.fail("as told")
    except LookupError as error:
        assert error.args == ("as told",)
    else:
        raise AssertionError
    print("visited", flush=True)


def own_and_wait(module, method):
    """Owns a manager until it is killed."""
    manager = module.SyncManager(ctx=oxgang.multiprocessing.get_context(method))
    manager.start()
    items = manager.dict(a=1)
    print("manager", manager._process.pid, manager.address, items["a"], flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    import sys

    what, kind, *where = sys.argv[1:]
    if where and ":" in where[0]:
        host, _, port = where[0].partition(":")
        where[0] = host, int(port)
    elif where:
        where[0] = where[0].replace("@", "\0")
    globals()[what](KINDS[kind], *where)
