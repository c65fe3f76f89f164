"""Arrays and objects that are the same memory everywhere."""

import gc
import multiprocessing
import os
import pickle

import calls
import numpy
import pytest
from oxgang import shared
from oxgang.concurrent.futures import ProcessPoolExecutor

METHODS = ("template", "fork", "spawn", "forkserver")


def open_regions():
    """How many regions this process has open."""
    return calls.count_open("oxgang region")


@pytest.fixture(autouse=True)
def nothing_stays_open():
    gc.collect()
    shared.empty(1)  # whoever makes one looks after what was on its way
    before = open_regions()
    yield
    gc.collect()
    shared.empty(1)
    assert open_regions() == before


@pytest.fixture(params=METHODS)
def pool(request):
    context = None if request.param == "template" else multiprocessing.get_context(request.param)
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        yield pool


def test_everybody_writes_into_one_array(pool):
    array = shared.zeros((40, 1000), "i8")
    assert sorted(pool.map(calls.fill_row, [array] * 40, range(40))) == list(range(40))
    assert (array == numpy.arange(40)[:, None]).all()


def test_slices_pass_too(pool):
    array = shared.array(numpy.arange(10_000).reshape(100, 100))
    for part in (array[3:7], array[:, 50], array.T, array[::-2, ::3], array[5, 5:6]):
        back = pool.submit(calls.same, part).result()
        assert isinstance(back, shared.Array)
        numpy.testing.assert_array_equal(back, part)
        back += 1
        numpy.testing.assert_array_equal(back, part)  # it is the very same memory


def test_results_are_not_copied(pool):
    array = pool.submit(calls.make_shared, 1000, 7).result()
    assert isinstance(array, shared.Array) and (array == 7).all()
    pool.submit(calls.fill_and_sum, array, 8).result()
    assert (array == 8).all()


def test_a_result_outlives_its_worker_unread():
    with ProcessPoolExecutor(1) as pool:
        futures = [pool.submit(calls.make_shared, 1000, number) for number in range(5)]
        last = pool.submit(calls.leave, 3)
        assert last.exception() is not None
    assert [int(future.result()[-1]) for future in futures] == list(range(5))


def test_it_is_free_when_nobody_has_it():
    before = open_regions()
    with ProcessPoolExecutor(2) as pool:
        for number in range(50):
            array = shared.array([number] * 1000)
            assert pool.submit(calls.ends, array).result() == (number, number)
        assert max(pool.map(calls.count_open, ["oxgang region"] * 10)) <= 1
        del array
        shared.empty(1)
        assert open_regions() == before
        # dropped while it is on its way
        future = pool.submit(calls.ends, shared.array([5, 6]))
        gc.collect()
        assert future.result() == (5, 6)


def test_read_only_is_read_only_everywhere(pool):
    array = shared.array([1, 2, 3], readonly=True)
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 5
    with pytest.raises(ValueError, match="read-only"):
        pool.submit(calls.fill_and_sum, array, 1).result()
    for one in (array, array[1:], pool.submit(calls.same, array).result()):
        with pytest.raises(ValueError, match="WRITEABLE"):
            one.setflags(write=True)
    with pytest.raises(ValueError, match="WRITEABLE"):
        pool.submit(calls.unlock, array).result()
    assert array.tolist() == [1, 2, 3]
    kept = shared.share(numpy.zeros(1 << 16)).get()
    with pytest.raises(ValueError, match="WRITEABLE"):
        kept.setflags(write=True)


def test_what_is_computed_is_a_plain_array():
    array = shared.array([1.0, 2.0, 3.0])
    for made in (array + 1, numpy.sin(array), array.copy(), array.astype("i4"), array[array > 1]):
        assert getattr(made, "_region", None) is None
        assert pickle.loads(pickle.dumps(made)).tolist() == made.tolist()
    assert type(array + 1) is numpy.ndarray
    assert array.sum() == 6 and isinstance(array.sum(), float)
    array += 1
    assert isinstance(array, shared.Array) and array.tolist() == [2, 3, 4]


@pytest.mark.parametrize("shape", [(), 0, 5, (0, 3), (2, 3), (2, 0, 4)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_shapes(shape, order):
    array = shared.zeros(shape, "f4", order)
    usual = numpy.zeros(shape, "f4", order)
    assert (array.shape, array.dtype) == (usual.shape, usual.dtype)
    assert array.size == 0 or array.strides == usual.strides
    back = pickle.loads(pickle.dumps(array))
    assert (back.shape, back.dtype, back.tolist()) == (array.shape, array.dtype, usual.tolist())


def test_kinds():
    record = numpy.zeros(10, [("name", "S10"), ("count", ">i4")])
    record["count"] = range(10)
    fortran = numpy.asfortranarray(numpy.arange(12).reshape(3, 4))
    for source in (record, fortran, numpy.array(5), numpy.array(["text"]), [[1, 2], [3, 4]]):
        array = shared.array(source)
        numpy.testing.assert_array_equal(array, source)
        assert array.flags.f_contiguous == numpy.asarray(source).flags.f_contiguous


def test_an_object_is_stored_once(pool):
    data = numpy.arange(300_000)
    handle = shared.share({"data": data, "names": ["a", "b"], "more": data[:5]})
    as_sent = pickle.dumps(handle)
    assert len(as_sent) < 1000 and pickle.loads(as_sent) is not None
    assert set(pool.map(calls.sum_shared, [handle] * 10)) == {int(data.sum())}
    mine = handle.get()
    assert mine is handle.get() and mine["names"] == ["a", "b"]
    assert not mine["data"].flags.writeable
    numpy.testing.assert_array_equal(mine["data"], data)


def test_lambdas_can_be_shared():
    offset = 5
    handle = shared.share(lambda number: number + offset)
    with ProcessPoolExecutor(1) as pool:
        assert pool.submit(calls.call_shared, handle, 2).result() == 7


def test_through_a_fork():
    array = shared.zeros(10)
    pid = os.fork()
    if pid == 0:
        try:
            array[:] = 3
            del array
            gc.collect()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert (array == 3).all()


def test_bad_input():
    with pytest.raises(TypeError, match="Python objects"):
        shared.array([object()])
    with pytest.raises(ValueError, match="order"):
        shared.empty(3, order="K")
    with pytest.raises(ValueError, match="negative"):
        shared.empty((2, -1))
    with pytest.raises(MemoryError, match="shared memory"):
        shared.empty(1 << 60, "u1")


def test_one_that_has_gone_says_so():
    array = shared.array([1])
    data = pickle.dumps(array)
    assert pickle.loads(data).tolist() == [1]
    del array
    gc.collect()
    shared.empty(1)
    with pytest.raises(RuntimeError, match="did not arrive"):
        pickle.loads(data)
