"""Long buffers through queues and pipes: whole, private, and there as long as somebody looks."""

import gc
import multiprocessing as standard
import os
import pickle
import queue as queue_module
import random
import resource
import signal
import time

import calls
import numpy
import oxgang
import oxgang.multiprocessing as ours
import pandas
import pyarrow
import pytest
import queueing
from oxgang.concurrent.futures import ProcessPoolExecutor
from queueing import is_a_look
from test_data import LONG, MB, arrays

KINDS = ["Queue", "SimpleQueue", "JoinableQueue", "Pipe"]
WAYS = [(standard, kind) for kind in KINDS] + [(ours, kind) for kind in [*KINDS, "oxgang.Queue"]]
SEED = int(os.environ.get("OXGANG_SEED", random.SystemRandom().randrange(1 << 32)))


class Way:
    """Something that messages go through: what is put at one side comes out at the other."""

    def __init__(self, module, kind):
        self.context = module.get_context("fork")
        if kind == "Pipe":
            self.source, self.target = module.Pipe(duplex=False)
            self.put, self.get = self.target.send, self.source.recv
        elif kind == "oxgang.Queue":
            self.source = self.target = oxgang.Queue()
            with ProcessPoolExecutor(1) as pool:  # from then on it is shared
                pool.submit(oxgang.Queue.qsize, self.source).result()
            self.put, self.get = self.source.put, self.source.get
        else:
            self.source = self.target = getattr(self.context, kind)()
            self.put, self.get = self.source.put, self.source.get

    def sent(self, *items):
        """What a child puts, as it arrives here."""
        child = self.context.Process(target=queueing.put_through, args=(self.put, items))
        child.start()
        arrived = [self.get() for _ in items]
        child.join()
        assert child.exitcode == 0
        return arrived

    def close(self):
        for end in {self.source, self.target}:
            (end.shutdown if isinstance(end, oxgang.Queue) else end.close)()


@pytest.fixture(params=WAYS, ids=lambda way: f"{way[0].__name__.split('.')[0]}-{way[1]}")
def way(request):
    way = Way(*request.param)
    yield way
    way.close()


@pytest.fixture(params=[way for way in WAYS if way[0] is ours], ids=lambda way: way[1])
def our_way(request):
    way = Way(*request.param)
    yield way
    way.close()


def test_arrays_cross_whole(way):
    sent = arrays()
    for back, array in zip(way.sent(*sent.values()), sent.values(), strict=True):
        numpy.testing.assert_array_equal(back, array)
        usual = pickle.loads(pickle.dumps(array))
        assert calls.describe(back) == calls.describe(usual)
        assert back.flags.writeable


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_bytes_cross_whole(way, kind):
    for size in (0, 65_537, MB // 4 - 1, MB // 4, LONG):
        data = kind(os.urandom(size))
        alone, among = way.sent(data, [data, 1, {"x": data}])
        assert alone == data and among == [data, 1, {"x": data}]
        assert type(alone) is type(among[0]) is kind


def test_tables_cross_whole(way):
    frame = pandas.DataFrame({"a": numpy.arange(LONG // 8), "b": numpy.arange(LONG // 8) / 3})
    table = pyarrow.table(
        {"a": numpy.arange(LONG // 8), "b": ["x", None, "zz"] * (LONG // 24) + ["y"]}
    )
    back, other = way.sent(frame, table)
    pandas.testing.assert_frame_equal(back, frame)
    back.loc[0, "a"] = -1
    assert other.equals(table)


def test_many_buffers_in_one_message(way):
    parts = [
        numpy.full(size, number % 251, "u1") for number, size in enumerate([LONG, 1, 0, 70_000, MB])
    ]
    (back,) = way.sent({"parts": parts, "more": bytearray(b"z" * LONG)})
    for one, other in zip(back["parts"], parts, strict=True):
        numpy.testing.assert_array_equal(one, other)
    assert back["more"] == b"z" * LONG


def test_what_arrives_is_its_receivers_own(way):
    array = numpy.zeros(LONG, "u1")
    mine = way.sent(array)[0]
    mine[:] = 9
    for number in (1, 2):
        told, tell = way.context.Pipe(duplex=False)
        arguments = (way.get, tell.send, number)
        child = way.context.Process(target=queueing.write_and_tell, args=arguments)
        child.start()
        way.put(array)
        assert told.recv() == (0, number * LONG)
        child.join()
    assert (mine == 9).all() and not array.any()


def test_what_is_put_is_as_it_was(our_way):
    array = numpy.zeros(LONG, "u1")
    our_way.put(array)
    array[:] = 1
    assert not our_way.get().any()


def test_long_arrays_are_looked_at_where_they_are(our_way):
    long, short = our_way.sent(numpy.zeros(LONG, "u1"), numpy.zeros(10_000, "u1"))
    assert is_a_look(long) and not is_a_look(short)


def test_a_look_outlives_the_way_and_its_sender(our_way):
    array = numpy.random.default_rng(SEED).integers(0, 255, LONG, "u1")
    child = our_way.context.Process(
        target=queueing.put_and_be_killed, args=(our_way.put, [array, array])
    )
    child.start()
    first = our_way.get()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    second = our_way.get()
    our_way.close()
    numpy.testing.assert_array_equal(first, array)
    numpy.testing.assert_array_equal(second, array)
    second[5:9] = 1
    assert second.sum() and first[5:9].tolist() == array[5:9].tolist()


def test_a_fork_goes_on_seeing_what_it_inherited(our_way):
    (array,) = our_way.sent(numpy.full(LONG, 7, "u1"))
    back, report = ours.Pipe()
    pid = os.fork()
    if not pid:
        try:
            back.close()
            report.send("here")
            report.recv()  # the parent has sent others meanwhile
            report.send(bool((array == 7).all()))
        finally:
            os._exit(0)
    report.close()
    assert back.recv() == "here"
    del array
    gc.collect()
    for number in range(20):
        got = our_way.sent(numpy.full(LONG, number, "u1"))[0]
        assert (got == number).all()
    del got
    back.send("go")
    assert back.recv() is True
    os.waitpid(pid, 0)


def test_a_slot_is_not_used_while_any_part_is_looked_at(our_way):
    kept = []
    for number in range(6):
        (array,) = our_way.sent(numpy.full((600, 1000), number, "u2"))
        kept.append(array[number::7, 5:9].T)  # a view of a view
    del array
    gc.collect()
    for _ in range(10):
        our_way.sent(numpy.full((600, 1000), 99, "u2"))
    assert (
        [int(view.max()) for view in kept] == [int(view.min()) for view in kept] == list(range(6))
    )


def test_more_than_there_are_slots_arrive_all_the_same():
    queue, count = ours.Queue(), 150
    for number in range(count):
        queue.put(numpy.full(MB // 4, number, "u1"))
    came = [queue.get() for _ in range(count)]
    looks = sum(map(is_a_look, came))
    assert 100 < looks < count
    assert [int(array[-1]) for array in came] == list(range(count))


def test_no_descriptor_is_left(our_way):
    """Who sends puts it in line then, and who receives gets a copy of its own."""
    sent = [numpy.full(LONG, number, "u1") for number in range(3)]
    our_way.put(sent[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    least = max(map(int, os.listdir("/proc/self/fd"))) + 1
    taken = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (least, hard))
    try:
        while True:
            try:
                taken.append(os.dup(0))
            except OSError:
                break
        first = our_way.get()
        our_way.put(sent[1])
        second = our_way.get()
        assert not is_a_look(second)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in taken:
            os.close(descriptor)
    our_way.put(sent[2])
    for back, array in zip((first, second, our_way.get()), sent, strict=True):
        numpy.testing.assert_array_equal(back, array)
        back[:] = 1
    assert is_a_look(our_way.sent(sent[0])[0])


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver", "template"])
def test_children_of_every_start_method_look_too(method):
    context = ours.get_context(method)
    queue, (mine, theirs) = context.Queue(), context.Pipe()
    child = context.Process(target=queueing.echo_looked_at, args=(queue, theirs))
    child.start()
    for number in range(3):
        queue.put(numpy.full(LONG, number, "u1"))
        looked_at, back = mine.recv()
        assert looked_at and is_a_look(back) and (back == number + 1).all()
    queue.put(None)
    child.join()
    assert child.exitcode == 0


def test_workers_that_run_already_look_too():
    queue = ours.Queue()
    with ProcessPoolExecutor(1) as pool:
        pool.submit(os.getpid).result()
        queue.put(numpy.full(LONG, 4, "u1"))
        assert pool.submit(queueing.take_and_sum, queue).result() == (True, 4 * LONG)
        pool.submit(queueing.put_one, queue, numpy.full(LONG, 5, "u1")).result()
        assert is_a_look(queue.get())


def test_files_may_not_be_so_long():
    queue, array = ours.Queue(), numpy.full(LONG, 6, "u1")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, hard))
    try:
        queue.put(array)
        back = queue.get()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not is_a_look(back) and (back == array).all()


def test_time_limits_and_room_hold_for_long_ones():
    queue = ours.Queue(1)
    array = numpy.zeros(LONG, "u1")
    queue.put(array)
    with pytest.raises(queue_module.Full):
        queue.put(array, timeout=0.05)
    with pytest.raises(queue_module.Full):
        queue.put_nowait(array)
    assert queue.get_nowait().nbytes == LONG
    with pytest.raises(queue_module.Empty):
        queue.get_nowait()
    queue.put_nowait(array)


def test_a_pipe_holds_no_backlog_of_long_ones():
    reader, writer = ours.Pipe(duplex=False)
    context = ours.get_context("fork")
    sent = context.Value("i")
    array = numpy.zeros(LONG, "u1")
    child = context.Process(target=queueing.send_and_count, args=(writer, array, 5, sent))
    child.start()
    while sent.value < 1:
        time.sleep(0.01)
    time.sleep(0.2)  # it would be further by now
    assert sent.value == 1
    for _ in range(5):
        assert reader.recv().nbytes == LONG
    child.join()
    assert sent.value == 5
    # a sender that waits for room hears of the end
    child = context.Process(target=queueing.send_until_broken, args=(reader, writer, array))
    child.start()
    writer.close()
    assert reader.recv().nbytes == LONG
    reader.close()
    child.join()
    assert child.exitcode == 17


@pytest.mark.parametrize("module", [standard, ours], ids=["standard", "oxgang"])
def test_bytes_of_connections(module):
    context = module.get_context("fork")
    reader, writer = context.Pipe(duplex=False)
    data = os.urandom(LONG)
    child = context.Process(target=queueing.send_bytes, args=(writer, data))
    child.start()
    assert reader.recv_bytes() == data
    room = bytearray(LONG + 10)
    assert reader.recv_bytes_into(room, 5) == LONG - 1
    assert room[5 : LONG + 4] == data[1:]
    assert reader.recv() == [data]
    with pytest.raises(OSError):
        reader.recv_bytes(100)
    child.join()


def memory_of(way):
    """Of this process: resident bytes, descriptors, mappings; and bytes that the way takes up."""
    gc.collect()
    _, rss, _, descriptors, _, mappings = calls.footprint()
    queue = way.source
    address = queue._parts()[0] if hasattr(queue, "_parts") else queue._address(True)[0]
    return rss, descriptors, mappings, os.fstat(address[1]).st_blocks * 512


@pytest.mark.parametrize("kind", ["Queue", "SimpleQueue", "Pipe"])
def test_a_thousand_long_messages_leave_nothing(kind):
    """10 gigabytes. Slack: the slots that a receiver and a sender a message ahead may need, which
    is chance while it warms up; allocators get a few MB. A leak of one in a hundred would show.
    """
    way, size = Way(ours, kind), 10_000_000
    child = way.context.Process(target=queueing.put_arrays, args=(way.put, size, 50, 1000))
    child.start()
    for number in range(50):
        assert way.get()[-1] == number % 251
    before = memory_of(way)
    for number in range(1000):
        array = way.get()
        assert array[0] == array[-1] == number % 251
    del array
    child.join()
    after = memory_of(way)
    assert after[0] <= before[0] + 4 * size and after[1] <= before[1], (before, after)
    assert after[2] <= before[2] + 20 and after[3] <= 130 * MB, (before, after)
    way.close()


@pytest.mark.parametrize("kind", ["Queue", "oxgang.Queue"])
def test_killed_senders_and_receivers_of_long_messages(kind):
    """Each of them dies at any moment; what arrives is whole, and nothing is stuck."""
    print(f"OXGANG_SEED={SEED}")
    dice = random.Random(SEED)
    way = Way(ours, kind)
    start = [
        lambda: way.context.Process(target=queueing.churn_put_arrays, args=(way.put,)),
        lambda: way.context.Process(target=queueing.churn_get_arrays, args=(way.get,)),
    ]
    children = [make() for make in start * 2]
    for child in children:
        child.start()
    kept = []
    for round_ in range(60):
        place = dice.randrange(4)
        time.sleep(dice.expovariate(100))
        children[place].kill()
        children[place].join()
        children[place] = start[place % 2]()
        children[place].start()
        if round_ % 5 == 0:
            array = way.get()
            kept.append((array, array[0]))
    for child in children:
        child.kill()
        child.join()
    assert all(child.exitcode == -signal.SIGKILL for child in children), "none found one torn"
    while way.source.qsize():
        array = way.get()
        assert (array == array[0]).all()
    assert all((array == first).all() for array, first in kept), f"OXGANG_SEED={SEED}"
    (back,) = way.sent(numpy.full(LONG, 5, "u1"))
    assert is_a_look(back) and (back == 5).all()
    way.close()


# -- managers --------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[standard, ours], ids=["standard", "oxgang"])
def manager(request):
    with request.param.get_context("fork").Manager() as manager:
        yield manager


@pytest.mark.parametrize("name", arrays())
def test_arrays_cross_a_manager_whole(manager, name):
    array = arrays()[name]
    items = manager.dict()
    items["it"] = {"nested": [array, array]}
    for back in items["it"]["nested"]:
        numpy.testing.assert_array_equal(back, array)
        assert calls.describe(back) == calls.describe(pickle.loads(pickle.dumps(array)))
        assert back.flags.writeable


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_bytes_cross_a_manager_whole(manager, kind):
    items = manager.list()
    for size in (0, 65_537, MB // 4, LONG):
        data = kind(os.urandom(size))
        items.append(data)
        back = items[-1]
        assert back == data and type(back) is kind


def test_what_a_manager_gives_is_its_callers_own(manager):
    items = manager.dict(it=numpy.zeros(LONG, "u1"))
    first = items["it"]
    first[:] = 1
    assert not items["it"].any()
    items["other"] = first
    first[:] = 2
    assert (items["other"] == 1).all() and (items.get("it") == 0).all()


def test_a_manager_keeps_what_its_clients_have_sent_and_they_what_they_got():
    with ours.get_context("fork").Manager() as manager:
        items = manager.dict()
        child = ours.get_context("fork").Process(
            target=queueing.set_and_be_killed, args=(items, LONG, 6)
        )
        child.start()
        child.join()
        assert child.exitcode == -signal.SIGKILL
        got = {number: items[number] for number in range(6)}
        assert all(map(is_a_look, got.values()))
        for number in range(10):
            items["more"] = numpy.full(LONG, 99, "u1")
            assert items["more"][number] == 99
        assert [int(got[n].sum(dtype="u8")) for n in got] == [n * LONG for n in got]
    assert [int(got[n].sum(dtype="u8")) for n in got] == [n * LONG for n in got]


def test_a_thousand_long_calls_leave_nothing():
    with ours.get_context("fork").Manager() as manager:
        items, array = manager.dict(), numpy.zeros(10_000_000, "u1")

        def footprints(count):
            for number in range(count):
                array[0] = number % 251
                items["it"] = array
                assert items["it"][0] == number % 251
            gc.collect()
            return calls.footprint()[1:], footprint_of(manager._process.pid)

        (rss, _, descriptors, memfds, mappings), before = footprints(30)
        now, after = footprints(1000)
    assert now[0] <= rss + 4 * array.nbytes and now[2:4] == (descriptors, memfds)
    assert now[4] <= mappings + 20
    assert after[0] <= before[0] + 4 * array.nbytes and after[1] == before[1], (before, after)


def footprint_of(pid):
    """Bytes that a process has in memory, and its descriptors."""
    with open(f"/proc/{pid}/statm") as statm:
        resident = int(statm.read().split()[1]) * resource.getpagesize()
    return resident, len(os.listdir(f"/proc/{pid}/fd"))
