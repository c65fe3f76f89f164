"""What the processes of the queue and pipe tests run."""

import os
import signal
import sys
import time

import numpy


def put_all(queue, items):
    for item in items:
        queue.put(item)


def put_and_leave(queue, items, how):
    """Puts the items, and ends by `how` when the last `put` has returned."""
    put_all(queue, items)
    if how == "exit":
        os._exit(3)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)


def put_marked(queue, name, count):
    for number in range(count):
        queue.put((name, number, b"x" * (number * 37 % 3000)))


def take_until_none(queue, results):
    while (item := queue.get()) is not None:
        results.put(item)


def take_one(queue):
    return queue.get()


def put_one(queue, item):
    queue.put(item)


def pass_on(source, target):
    """From one queue to another, until there is None."""
    while (item := source.get()) is not None:
        target.put(item)


def churn_put(queue, size):
    """Puts until killed: numbered items that tell whether they are whole."""
    number = 0
    while True:
        queue.put((os.getpid(), number, bytes([number % 251]) * (number * 131 % size)))
        number += 1


def churn_get(queue):
    while True:
        queue.get()


def echo(connection):
    """Sends back what comes, until "end" or the end."""
    try:
        while (message := connection.recv()) != "end":
            connection.send(message)
    except EOFError:
        sys.exit(0)


def send_all(connection, items):
    for item in items:
        connection.send(item)


def send_named(connection, name, count):
    for number in range(count):
        connection.send((name, number, b"y" * (number * 91 % 5000)))


def send_connection(connection, other):
    connection.send(other)


def answer_through_received(connection):
    """Receives a connection by a connection, and sends through it."""
    with connection.recv() as other:
        other.send("through")


def hold(connection, seconds):
    """Keeps an end open for so long and then dies."""
    time.sleep(seconds)
    os.kill(os.getpid(), signal.SIGKILL)


def work_and_report(queue, count):
    for _ in range(count):
        queue.get()
        queue.task_done()


def wait_for_item(queue, ready, got):
    ready.set()
    got.put(queue.get())


def answer_on(ends, own):
    """Closes the other end, and sends back what comes, doubled."""
    ends[1 - own].close()
    ends[own].send(2 * ends[own].recv())


def put_through(put, items):
    for item in items:
        put(item)


def write_and_tell(get, put, number):
    """Writes into all of an array that came; sends what was there first, and the sum."""
    array = get()
    first = int(array[0])
    array[:] = number
    put((first, int(array.sum(dtype="u8"))))


def put_and_be_killed(put, items):
    put_through(put, items)
    os.kill(os.getpid(), signal.SIGKILL)


def put_arrays(put, size, *counts):
    """So many arrays, numbered anew after each count."""
    for count in counts:
        for number in range(count):
            put(numpy.full(size, number % 251, "u1"))


def send_and_count(connection, item, count, sent):
    for _ in range(count):
        connection.send(item)
        sent.value += 1


def send_until_broken(reader, writer, item):
    reader.close()
    try:
        while True:
            writer.send(item)
    except BrokenPipeError:
        os._exit(17)


def send_bytes(connection, data):
    connection.send_bytes(data)
    connection.send_bytes(data, 1)
    connection.send([data])
    connection.send_bytes(data[:1000])


def churn_put_arrays(put):
    """Puts arrays of any length, each of one number, until killed."""
    number = os.getpid()
    while True:
        number += 1
        put(numpy.full(300_000 + number * 7919 % 2_000_000, number % 251, "u1"))


def churn_get_arrays(get):
    """Takes them until killed; ends if one is not whole, or changes while it is looked at."""
    before = None
    while True:
        array = get()
        if not (array == array[0]).all() or (
            before is not None and not (before == before[0]).all()
        ):
            os._exit(9)
        before = array


def set_and_be_killed(items, size, count):
    for number in range(count):
        items[number] = numpy.full(size, number, "u1")
    os.kill(os.getpid(), signal.SIGKILL)


def is_a_look(array):
    """Whether the array's memory is what it came in."""
    while isinstance(array.base, numpy.ndarray):
        array = array.base
    owner = array.base.obj if isinstance(array.base, memoryview) else array.base
    return "Buffer" in type(owner).__name__


def echo_looked_at(queue, end):
    """Sends back what comes, one more, and whether it was looked at where it came, until None."""
    while (array := queue.get()) is not None:
        looked_at = is_a_look(array)
        array += 1
        end.send((looked_at, array))


def take_and_sum(queue):
    array = queue.get()
    return is_a_look(array), int(array.sum(dtype="u8"))
