"""Values and arrays with a lock: as the standard ones, and on locks of ours."""

import ctypes
import multiprocessing as standard
import threading

import oxgang.multiprocessing as ours
import pytest
import synchronizing
from oxgang.multiprocessing import sharedctypes
from oxgang.multiprocessing.synchronize import RLock


@pytest.fixture(params=[standard, ours], ids=["standard", "oxgang"])
def module(request):
    return request.param


class Point(ctypes.Structure):
    _fields_ = (("x", ctypes.c_double), ("y", ctypes.c_double))


CODES = "bBhHiIlLqQfd"


@pytest.mark.parametrize("code", CODES)
def test_numbers(module, code):
    value = module.Value(code, 7)
    assert value.value == 7
    value.value = 9
    with value.get_lock():
        value.value += 1
    assert value.value == value.get_obj().value == 10
    array = module.Array(code, [1, 2, 3])
    assert (len(array), array[0], array[-1], array[1:], list(array)) == (3, 1, 3, [2, 3], [1, 2, 3])
    array[1] = 20
    array[2:] = [30]
    assert array[:] == [1, 20, 30]
    for wrong in (3, -4):
        with pytest.raises(IndexError):
            array[wrong]
        with pytest.raises(IndexError):
            array[wrong] = 0
    with pytest.raises(TypeError):
        array[0] = "no number"
    # an error has given the lock back
    assert array.get_lock().acquire(False)


def test_numbers_wrap_as_ctypes_does(module):
    value = module.Value("b", 0)
    value.value = 200
    assert value.value == -56


def test_strings_and_structures(module):
    string = module.Array("c", 5)
    string.value = b"abc"
    assert (string.value, string.raw) == (b"abc", b"abc\0\0")
    point = module.Value(Point, 1, 2)
    point.x += 10
    assert (point.x, point.y) == (11, 2)
    assert module.Value("c", b"x").value == b"x"
    assert module.Array("i", 0)[:] == []


def test_locks(module):
    lock = module.Lock()
    value = module.Value("i", 3, lock=lock)
    assert value.get_lock() is lock
    assert isinstance(module.Value("i", 3, lock=False), ctypes.c_int)
    assert not hasattr(module.Array("i", 3, lock=False), "get_lock")
    with pytest.raises(AttributeError):
        module.Array("i", 3, lock="no lock")
    with value as entered:
        assert entered is True
        assert not lock.acquire(False)


def test_the_default_lock_is_ours():
    assert type(ours.Value("i", 0).get_lock()) is RLock
    with pytest.raises(AssertionError):
        sharedctypes.synchronized(ours.Value("i", 0))


def test_any_lock_will_do():
    value = ours.Value("i", 0, lock=standard.RLock())
    value.value = 3
    assert value.value == 3


def test_others_wait_while_it_is_locked():
    array, seen = ours.Array("i", [1]), []
    thread = threading.Thread(target=lambda: seen.append(array[0]))
    with array.get_lock():
        thread.start()
        thread.join(0.05)
        assert thread.is_alive()
        array[0] = 2
    thread.join()
    assert seen == [2]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_see_the_same(method):
    context = ours.get_context(method)
    array, value = context.Array("q", 1), context.Value("q", 0)
    arguments = (array.get_lock(), array, 2000)
    children = [context.Process(target=synchronizing.add, args=arguments) for _ in range(2)]
    children.append(context.Process(target=synchronizing.increment, args=(value, 2000)))
    for child in children:
        child.start()
    synchronizing.add(*arguments)
    synchronizing.increment(value, 2000)
    for child in children:
        child.join()
        assert child.exitcode == 0
        child.close()
    assert (array[0], value.value) == (6000, 4000)
