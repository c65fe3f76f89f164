"""Lines: what a manager's clients have in common with it, and what is left when either goes."""

import gc
import os
import signal
import threading
import time

import calls
import managing
import oxgang.multiprocessing as ours
import pytest
from oxgang import _core
from oxgang.errors import ManagerDied
from oxgang.multiprocessing import _wire, managers
from programs import HERE, Program


@pytest.fixture
def manager():
    Manager = managing.registered(managers)
    with Manager(ctx=ours.get_context("fork")) as manager:
        yield manager


def way_of(proxy):
    """The way that this thread uses."""
    (way,) = proxy._tls.idle
    return way


def until(condition):
    """The watchdog ends what never comes."""
    while not condition():
        time.sleep(0.005)


def test_proxies_of_this_machine_use_a_line(manager):
    items = manager.dict()
    way = way_of(items)
    assert isinstance(way, _core.Line) and way.pid == manager._process.pid and way.known
    items["a"] = 1
    assert way_of(items) is way and way.usable() and not way.waits
    assert repr(way) == f"<Line to process {way.pid}>"


def test_those_of_others_do_not():
    with managers.SyncManager(("127.0.0.1", 0), b"key") as manager:
        assert isinstance(way_of(manager.dict()), _wire.Standard)


def test_without_passing_descriptors_the_standard_wire_does(manager, monkeypatch):
    def refused(_fd):
        os.close(_fd)
        raise OSError("no descriptors pass here")

    class Line:
        take_up = staticmethod(refused)

    monkeypatch.setattr(_core, "Line", Line)
    items = manager.dict(a=1)
    assert isinstance(way_of(items), _wire.Standard) and way_of(items).known
    items["b"] = manager.list([1])
    assert items["a"] == 1 and items["b"][0] == 1


def test_a_thread_that_ends_leaves_nothing(manager):
    counter = manager.Counter()
    before = counter.threads()
    opened = calls.count_open("oxgang line")

    def call():
        for _ in range(3):
            counter.add()

    for _ in range(3):
        threads = [threading.Thread(target=call) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    until(lambda: counter.threads() == before)
    gc.collect()
    assert calls.count_open("oxgang line") == opened
    assert counter.add(0) == 45


def test_a_process_without_proxies_has_no_line(manager):
    items = manager.dict()
    ways = items._tls
    assert len(ways.idle) == 1
    del items
    gc.collect()
    assert not hasattr(ways, "idle")


def test_a_client_that_is_killed_leaves_nothing(manager):
    counter, event = manager.Counter(), manager.Event()
    before = counter.threads()
    process = ours.get_context("fork").Process(target=counter.wait, args=(event,))
    process.start()
    until(lambda: counter.threads() > before)
    process.kill()
    process.join()
    event.set()  # what it was in the midst of ends; nobody hears of it
    until(lambda: counter.threads() == before)


def make_and_wait(manager, queue, inherited):
    kept = [manager.dict(), manager.list(), inherited]
    kept[0]["list"] = kept[1]
    queue.put(kept[1])
    signal.pause()


def test_what_a_killed_client_held_goes(manager):
    queue, inherited = manager.Queue(), manager.dict(a=1)
    before = manager._number_of_objects()
    arguments = (manager, queue, inherited)
    process = ours.get_context("fork").Process(target=make_and_wait, args=arguments)
    process.start()
    mine = queue.get()
    assert manager._number_of_objects() == before + 2
    process.kill()
    process.join()
    until(lambda: manager._number_of_objects() == before + 1)  # the list: it is held here
    mine.append(1)
    assert mine[0] == 1 and inherited["a"] == 1
    del mine
    gc.collect()
    assert manager._number_of_objects() == before


def call_for_ever(items, queue, number):
    queue.put(number)
    while True:
        items[number] = items.get(number, 0) + 1
        items["big"] = b"x" * 300_000
        items["big"]


def test_clients_killed_in_the_midst_of_anything(manager):
    items, queue, counter = manager.dict(), manager.Queue(), manager.Counter()
    before = counter.threads(), manager._number_of_objects()
    context = ours.get_context("fork")
    for number in range(25):
        process = context.Process(target=call_for_ever, args=(items, queue, number))
        process.start()
        queue.get()
        time.sleep(0.0007 * number)  # somewhere in its calls, each time elsewhere
        process.kill()
        process.join()
        items["mine"] = number
        assert items["mine"] == number and items.get("big") in (None, b"x" * 300_000)
    until(lambda: (counter.threads(), manager._number_of_objects()) == before)


def test_forks_that_hold_its_sockets_do_not_hide_the_managers_death(manager):
    pool = manager.Pool(1)
    assert pool.apply(abs, (-1,)) == 1
    items = manager.dict(a=1)
    worker = pool.apply(os.getpid)
    os.kill(manager._process.pid, signal.SIGKILL)
    with pytest.raises(ManagerDied, match=rf"\({manager._process.pid}\) has ended"):
        for _ in range(100_000):
            items["a"]
    os.kill(worker, signal.SIGKILL)


def test_who_waits_is_told_when_the_manager_is_stopped_and_killed(manager):
    queue, failures, begun = manager.Queue(), [], threading.Event()

    def get():
        queue.empty()
        begun.set()
        try:
            queue.get()
        except ManagerDied as error:
            failures.append(error)

    thread = threading.Thread(target=get)
    thread.start()
    begun.wait()
    os.kill(manager._process.pid, signal.SIGSTOP)
    os.kill(manager._process.pid, signal.SIGKILL)
    thread.join()
    assert failures[0].pid == manager._process.pid


def test_a_line_is_one_threads(manager):
    queue = manager.Queue()
    way = way_of(queue)
    queue._tls.idle.clear()
    thread = threading.Thread(target=way.call, args=(queue._id, "get", (), {}))
    thread.start()
    until(lambda: not way.usable())
    with pytest.raises(RuntimeError, match="in use by another call"):
        way.call(queue._id, "qsize", (), {})
    queue.put("through another way")
    thread.join()
    assert way.usable() and way.call(queue._id, "qsize", (), {}) == ("#RETURN", 0)
    way.close()
    assert not way.usable()
    with pytest.raises(OSError, match="closed"):
        way.call(queue._id, "qsize", (), {})


def test_messages_of_any_kind(manager):
    same = manager.Counter().same
    big = [b"x" * size for size in (0, 1, 4096, 65_536, 65_537, 1 << 20)]
    everything = [1, -(2**70), 2.5, None, True, "é" * 50_000, {"k": (1, [2])}, *big]
    assert same(*everything, last=bytearray(100_000)) == (
        tuple(everything),
        {"last": bytearray(100_000)},
    )
    shared = [1]
    args, _ = same([shared, shared])
    assert args[0][0] is args[0][1], "what was one object stays one"
    loop = []
    loop.append(loop)
    args, _ = same(loop)
    assert args[0][0] is args[0]


@pytest.mark.parametrize("spin", ["0", "40", "2000"])
def test_spinning_or_not(tmp_path, monkeypatch, spin):
    monkeypatch.setenv("OXGANG_SPIN", spin)
    address = str(tmp_path / "socket")
    (tmp_path / "server").mkdir()
    words = HERE / "managing.py", "serve", "oxgang", address
    server = Program(tmp_path / "server", *words)
    server.wait_for_line("serving")
    (tmp_path / "visitor").mkdir()
    program = Program(tmp_path / "visitor", HERE / "managing.py", "visit", "oxgang", address)
    assert program.end() == (0, "")
    server.signal(signal.SIGTERM)
    server.end()
