"""The scenarios of queues and pipes: round trips, and streams of small and long items."""

import time

from benches.locks import module_of
from benches.rests import mean_seconds

ROUND_TRIPS = 4000
RESTED_ROUND_TRIPS = 400
SIZES = {"small": (20_000, None), "1 kB": (10_000, 1_000), "100 kB": (2_000, 100_000)}
_AHEAD = 100  # how many items a stream may be ahead of its taker


ARRAYS = {
    "100 kB": (1500, 100_000),
    "1 MB": (300, 10**6),
    "10 MB": (40, 10**7),
    "100 MB": (6, 10**8),
}
_ARRAYS_AHEAD = 4
_PAGE_OF_BYTES = 4096


def _context(contender):
    return module_of(contender).get_context("fork")


def echo(source, target):
    while (item := source.get()) is not None:
        target.put(item)


def echo_end(end):
    while (item := end.recv()) is not None:
        end.send(item)


def _timed_round_trips(there, back, pause_s, scale):
    count = max(100, int((RESTED_ROUND_TRIPS if pause_s else ROUND_TRIPS) * scale))
    for number in range(min(count, 200)):
        there(number)
        back()

    def there_and_back(number):
        there(number)
        return back()

    return {"round trip": mean_seconds(there_and_back, count, pause_s)}


def queue_round_trip(pause_s, contender, scale):
    context = _context(contender)
    there, back = context.Queue(), context.Queue()
    child = context.Process(target=echo, args=(there, back))
    child.start()
    figures = _timed_round_trips(there.put, back.get, pause_s, scale)
    there.put(None)
    child.join()
    return figures


def pipe_round_trip(pause_s, contender, scale):
    context = _context(contender)
    one, other = context.Pipe()
    child = context.Process(target=echo_end, args=(other,))
    child.start()
    figures = _timed_round_trips(one.send, one.recv, pause_s, scale)
    one.send(None)
    child.join()
    return figures


def produce(queue, ready, go, count, item):
    ready.release()
    go.wait()
    for number in range(count):
        queue.put(number if item is None else item)


def consume(queue, ready, go, count, size):
    ready.release()
    go.wait()
    for _ in range(count):
        item = queue.get()
        if size is not None and len(item) != size:
            raise AssertionError("wrong results: the figure would be worthless")


def stream(senders, contender, scale):
    """As many takers as putters, all in processes of their own."""
    context, figures = _context(contender), {}
    for name, (items, size) in SIZES.items():
        count = max(50, int(items * scale))
        item = None if size is None else b"x" * size
        queue = context.Queue(_AHEAD)
        ready, go = context.Semaphore(0), context.Event()
        children = []
        for _ in range(senders):
            arguments = [(queue, ready, go, count, what) for what in (item, size)]
            children.append(context.Process(target=produce, args=arguments[0]))
            children.append(context.Process(target=consume, args=arguments[1]))
        for child in children:
            child.start()
        for _ in children:
            ready.acquire()
        began = time.perf_counter()
        go.set()
        for child in children:
            child.join()
            if child.exitcode:
                raise AssertionError("wrong results: the figure would be worthless")
        figures[name] = (time.perf_counter() - began) / (senders * count)
    return figures


def send_arrays(put, ready, go, count, size):
    import numpy

    array = numpy.full(size, 3, "u1")
    ready.release()
    go.wait()
    for _ in range(count):
        put(array)


def arrays(kind, contender, scale):
    """From one process to this one; of each that arrives a number of every page is read."""
    context, figures = _context(contender), {}
    for name, (items, size) in ARRAYS.items():
        count = max(3, int(items * scale))
        if kind == "queue":
            queue = context.Queue(_ARRAYS_AHEAD)
            put, get = queue.put, queue.get
        else:
            reader, writer = context.Pipe(duplex=False)
            put, get = writer.send, reader.recv
        ready, go = context.Semaphore(0), context.Event()
        child = context.Process(target=send_arrays, args=(put, ready, go, count, size))
        child.start()
        ready.acquire()
        began = time.perf_counter()
        go.set()
        for _ in range(count):
            array = get()
            if int(array[::_PAGE_OF_BYTES].sum(dtype="u8")) != 3 * -(-size // _PAGE_OF_BYTES):
                raise AssertionError("wrong results: the figure would be worthless")
        figures[name] = (time.perf_counter() - began) / count
        child.join()
    return figures
