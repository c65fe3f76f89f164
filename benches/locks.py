"""The scenarios of locks: what taking and releasing costs, alone and against another process."""

import multiprocessing
import time

ALONE = 200_000
CONTENDED = 20_000


def module_of(contender):
    if contender.is_oxgang:
        import oxgang.multiprocessing

        return oxgang.multiprocessing
    return multiprocessing


def _per_turn(turns, scale, loop):
    count = max(1000, int(turns * scale))
    loop(1000)
    began = time.perf_counter()
    loop(count)
    return {"turn": (time.perf_counter() - began) / count}


def with_lock(contender, scale):
    lock = module_of(contender).Lock()

    def loop(count):
        for _ in range(count):
            with lock:
                pass

    return _per_turn(ALONE, scale, loop)


def value_increment(contender, scale):
    value = module_of(contender).Value("i", 0)

    def loop(count):
        for _ in range(count):
            with value.get_lock():
                value.value += 1

    return _per_turn(ALONE, scale, loop)


def array_item(contender, scale):
    array = module_of(contender).Array("i", 10)

    def loop(count):
        for _ in range(count):
            array[3]

    return _per_turn(ALONE, scale, loop)


def increment_many(value, lock, count, ready, go):
    ready.release()
    go.wait()
    for _ in range(count):
        with lock:
            value.value += 1


def contended(contender, scale):
    """Two processes, one lock; time per turn of either."""
    context = module_of(contender).get_context("fork")
    count = max(500, int(CONTENDED * scale))
    lock, value = context.Lock(), context.RawValue("q", 0)
    ready, go = context.Semaphore(0), context.Event()
    arguments = (value, lock, count, ready, go)
    children = [context.Process(target=increment_many, args=arguments) for _ in range(2)]
    for child in children:
        child.start()
    for _ in children:
        ready.acquire()
    began = time.perf_counter()
    go.set()
    for child in children:
        child.join()
    seconds = time.perf_counter() - began
    if value.value != 2 * count:
        raise AssertionError("wrong results: the figure would be worthless")
    return {"turn": seconds / (2 * count)}
