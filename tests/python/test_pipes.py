"""Pipes and connections: as the standard ones, and what ours add."""

import array
import asyncio
import multiprocessing as standard
import os
import pickle
import select
import signal
import socket
import threading
import time
from multiprocessing import connection as standard_connection
from multiprocessing.reduction import ForkingPickler

import oxgang.multiprocessing as ours
import pytest
import queueing
from oxgang.concurrent.futures import ProcessPoolExecutor
from oxgang.multiprocessing import connection, reduction
from test_queues import METHODS, VALUES, Child


@pytest.fixture(params=[standard, ours], ids=["standard", "oxgang"])
def module(request):
    return request.param


@pytest.fixture(params=METHODS)
def context(request):
    return ours.get_context(request.param)


def wait_of(module):
    return connection.wait if module is ours else standard_connection.wait


# -- as the standard ones ------------------------------------------------------------------------


def test_objects_both_ways(module):
    one, other = module.Pipe()
    for value in VALUES:
        sender = threading.Thread(target=one.send, args=(value,))
        sender.start()
        back = other.recv()
        sender.join()
        assert back == value
        assert type(back) is type(value)
    other.send("back")
    assert one.recv() == "back"
    assert isinstance(one, connection.Connection)


def test_one_way(module):
    reader, writer = module.Pipe(duplex=False)
    assert (reader.readable, reader.writable) == (True, False)
    assert (writer.readable, writer.writable) == (False, True)
    writer.send(1)
    assert reader.recv() == 1
    with pytest.raises(OSError, match="read-only"):
        reader.send(1)
    with pytest.raises(OSError, match="write-only"):
        writer.recv()
    with pytest.raises(OSError, match="write-only"):
        writer.poll()


def test_bytes(module):
    one, other = module.Pipe()
    one.send_bytes(b"0123456789", 2, 5)
    assert other.recv_bytes() == b"23456"
    one.send_bytes(memoryview(b"abc"), 1)
    assert other.recv_bytes(10) == b"bc"
    one.send_bytes(array.array("i", [1, 2]))
    assert other.recv_bytes() == array.array("i", [1, 2]).tobytes()
    one.send_bytes(b"")
    assert other.recv_bytes() == b""
    for wrong in ((-1,), (11,), (0, -1), (4, 7)):
        with pytest.raises(ValueError):
            one.send_bytes(b"0123456789", *wrong)
    with pytest.raises(TypeError):
        one.send_bytes("text")
    with pytest.raises(ValueError):
        other.recv_bytes(-1)


def test_bytes_into_a_buffer(module):
    one, other = module.Pipe()
    room = array.array("i", [0] * 5)
    one.send_bytes(array.array("i", [7, 8]))
    assert other.recv_bytes_into(room, room.itemsize) == 2 * room.itemsize
    assert list(room) == [0, 7, 8, 0, 0]
    one.send_bytes(b"x" * 100)
    with pytest.raises(module.BufferTooShort) as caught:
        other.recv_bytes_into(bytearray(99))
    assert caught.value.args == (b"x" * 100,)
    with pytest.raises(ValueError):
        other.recv_bytes_into(bytearray(3), 4)
    with pytest.raises(ValueError):
        other.recv_bytes_into(bytearray(3), -1)


def test_a_message_that_is_too_long_ends_the_receiving(module):
    one, other = module.Pipe()
    one.send_bytes(b"long")
    with pytest.raises(OSError, match="bad message length"):
        other.recv_bytes(3)
    assert not other.readable
    assert not other.closed
    with pytest.raises(OSError):
        other.recv_bytes()
    reader, writer = module.Pipe(False)
    writer.send_bytes(b"long")
    with pytest.raises(OSError, match="bad message length"):
        reader.recv_bytes(3)
    assert reader.closed


def test_objects_and_bytes_are_each_others(module):
    one, other = module.Pipe()
    for value in ((1, "x"), {1, 2}, b"x" * 100_000):
        one.send_bytes(ForkingPickler.dumps(value))
        assert other.recv() == value
        sender = threading.Thread(target=one.send, args=(value,))
        sender.start()
        assert pickle.loads(other.recv_bytes()) == value
        sender.join()


def test_poll(module):
    one, other = module.Pipe()
    assert other.poll() is False
    began = time.monotonic()
    assert other.poll(0.05) is False
    assert time.monotonic() - began >= 0.05
    one.send(None)
    assert other.poll() is True
    assert other.poll(None) is True
    assert other.recv() is None
    timer = threading.Timer(0.1, one.send, (1,))
    timer.start()
    assert other.poll(30) is True
    timer.join()
    assert other.recv() == 1
    one.close()
    assert other.poll() is True
    with pytest.raises(EOFError):
        other.recv()


def test_what_was_sent_comes_before_the_end(module):
    reader, writer = module.Pipe(False)
    for number in range(3):
        writer.send(number)
    writer.close()
    assert [reader.recv() for _ in range(3)] == [0, 1, 2]
    for call in (reader.recv, reader.recv_bytes, lambda: reader.recv_bytes_into(bytearray(3))):
        with pytest.raises(EOFError):
            call()


def test_nobody_at_the_other_end(module):
    reader, writer = module.Pipe(False)
    reader.close()
    with pytest.raises(BrokenPipeError) as caught:
        writer.send(1)
    assert caught.value.errno == 32
    one, other = module.Pipe()
    other.close()
    with pytest.raises(OSError):
        one.send_bytes(b"x")


def test_closed(module):
    one, other = module.Pipe()
    with one as entered:
        assert entered is one
        assert not one.closed
        assert one.fileno() >= 0
    assert one.closed
    one.close()
    for call in (one.recv, one.fileno, one.poll, lambda: one.send(1), lambda: one.send_bytes(b"")):
        with pytest.raises(OSError, match="closed"):
            call()
    other.close()


def test_a_child_answers(module):
    context = module.get_context("spawn")  # a fork would have our end too, and see no end
    one, other = context.Pipe()
    with Child(context, queueing.echo, other) as process:
        other.close()
        for number in range(200):
            one.send((number, b"z" * (number * 997 % 100_000)))
            assert one.recv() == (number, b"z" * (number * 997 % 100_000))
        one.close()
        process.join()
        assert process.exitcode == 0


def test_the_death_of_who_sends_is_an_end(module):
    context = module.get_context("fork")
    reader, writer = context.Pipe(False)
    with Child(context, queueing.hold, writer, 0.2) as process:
        writer.close()
        with pytest.raises(EOFError):
            reader.recv()
        process.join()


def test_waiting_for_one_of_many(module):
    wait = wait_of(module)
    one, other = module.Pipe()
    third, fourth = module.Pipe(False)
    left, right = socket.socketpair()
    reader, writer = os.pipe()
    everything = [other, third, left, reader]
    assert wait(everything, 0) == []
    assert wait(everything, 0.01) == []
    one.send(1)
    assert wait(everything) == [other]
    fourth.send(2)
    right.send(b"x")
    os.write(writer, b"x")
    assert set(wait(everything, 30)) == set(everything)
    assert other.recv() == 1
    assert third.recv() == 2
    assert set(wait(everything, 30)) == {left, reader}
    one.close()
    fourth.close()
    assert set(wait(everything, 30)) == set(everything)
    process = module.get_context("fork").Process(target=os.getpid)
    process.start()
    reader_of_none, _writer_of_none = module.Pipe(False)
    assert wait([reader_of_none, process.sentinel], 30) == [process.sentinel]
    process.join()
    for thing in (left, right):
        thing.close()
    os.close(reader)
    os.close(writer)


def test_the_descriptor_is_readable_when_there_is_something(module):
    one, other = module.Pipe()

    def readable():
        return bool(select.select([other], [], [], 0)[0])

    one.send(1)
    assert readable()
    one.send(2)
    assert other.recv() == 1
    assert readable()
    assert other.recv() == 2
    assert not readable()
    for number in range(100):
        one.send(number)
        assert readable()
        assert other.recv() == number
        assert not readable()
    one.close()
    assert readable()


def test_an_event_loop_looks_at_it(module):
    one, other = module.Pipe()

    async def receive(count):
        loop, seen, done = asyncio.get_running_loop(), [], asyncio.Event()

        def ready():
            while other.poll():
                seen.append(other.recv())
            if len(seen) == count:
                done.set()

        loop.add_reader(other.fileno(), ready)
        await done.wait()
        loop.remove_reader(other.fileno())
        return seen

    sender = threading.Thread(target=queueing.send_all, args=(one, range(500)))
    sender.start()
    assert asyncio.run(receive(500)) == list(range(500))
    sender.join()


def test_ctrl_c_ends_a_wait(module):
    one, _other = module.Pipe()
    for wait in (one.recv, lambda: one.poll(None)):
        timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            timer.start()
            wait()
        timer.join()


# -- what ours add -------------------------------------------------------------------------------


def test_both_ends_pass_to_one_child(context):
    ends = ours.Pipe()
    process = context.Process(target=queueing.answer_on, args=(ends, 1))
    process.start()
    ends[1].close()
    ends[0].send(21)
    assert ends[0].recv() == 42
    process.join()
    assert process.exitcode == 0


def test_it_passes_to_children_of_any_start_method(context):
    for made_by in METHODS:
        one, other = ours.get_context(made_by).Pipe()
        with Child(context, queueing.echo, other) as process:
            other.close()
            one.send("there")
            assert one.recv() == "there"
            one.send("end")
            process.join()
            assert process.exitcode == 0


def test_it_passes_through_a_connection(context):
    one, other = context.Pipe()
    reader, writer = context.Pipe(False)
    with Child(context, queueing.answer_through_received, other) as process:
        other.close()
        one.send(writer)
        writer.close()
        assert reader.recv() == "through"
        process.join()
        assert process.exitcode == 0
        reduction.resource_sharer.stop(30)
        with pytest.raises(EOFError):
            reader.recv()


def test_it_passes_to_workers_that_run():
    with ProcessPoolExecutor(1) as pool:
        pool.submit(os.getpid).result()
        reader, writer = ours.Pipe(False)
        pool.submit(queueing.send_all, writer, [1, 2]).result()
        assert [reader.recv(), reader.recv()] == [1, 2]
        reduction.resource_sharer.stop(30)


def test_many_processes_send_through_one_end():
    context = ours.get_context("fork")
    reader, writer = context.Pipe(False)
    each = 300
    senders = [Child(context, queueing.send_named, writer, name, each) for name in range(3)]
    writer.close()
    seen = [reader.recv() for _ in range(3 * each)]
    for sender in senders:
        with sender as process:
            process.join()
    with pytest.raises(EOFError):
        reader.recv()
    expected = [
        (name, number, b"y" * (number * 91 % 5000)) for name in range(3) for number in range(each)
    ]
    assert sorted(seen) == expected


def test_many_threads_receive_at_one_end():
    reader, writer = ours.Pipe(False)
    seen = []

    def receive():
        try:
            while True:
                seen.append(reader.recv())
        except EOFError:
            pass

    threads = [threading.Thread(target=receive) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(2000):
        writer.send(number)
    writer.close()
    for thread in threads:
        thread.join()
    assert sorted(seen) == list(range(2000))


def test_a_full_pipe_waits_and_learns_of_the_end():
    reader, writer = ours.Pipe(False)
    sent = []

    def send():
        try:
            while True:
                writer.send_bytes(b"x" * 50_000)
                sent.append(1)
        except BrokenPipeError:
            sent.append("broken")

    thread = threading.Thread(target=send)
    thread.start()
    for _ in range(100):
        assert reader.recv_bytes() == b"x" * 50_000
    reader.close()
    thread.join()
    assert sent[-1] == "broken"
    assert 100 <= len(sent) - 1 <= 200, "not more than it holds"


def test_one_that_sends_to_itself_needs_no_other_thread():
    one, other = ours.Pipe()
    one.send(b"x" * (30 << 20))
    assert len(other.recv()) == 30 << 20


@pytest.mark.watchdog(120)
def test_senders_killed_in_the_middle_leave_whole_messages():
    context = ours.get_context("fork")
    reader, writer = context.Pipe(False)
    for turn in range(25):
        children = [Child(context, churn_send, writer) for _ in range(2)]
        for _ in range(20):
            check_churned(reader.recv())
        time.sleep(turn % 5 / 1000)
        for child in children:
            with child:
                pass
        while reader.poll():
            check_churned(reader.recv())
    writer.send((0, b""))
    assert reader.recv() == (0, b"")


def churn_send(writer):
    number = 0
    while True:
        number += 1
        writer.send((number, bytes([number % 251]) * (number * 577 % 9000)))


def check_churned(message):
    number, body = message
    assert body == bytes([number % 251]) * (number * 577 % 9000)


def test_handles_go_through(module):
    send = reduction.send_handle if module is ours else standard.reduction.send_handle
    receive = reduction.recv_handle if module is ours else standard.reduction.recv_handle
    one, other = module.Pipe()
    reader, writer = os.pipe()
    send(one, writer, os.getpid())
    arrived = receive(other)
    os.write(arrived, b"x")
    assert os.read(reader, 1) == b"x"
    for fd in (arrived, reader, writer):
        os.close(fd)
    if module is ours:
        one.send("no handle")
        with pytest.raises(RuntimeError, match="descriptor"):
            receive(other)
        reduction.resource_sharer.stop(30)


def test_no_descriptor_is_left():
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        one, other = ours.Pipe()
        one.send(1)
        assert other.poll()
        one.close()
        other.close()
        queue = ours.Queue()
        queue.put(1)
        queue.close()
        del queue
    del one, other
    assert len(os.listdir("/proc/self/fd")) <= before + 3
