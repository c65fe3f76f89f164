"""The scenarios of `threading` and `queue`: alone, and between two threads."""

import queue
import threading
import time

ALONE = 200_000
TURNS = 3_000
ITEMS = 50_000


def threading_of(contender):
    if contender.is_oxgang:
        import oxgang.threading

        return oxgang.threading
    return threading


def queue_of(contender):
    if contender.is_oxgang:
        import oxgang.queue

        return oxgang.queue
    return queue


def _timed(count, run):
    began = time.perf_counter()
    run(count)
    return {"turn": (time.perf_counter() - began) / count}


def _alone(scale, loop):
    loop(1000)
    return _timed(max(1000, int(ALONE * scale)), loop)


def _between(count, one, other):
    """One thread runs `one`, this one `other`; seconds per turn."""

    def both(count):
        thread = threading.Thread(target=one, args=(count,))
        thread.start()
        other(count)
        thread.join()

    both(50)
    return _timed(count, both)


def event_set_clear(contender, scale):
    event = threading_of(contender).Event()
    set_it, clear = event.set, event.clear

    def loop(count):
        for _ in range(count):
            set_it()
            clear()

    return _alone(scale, loop)


def semaphore_pair(contender, scale):
    semaphore = threading_of(contender).Semaphore()
    acquire, release = semaphore.acquire, semaphore.release

    def loop(count):
        for _ in range(count):
            acquire()
            release()

    return _alone(scale, loop)


def lock_with(kind, contender, scale):
    lock = getattr(threading_of(contender), kind)()

    def loop(count):
        for _ in range(count):
            with lock:
                pass

    return _alone(scale, loop)


def queue_pair(kind, contender, scale):
    made = getattr(queue_of(contender), kind)()
    put, get = made.put, made.get

    def loop(count):
        for number in range(count):
            put(number)
            get()

    return _alone(scale, loop)


def queue_between_threads(contender, scale):
    """A producer and a consumer, each at its own pace."""
    made, got = queue_of(contender).Queue(), []

    def consume(count):
        got.append(sum(made.get() for _ in range(count)))

    def produce(count):
        for number in range(count):
            made.put(number)

    count = max(500, int(ITEMS * scale))
    figures = _between(count, consume, produce)
    if got[-1] != sum(range(count)):
        raise AssertionError("wrong results: the figure would be worthless")
    return figures


def condition_round_trip(contender, scale):
    """Two threads that take turns by one condition; a turn is there and back."""
    condition, turn = threading_of(contender).Condition(), [0]

    def side(own):
        def play(count):
            for _ in range(count):
                with condition:
                    while turn[0] != own:
                        condition.wait()
                    turn[0] = 1 - own
                    condition.notify()

        return play

    return _between(max(200, int(TURNS * scale)), side(1), side(0))


def barrier_round(contender, scale):
    barrier = threading_of(contender).Barrier(2)

    def party(count):
        for _ in range(count):
            barrier.wait()

    return _between(max(200, int(TURNS * scale)), party, party)


def event_round_trip(contender, scale):
    there, back = threading_of(contender).Event(), threading_of(contender).Event()

    def one(count):
        for _ in range(count):
            there.wait()
            there.clear()
            back.set()

    def other(count):
        for _ in range(count):
            there.set()
            back.wait()
            back.clear()

    return _between(max(200, int(TURNS * scale)), one, other)
