"""Managers, their proxies, and who may use them: as in the standard library, and what it lacks."""

import gc
import multiprocessing
import os
import pickle
import signal
import threading
import time

import managing
import oxgang.multiprocessing as ours
import pytest
from managing import Counter
from oxgang.errors import ManagerDied
from oxgang.multiprocessing import managers
from oxgang.multiprocessing.context import ProcessError
from programs import HERE, Program, gone

METHODS = ("fork", "spawn", "forkserver")


@pytest.fixture(params=managing.KINDS)
def module(request):
    return managing.KINDS[request.param]


@pytest.fixture
def manager(module):
    with managing.registered(module)() as manager:
        yield manager


@pytest.fixture
def own():
    with managing.registered(managers)() as manager:
        yield manager


# -- types ---------------------------------------------------------------------------------


def test_dicts(manager):
    items = manager.dict({"a": 1}, b=2)
    items["c"] = [1, (None, 2.5), {"x": b"y"}]
    assert items["c"] == [1, (None, 2.5), {"x": b"y"}]
    assert len(items) == 3 and "a" in items and "z" not in items
    assert items.get("z") is None and items.get("z", 5) == 5
    assert items.pop("a") == 1 and items.setdefault("d", 4) == 4
    items.update({"e": 5})
    assert sorted(items.keys()) == ["b", "c", "d", "e"] == sorted(items)
    del items["c"]
    assert items.copy() == {"b": 2, "d": 4, "e": 5} == dict(items.items())
    assert str(items) == str({"b": 2, "d": 4, "e": 5})
    assert repr(items).startswith("<DictProxy object, typeid 'dict' at")
    with pytest.raises(KeyError):
        items["z"]


def test_lists(manager):
    numbers = manager.list(range(3))
    numbers += [5]
    numbers *= 2
    numbers.append(7)
    numbers[0] = "first"
    assert numbers[:] == ["first", 1, 2, 5, 0, 1, 2, 5, 7]
    numbers.remove("first")
    numbers.sort(reverse=True)
    assert numbers[0] == 7 and len(numbers) == 8 and numbers.index(5) == 1
    assert [*reversed(numbers[:2])] == [5, 7]
    assert numbers + [1] == [*numbers, 1]  # noqa: RUF005 the method is meant
    with pytest.raises(IndexError):
        numbers[99]


def test_the_others(manager):
    space = manager.Namespace(x=1)
    space.y = "two"
    del space.x
    assert space.y == "two" and not hasattr(space, "x")
    number, numbers = manager.Value("i", 3), manager.Array("d", [1, 2])
    number.value += 1
    numbers[1] = 2.5
    assert number.value == 4 and list(numbers[:]) == [1, 2.5] and len(numbers) == 2
    queue = manager.Queue(1)
    queue.put("item")
    assert queue.full() and queue.get() == "item"
    event, barrier = manager.Event(), manager.Barrier(1)
    assert not event.wait(0)
    event.set()
    assert event.is_set() and event.wait() and barrier.wait() == 0 and barrier.parties == 1
    lock = manager.RLock()
    with lock, lock:
        pass
    semaphore = manager.BoundedSemaphore(1)
    assert semaphore.acquire() and not semaphore.acquire(False)
    semaphore.release()
    with pytest.raises(ValueError, match="released too many"):
        semaphore.release()


def test_a_condition_wakes_who_waits(manager):
    condition, turn = manager.Condition(), manager.Value("i", 0)

    def wait():
        with condition:
            assert condition.wait_for(lambda: turn.value == 1, 60)
            turn.value = 2

    thread = threading.Thread(target=wait)
    thread.start()
    with condition:
        turn.value = 1
        condition.notify_all()
    thread.join()
    assert turn.value == 2


def test_pools(manager):
    with manager.Pool(1) as pool:
        assert pool.map(abs, [-1, 2]) == [1, 2]
        assert pool.apply_async(abs, (-3,)).get() == 3
        assert list(pool.imap(abs, [-4])) == [4]


def test_sets_as_in_3_14(own):
    numbers = own.set([1, 2])
    numbers.add(3)
    numbers |= {4, 5}
    numbers &= {2, 3, 4, 9}
    numbers -= {4}
    numbers ^= {3, 8}
    assert sorted(numbers) == [2, 8] and 8 in numbers and len(numbers) == 2
    assert numbers | {1} == {1, 2, 8} and {1} | numbers == {1, 2, 8}
    assert numbers.union([5]) == {2, 5, 8} and numbers.isdisjoint([1])


def test_dicts_and_lists_as_in_3_14(own):
    items, numbers = own.dict(a=1), own.list([1])
    items |= {"b": 2}
    assert items | {"c": 3} == {"a": 1, "b": 2, "c": 3}
    assert {"a": 0} | items == {"a": 1, "b": 2}
    assert list(reversed(items)) == ["b", "a"]
    assert items.fromkeys([1]) == {1: None}
    assert numbers.copy() == [1]
    numbers.clear()
    assert len(numbers) == 0


def test_proxies_are_the_standard_ones_to_who_looks(own):
    items = own.dict()
    assert isinstance(items, multiprocessing.managers.DictProxy)
    assert isinstance(own, multiprocessing.managers.SyncManager) is False
    assert isinstance(own, multiprocessing.managers.BaseManager)


# -- nesting -------------------------------------------------------------------------------


def test_proxies_nest(manager):
    outer, inner, deep = manager.dict(), manager.dict(), manager.list()
    outer["inner"], inner["deep"] = inner, deep
    outer["inner"]["deep"].append(1)
    assert list(deep) == [1]
    del inner, deep
    gc.collect()
    assert list(outer["inner"]["deep"]) == [1]
    process = multiprocessing.get_context("fork").Process(target=managing.nest, args=(outer,))
    process.start()
    process.join()
    assert outer["inner"]["deep"][:] == [1, "from afar"]


def test_what_nobody_has_a_proxy_of_goes(manager):
    before = manager._number_of_objects()
    kept = manager.list()
    lost = manager.dict()
    assert manager._number_of_objects() == before + 2
    del lost
    gc.collect()
    assert manager._number_of_objects() == before + 1
    assert kept[:] == []


def test_what_was_in_another_object_goes_with_it(own):
    counter, items = own.Counter(), own.dict()
    before = counter.alive()
    for _ in range(5):
        items["held"] = own.Counter()
        items["held"] = own.list([own.Counter()])
    gc.collect()
    assert counter.alive() == before + 1
    assert items["held"][0].add() == 1
    items["again"] = items["held"][0]
    del items["held"]
    assert items["again"].add() == 2
    items.clear()
    assert counter.alive() == before


# -- types of one's own --------------------------------------------------------------------


def test_public_methods_are_exposed(manager):
    counter = manager.Counter(3)
    assert counter.add(by=2) == 5
    assert counter.same(1, k=2) == ((1,), {"k": 2})
    assert not hasattr(counter, "_hidden")
    with pytest.raises(LookupError, match="as told"):
        counter.fail("as told")
    assert counter.pid() not in (os.getpid(), None)


def test_what_is_not_exposed_is_refused(module):
    with managing.registered(module, exposed=("add",))() as manager:
        counter = manager.Counter()
        assert counter.add() == 1
        assert not hasattr(counter, "same")
        with pytest.raises(module.RemoteError, match="exposed"):
            counter._callmethod("same")


def test_results_may_stay_there(module):
    options = {"method_to_typeid": {"up_to": "iterator"}}
    with managing.registered(module, **options)() as manager:
        assert list(manager.Counter(2).up_to(5)) == [2, 3, 4]


def test_a_proxy_type_of_ones_own(module):
    class CounterProxy(module.MakeProxyType("Base", ("add", "same"))):
        def twice(self):
            self.add()
            return self.add()

    with managing.registered(module, proxytype=CounterProxy)() as manager:
        assert manager.Counter(1).twice() == 3
    made = module.MakeProxyType("Base", ("add", "same"))
    assert made is module.MakeProxyType("Base", ("add", "same"))


def test_a_callable_that_makes_one_for_all(module):
    one = Counter()
    Manager = managing.registered(module)
    Manager.register("the_one", callable=lambda: one)
    server = Manager(None, b"key").get_server()
    threading.Thread(target=server.accepter, daemon=True).start()
    server.stop_event = threading.Event()
    manager = Manager(server.address, b"key")
    manager.connect()
    first, second = manager.the_one(), manager.the_one()
    assert first.add() == 1 and second.add() == 2 and one.value == 2
    del first, second
    gc.collect()
    server.stop_event.set()


def test_errors_come_with_the_servers_traceback(manager, module):
    with pytest.raises(module.RemoteError, match="not made"):
        manager.Failing()
    with pytest.raises(module.RemoteError, match=r"Unserializable|pickle"):
        manager.Counter().unpicklable()
    with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
        manager.dict()["lock"] = threading.Lock()
    assert manager.Counter(1).add() == 2


def test_states(module):
    manager = module.SyncManager()
    manager.start()
    for again in (manager.start, manager.get_server):
        with pytest.raises(ProcessError, match="Already started"):
            again()
    manager.shutdown()
    manager.join(60)
    for again in (manager.start, manager.get_server):
        with pytest.raises(ProcessError, match="shut down"):
            again()


# -- other processes and threads -----------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_proxies_pass_to_processes(module, method):
    context = multiprocessing.get_context(method)
    if module is managers:
        context = ours.get_context(method)
    with module.SyncManager(ctx=context) as manager:
        items, queue, space = manager.dict(), manager.Queue(), manager.Namespace(count=0)
        lock = manager.Lock()
        process = context.Process(target=managing.put_items, args=(items, queue, 20))
        process.start()
        assert queue.get() == process.pid
        adders = [
            context.Process(target=managing.count_up, args=(lock, space, 50)) for _ in range(2)
        ]
        for adder in adders:
            adder.start()
        for one in (process, *adders):
            one.join()
            assert one.exitcode == 0
        assert items == {} or items.copy() == {n: n * n for n in range(20)}
        assert space.count == 100


def test_a_process_that_knows_no_manager_can_iterate(own):
    items, found = own.dict(a=1, b=2), own.list()
    process = ours.get_context("fork").Process(target=managing.keys_of, args=(items, found))
    process.start()
    process.join()
    assert found[:] == ["a", "b"]


def test_manager_of_a_context():
    with ours.Manager() as manager:
        assert isinstance(manager, managers.SyncManager)
        assert manager.list([1])[:] == [1]
    with ours.get_context("spawn").Manager() as manager:
        assert manager.dict(a=1)["a"] == 1


def test_many_threads(manager):
    items, lock = manager.dict(count=0), manager.Lock()

    def work():
        for _ in range(50):
            with lock:
                items["count"] += 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert items["count"] == 400


def test_an_rlock_is_the_threads(manager):
    lock = manager.RLock()
    lock.acquire()
    found = []
    thread = threading.Thread(target=lambda: found.append(lock.acquire(False)))
    thread.start()
    thread.join()
    assert found == [False] and lock.acquire(False)
    with pytest.raises((pickle.PicklingError, TypeError, AttributeError)):
        lock._callmethod("acquire", (threading.Lock(),))  # leaves the way as it was
    lock.release()
    lock.release()


def test_a_fork_has_ways_of_its_own(own):
    items = own.dict()
    items["before"] = 0
    child = os.fork()
    if child == 0:
        status = 1
        try:
            for number in range(200):
                items["child"] = number
                assert items["child"] == number
            status = 0
        finally:
            os._exit(status)
    for number in range(200):
        items["parent"] = number
        assert items["parent"] == number
    assert os.waitpid(child, 0)[1] == 0
    assert items.copy() == {"before": 0, "child": 199, "parent": 199}


def test_large_values(manager):
    items = manager.dict()
    for size in (1 << 12, 1 << 16, 1 << 18, (1 << 20) + 1, 5 << 20):
        items["big"] = bytes(size)
        assert items["big"] == bytes(size)
    many = list(range(100_000))
    items["many"] = many
    assert items["many"] == many
    items["text"] = "é" * 300_000
    assert items["text"] == "é" * 300_000


# -- interrupted ---------------------------------------------------------------------------


class Stop(Exception):
    pass


@pytest.fixture
def alarm():
    """Calls a function by a signal, soon."""
    handlers = []
    before = signal.signal(signal.SIGUSR1, lambda *_: handlers[-1]())

    def call(handler):
        handlers.append(handler)
        own_pid = os.getpid()
        threading.Timer(0.2, lambda: os.kill(own_pid, signal.SIGUSR1)).start()

    yield call
    signal.signal(signal.SIGUSR1, before)


def test_a_call_that_was_interrupted_leaves_no_answer_for_the_next(own, alarm):
    def stop():
        raise Stop

    queue, items = own.Queue(), own.dict(a=1)
    alarm(stop)
    with pytest.raises(Stop):
        queue.get()
    assert items["a"] == 1
    queue.put("for the call that was given up")
    assert items.get("b") is None and len(items) == 1


def test_a_signal_handler_may_call(own, alarm):
    queue = own.Queue()
    alarm(lambda: queue.put("from the handler"))
    assert queue.get() == "from the handler"


# -- ends ----------------------------------------------------------------------------------


def test_a_dead_manager(own):
    items, queue = own.dict(a=1), own.Queue()
    assert items["a"] == 1
    failures = []

    def get():
        try:
            queue.get()
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=get)
    thread.start()
    while own._process.is_alive() and not failures:
        if own._debug_info():  # it serves; the other thread may be in its call by now
            time.sleep(0.05)
            os.kill(own._process.pid, signal.SIGKILL)
            break
    thread.join()
    pid = own._process.pid
    for _ in range(2):
        with pytest.raises(ManagerDied, match="ended") as caught:
            items["a"]
        assert isinstance(caught.value, (EOFError, ConnectionError))
    with pytest.raises(ManagerDied):
        own.list()
    assert isinstance(failures[0], ManagerDied) and failures[0].pid == pid
    assert f"process ({pid}) has ended" in str(failures[0])
    again = pickle.loads(pickle.dumps(failures[0]))
    assert (str(again), again.pid) == (str(failures[0]), pid)
    address = own.address
    own.shutdown()
    assert not os.path.exists(address)


def test_a_manager_that_cannot_start(module):
    manager = module.SyncManager()
    with pytest.raises(EOFError):
        manager.start(managing.crash_start)
    if manager._process is not None:
        manager._process.join()
    if module is managers:
        manager = module.SyncManager()
        with pytest.raises(ManagerDied, match="exit code 7"):
            manager.start(managing.crash_start)


def test_an_initializer(module):
    manager = module.SyncManager()
    manager.start(os.putenv, ("A_NAME", "a value"))
    manager.shutdown()
    with pytest.raises(TypeError):
        module.SyncManager().start("no callable")


@pytest.mark.parametrize("method", (*METHODS, "template"))
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_manager_ends_with_its_owner(tmp_path, number, method):
    program = Program(tmp_path, HERE / "managing.py", "own_and_wait", "oxgang", method)
    words = program.wait_for_line("manager").split()
    manager, address = int(words[1]), words[2]
    assert words[3] == "1"
    program.signal(number)
    program.kill_it_alone()
    while not gone(manager):
        time.sleep(0.01)
    while os.path.exists(address):
        time.sleep(0.01)


# -- strangers -----------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["tcp", "unix", "abstract"])
@pytest.mark.parametrize("visitor", managing.KINDS)
@pytest.mark.parametrize("server", managing.KINDS)
def test_the_standard_library_is_served_either_way_round(tmp_path, server, visitor, where):
    address = {
        "tcp": ("127.0.0.1", 0),
        "unix": str(tmp_path / "socket"),
        "abstract": f"\0oxgang-test-{os.getpid()}",
    }[where]
    module = managing.KINDS[server]
    manager = managing.registered(module)(address, b"key")
    if server == "standard":
        manager.start(managing.use_key, (b"key",))
    with manager:
        where = manager.address
        if isinstance(where, tuple):
            where = f"{where[0]}:{where[1]}"
        else:
            where = os.fsdecode(where).replace("\0", "@")
        (tmp_path / "visitor").mkdir()
        words = HERE / "managing.py", "visit", visitor, where
        program = Program(tmp_path / "visitor", *words)
        assert program.end() == (0, "")
    manager.join()


def test_a_server_of_ones_own(tmp_path):
    address = str(tmp_path / "socket")
    program = Program(tmp_path, HERE / "managing.py", "serve", "oxgang", address)
    program.wait_for_line("serving")
    managing.visit(managers, address)
    program.signal(signal.SIGTERM)
    program.end()


def test_another_authkey(manager, module):
    other = module.SyncManager(manager.address, b"another key")
    with pytest.raises(multiprocessing.AuthenticationError, match="digest"):
        other.connect()
    assert manager.dict(a=1)["a"] == 1


def test_nobody_there(module, tmp_path):
    with pytest.raises(OSError):
        module.SyncManager(str(tmp_path / "nothing"), b"key").connect()


def test_xml(module):
    manager = managing.registered(module)(("127.0.0.1", 0), b"key", serializer="xmlrpclib")
    with manager:
        counter = manager.Counter(1)
        assert counter.add(2) == 3
