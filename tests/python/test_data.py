"""Large data: what crosses arrives whole, is its receiver's own, and leaves nothing behind."""

import concurrent.futures as standard
import gc
import os
import pickle
import subprocess
import sys
import threading
import time
from functools import partial

import calls
import hypothesis
import numpy
import pandas
import polars
import pyarrow
import pytest
from hypothesis import strategies as st
from oxgang.concurrent.futures import ProcessPoolExecutor

BOTH = pytest.mark.parametrize("executor", [standard.ProcessPoolExecutor, ProcessPoolExecutor])
MB = 1 << 20
LONG = 3 * MB + 12345


def arrays():
    numbers = numpy.arange(LONG // 8, dtype="f8")
    record = numpy.dtype([("name", "S10"), ("count", "<i4"), ("rate", ">f8")])
    records = numpy.zeros(100_000, record)
    records["count"] = numpy.arange(len(records))
    frozen = numbers.copy()
    frozen.flags.writeable = False
    return {
        "plain": numbers,
        "matrix": numbers[: 600 * 600].reshape(600, 600),
        "fortran": numpy.asfortranarray(numbers[: 600 * 600].reshape(600, 600)),
        "strided": numbers[::3],
        "backwards": numbers[::-1],
        "transposed slice": numbers[: 600 * 600].reshape(600, 600)[10:500, 7:300].T,
        "records": records,
        "read-only": frozen,
        "read-only and small": frozen[:3],
        "small": numpy.arange(7),
        "empty": numpy.zeros((0, 1000, 1000)),
        "no dimension": numpy.array(3.5),
        "objects": numpy.array([{"a": 1}, None, "text", b"x" * 100_000], object),
        "texts": numpy.array(["\u03b1" * 50, "b"] * 2000),
        "complex": numbers.astype("c16"),
        "bool": numbers % 2 == 0,
        "datetime": numbers.astype("M8[s]"),
    }


@BOTH
@pytest.mark.parametrize("name", arrays())
def test_arrays_cross_whole(executor, name):
    array = arrays()[name]
    with executor(1) as pool:
        back = pool.submit(calls.same, array).result()
        facts, inside = pool.submit(calls.describe_and_keep, array, {"nested": [array]}).result()
    usual = pickle.loads(pickle.dumps(array))
    assert facts == calls.describe(back) == calls.describe(usual)
    for one in (back, inside["nested"][0]):
        numpy.testing.assert_array_equal(one, array)
        assert one.flags.writeable


@BOTH
@pytest.mark.parametrize("size", [0, 1, 65_535, 65_537, LONG])
@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_bytes_cross_whole(executor, kind, size):
    data = kind(os.urandom(size))
    with executor(1) as pool:
        for call in ((data,), ([data, 1], {"x": data})):
            back = pool.submit(calls.keywords, *call, key=data).result()
            assert back == (call, {"key": data})
            assert type(back[1]["key"]) is kind
        twice = pool.submit(calls.same, [data, data]).result()
        assert twice == [data, data]
        if kind is bytearray:
            assert twice[0] is twice[1], "one object stays one object"


@BOTH
def test_a_task_may_write_into_what_it_gets(executor):
    array = numpy.zeros(LONG, "u1")
    with executor(2) as pool:
        sums = list(pool.map(calls.fill_and_sum, [array] * 6, range(6)))
        assert sums == [number * LONG for number in range(6)]
        assert not array.any(), "what it writes is its own"
        back = pool.submit(calls.same, array).result()
        back[:] = 9
        assert not array.any() and not pool.submit(calls.same, array).result().any()


def test_a_call_sees_its_arguments_as_they_were_at_submit():
    array = numpy.zeros(LONG, "u1")
    with ProcessPoolExecutor(1) as pool:
        pool.submit(calls.nap, 0.05)
        futures = []
        for number in range(10):
            array[:] = number
            futures.append(pool.submit(calls.ends, array))
        assert [future.result() for future in futures] == [(n, n) for n in range(10)]


def test_a_read_only_array_stays_what_it_is_at_home():
    array = numpy.arange(LONG // 8)
    array.flags.writeable = False
    with ProcessPoolExecutor(1) as pool:
        # by value, too: a lambda goes another way
        back = pool.submit(lambda one, two: (one, two), array, array[:5]).result()
    for one, other in zip(back, (array, array[:5]), strict=True):
        one[:] += 1
        assert (one == other + 1).all()
    assert not array.flags.writeable and array[1] == 1


def test_what_is_sent_to_many_is_held_once(tmp_path):
    array = numpy.random.default_rng(5).integers(0, 255, 8 * MB, "u1")
    gate = tmp_path / "gate"
    with ProcessPoolExecutor(2) as pool:
        for _ in range(2):
            pool.submit(calls.wait_for_file, gate)
        futures = [pool.submit(calls.ends, array) for _ in range(20)]
        futures += [pool.submit(partial(calls.ends, array)) for _ in range(20)]
        held = pool.statistics()["held_bytes"]
        gate.touch()
        assert {future.result() for future in futures} == {calls.ends(array)}
        assert len(array) <= held < len(array) + MB
        assert pool.statistics()["held_bytes"] == 0


def test_what_is_returned_as_it_came_is_not_copied():
    """Nor is it wrong when something of it, or all, was written meanwhile."""
    array = numpy.arange(2 * MB, dtype="u1")
    with ProcessPoolExecutor(1) as pool:
        worker_grew = []
        backs = []
        for place in (None, 0, MB + 7, len(array) - 1):
            before = pool.submit(calls.written_bytes).result()
            back = pool.submit(calls.change_one, array, place).result()
            worker_grew.append(pool.submit(calls.written_bytes).result() - before)
            expected = array.copy()
            if place is not None:
                expected[place] ^= 255
            assert (back == expected).all()
            backs.append(back)
        assert worker_grew[0] == 0 and worker_grew[1] >= len(array)
        pair = pool.submit(calls.change_one, [array, array[::-1].copy()], None).result()
        assert (pair[0] == array).all() and (pair[1] == array[::-1]).all()
    gc.collect()
    first = backs[0]
    assert (first == array).all(), "the pool is gone"
    first[:] = 0
    assert array[1] == 1 and backs[1][1] == 1


def test_views_live_longer_than_their_task():
    with ProcessPoolExecutor(1) as pool:
        for number in range(5):
            assert pool.submit(calls.hold, numpy.full(LONG, number, "u1")).result() == number + 1
        for number in range(10, 20):
            pool.submit(calls.ends, numpy.full(LONG, number, "u1")).result()
        assert pool.submit(calls.held).result() == [(n, n) for n in range(5)]
        assert pool.statistics()["held_bytes"] >= 5 * LONG
        pool.submit(calls.let_go).result()
        pool.submit(calls.same, 1).result()  # what is free is told with the next answer
        assert pool.statistics()["held_bytes"] == 0


def test_results_live_longer_than_their_pool_and_their_worker():
    with ProcessPoolExecutor(1) as pool:
        results = [pool.submit(calls.full, LONG, number).result() for number in range(4)]
        unread = pool.submit(calls.full, LONG, 4)
        later = [pool.submit(calls.full, LONG, number).result() for number in range(5, 9)]
        with pytest.raises(Exception, match="exited with code 3"):
            pool.submit(calls.leave, 3).result()
        more = pool.submit(calls.full, LONG, 9).result()
    results += [unread.result(), *later, more]
    assert [calls.ends(one) for one in results] == [(n, n) for n in range(10)]
    assert all(one.flags.writeable for one in results)
    for one in results:
        one[:] += 1


def test_a_fork_goes_on_seeing_what_it_inherited():
    with ProcessPoolExecutor(1) as pool:
        array = pool.submit(calls.full, LONG, 7).result()
        ready, go = os.pipe(), os.pipe()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.write(ready[1], b"x")
                os.read(go[0], 1)
                code = 0 if calls.ends(array) == (7, 7) and (array == 7).all() else 2
            finally:
                os._exit(code)
        os.read(ready[0], 1)
        del array
        gc.collect()
        for number in range(6):  # would be written over what the child looks at
            assert calls.ends(pool.submit(calls.full, LONG, number).result()) == (number, number)
        os.write(go[1], b"x")
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        for fd in (*ready, *go):
            os.close(fd)


def memory_of(name):
    """Bytes of this process's shared memory of that name, as the kernel counts them."""
    found = {}
    for fd in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{fd}").startswith(f"/memfd:{name}"):
                facts = os.fstat(int(fd))
                found[facts.st_ino] = facts.st_blocks * 512
        except OSError:
            continue  # the listing's own
    return sum(found.values())


def test_memory_is_used_again():
    with ProcessPoolExecutor(2) as pool:
        seen = []
        for round_ in range(60):
            array = numpy.full(2 * MB, round_ % 200, "u1")
            for back in pool.map(calls.turned, [array, array + 1, array + 2]):
                assert len(back) == 2 * MB
            if round_ >= 10:
                seen.append(memory_of("oxgang"))
        assert pool.statistics()["held_bytes"] == 0
        # which worker gets what is chance: some rounds need a block more. Without reuse the
        # 50 rounds would have added 300 MB each way
        assert max(seen) - min(seen) <= 30 * MB


def test_idle_memory_goes_back():
    with ProcessPoolExecutor(1) as pool:
        for _ in range(3):
            pool.submit(calls.same, numpy.ones(64 * MB, "u1")).result()
        while memory_of("oxgang") > 2 * 24 * MB:  # what is kept warm, for owner and worker
            time.sleep(0.05)
        back = pool.submit(calls.same, numpy.full(64 * MB, 5, "u1")).result()
        assert (back == 5).all()


# -- more than the pool may hold ----------------------------------------------------------


def test_more_than_may_be_held_is_encoded_late(tmp_path):
    gate = tmp_path / "gate"
    gate_open = threading.Event()
    with ProcessPoolExecutor(2, arena_bytes=4 * MB) as pool:
        for _ in range(2):
            pool.submit(calls.wait_for_file, gate)
        futures = [pool.submit(calls.ends, numpy.full(MB, n, "u1")) for n in range(40)]
        futures += [pool.submit(calls.length, {n: "x" * MB}) for n in range(20)]
        futures += [pool.submit(calls.length, key) for key in ("short", "plain")]
        held = pool.statistics()["held_bytes"]
        futures[-1].add_done_callback(lambda _: gate_open.set())
        gate.touch()
        results = [future.result() for future in futures]
        assert gate_open.wait(60)
    assert 4 * MB <= held < 6 * MB
    assert results == [(n, n) for n in range(40)] + [1] * 20 + [5, 5]


def test_late_calls_keep_their_order(tmp_path):
    log = tmp_path / "log"
    with ProcessPoolExecutor(1, arena_bytes=0) as pool:
        for number in range(30):
            pool.submit(calls.append_line, log, number, [b"x" * 100] * number)
    assert log.read_text().split() == [str(number) for number in range(30)]


def test_late_calls_can_be_cancelled_and_can_fail(tmp_path):
    gate = tmp_path / "gate"
    with ProcessPoolExecutor(1, arena_bytes=0) as pool:
        running = pool.submit(calls.wait_for_file, gate)
        bad = pool.submit(calls.same, threading.Lock())
        good = pool.submit(calls.same, {1, 2})
        cancelled = [pool.submit(calls.same, {number}) for number in range(20)]
        assert all(one.cancel() for one in cancelled)
        gate.touch()
        assert running.result() is None
        with pytest.raises(TypeError, match="pickle"):
            bad.result()
        assert good.result() == {1, 2}
    with ProcessPoolExecutor(1, arena_bytes=0) as pool:
        futures = [pool.submit(calls.same, {number}) for number in range(50)]
        pool.shutdown(cancel_futures=True)
        assert all(one.cancelled() or one.result() == {n} for n, one in enumerate(futures))


def test_late_calls_survive_a_crash():
    with ProcessPoolExecutor(2, arena_bytes=0) as pool:
        futures = [
            pool.submit(calls.leave, 1) if n % 7 == 3 else pool.submit(calls.same, {n})
            for n in range(60)
        ]
        for n, future in enumerate(futures):
            if n % 7 == 3:
                assert future.exception() is not None
            else:
                assert future.result() == {n}


@pytest.mark.parametrize("value, error", [(-1, ValueError), ("1MB", TypeError), (1.5, TypeError)])
def test_a_bad_bound_is_refused(value, error):
    with pytest.raises(error, match="arena_bytes"):
        ProcessPoolExecutor(1, arena_bytes=value)


# -- plain values --------------------------------------------------------------------------

texts = st.text(max_size=5) | st.sampled_from(["x" * 200, "key", "\ud800", "y" * 70_000])
blobs = st.binary(max_size=5) | st.sampled_from([b"x" * 200, b"y" * 5000, b"z" * 70_000])
numbers = st.integers() | st.floats(allow_nan=False) | st.sampled_from([2**63, -(2**63), 127, -129])
leaves = st.none() | st.booleans() | numbers | texts | blobs
keys = st.integers() | st.text(max_size=3) | st.tuples(st.integers(), st.text(max_size=2))
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(keys, inner, max_size=5)
        | st.tuples(inner, inner)
        # the same object more than once
        | inner.map(lambda one: [one, one, (one,)])
        | inner.map(lambda one: (one, one))
    ),
    max_leaves=30,
)


def shape(value, known):
    """What a value is, and which of its objects are one: what a pickle brings back."""
    if isinstance(value, (list, tuple, dict)) or (
        isinstance(value, (str, bytes, bytearray)) and len(value) > 128
    ):
        if value != () and id(value) in known:
            return "again", known[id(value)]
        known[id(value)] = len(known)
    if isinstance(value, dict):
        return dict, [(shape(key, known), shape(one, known)) for key, one in value.items()]
    if isinstance(value, (list, tuple)):
        return type(value), [shape(one, known) for one in value]
    return type(value), repr(value)


@pytest.fixture(scope="module")
def shared_pool():
    with ProcessPoolExecutor(1) as pool:
        yield pool


@hypothesis.given(values)
@hypothesis.settings(max_examples=150, deadline=None)
def test_plain_values_come_back_as_pickle_brings_them(shared_pool, value):
    usual = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(value))))
    back = shared_pool.submit(calls.same, value).result()
    assert back == usual
    assert shape(back, {}) == shape(usual, {})


@BOTH
def test_large_plain_values_cross_whole(executor):
    rows = [{"number": n, "name": f"row {n}", "pair": (n, n / 2)} for n in range(20_000)]
    blobs = [bytes([n % 256]) * 10_240 for n in range(500)]
    loop = [1]
    loop.append(loop)
    deep = 1
    for _ in range(40):
        deep = [deep, (deep,)] if not isinstance(deep, list) else (deep,)
    with executor(1) as pool:
        for value in (rows, blobs, [blobs, rows], {n: None for n in range(100_000)}, deep):
            assert pool.submit(calls.same, value).result() == value
        back = pool.submit(calls.same, loop).result()
    assert back[0] == 1 and back[1] is back


# -- frames of other libraries ----------------------------------------------------------------


def frames():
    count = 400_000
    numbers = numpy.arange(count)
    texts = [f"text {number % 997}" for number in range(count)]
    columns = {"number": numbers, "rate": numbers / 7, "text": texts}
    return {
        "pandas": pandas.DataFrame(columns),
        "pandas series": pandas.Series(numbers / 3, index=numbers[::-1].copy()),
        "pandas of arrow": pandas.DataFrame({"a": pandas.array(numbers, dtype="int64[pyarrow]")}),
        "arrow table": pyarrow.table(columns),
        "arrow array": pyarrow.array(numbers),
        "polars": polars.DataFrame(columns),
    }


@BOTH
@pytest.mark.parametrize("name", frames())
def test_frames_cross_whole(executor, name):
    frame = frames()[name]
    with executor(1) as pool:
        back = pool.submit(calls.same, frame).result()
        again = pool.submit(calls.same, back).result()
    assert type(back) is type(frame) and back.equals(frame) and again.equals(frame)


@pytest.mark.parametrize("name", [name for name in frames() if name != "polars"])
def test_frames_that_many_calls_get_are_held_once(name, tmp_path):
    frame = frames()[name]
    size = sum(buffers_of(frame).values())
    assert size > 2 * MB
    with ProcessPoolExecutor(1) as pool:
        pool.submit(calls.wait_for_file, tmp_path / "gate")
        futures = [pool.submit(calls.same, frame) for _ in range(5)]
        held = pool.statistics()["held_bytes"]
        (tmp_path / "gate").touch()
        assert all(future.result().equals(frame) for future in futures)
    assert size <= held < size + MB


def buffers_of(obj):
    """What pickle, at protocol 5, would leave out of band: bytes by address."""
    found = []
    pickle.dumps(obj, 5, buffer_callback=lambda buffer: found.append(buffer.raw()))
    return {numpy.frombuffer(part, "u1").ctypes.data: part.nbytes for part in found}


@BOTH
@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_more_long_values_than_may_go_apart_cross_whole(executor, kind):
    with executor(1) as pool:
        for count in (511, 512, 513, 700):
            values = [kind([n % 256]) * 66_000 for n in range(count)]
            values.append(values[0])  # the same object once more
            back = pool.submit(calls.same, values).result()
            assert back == values
            assert {type(value) for value in back} == {kind}
            assert back[-1] is back[0]


# -- forks -----------------------------------------------------------------------------------

BUSY = """
import os, signal, threading
import numpy, oxgang
from oxgang import shared
from oxgang.concurrent.futures import ProcessPoolExecutor
def same(value):
    return value
def made():
    return [shared.zeros(10) for _ in range(20)]
pool = ProcessPoolExecutor(2)
kept = [pool.submit(same, numpy.ones(1 << 17)).result() for _ in range(3)]
over = False
def keep_busy():
    while not over:
        futures = [pool.submit(made) for _ in range(4)]
        futures += [pool.submit(same, bytes(300_000)) for _ in range(4)]
        for future in futures:
            future.result()
threads = [threading.Thread(target=keep_busy) for _ in range(2)]
for thread in threads:
    thread.start()
for _ in range(60):
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        shared.zeros(10)
        queue = oxgang.Queue()
        queue.put(1)
        assert queue.get() == 1
        assert kept.pop().sum() == 1 << 17
        kept.clear()
        try:
            pool.submit(same, bytes(300_000))
        except RuntimeError:
            os._exit(0)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    if status:
        break
over = True
for thread in threads:
    thread.join()
pool.shutdown()
raise SystemExit(status)
"""


def test_a_fork_takes_no_lock_along_that_a_thread_has():
    subprocess.run([sys.executable, "-W", "ignore", "-c", BUSY], timeout=100, check=True)


FORK = """
import gc, os
import numpy
from oxgang.concurrent.futures import ProcessPoolExecutor
pool = ProcessPoolExecutor(1)
sent = numpy.ones(1 << 20)
back = pool.submit(lambda value: value, sent).result()
child = os.fork()
if child == 0:
    os._exit(0)
os.waitpid(child, 0)
def memory():
    folder = "/proc/self/fd"
    for number in os.listdir(folder):
        try:
            yield os.readlink(f"{folder}/{number}")
        except FileNotFoundError:
            pass  # the folder's own
assert any("oxgang pool" in name for name in memory())
pool.shutdown()
del back, sent, pool
gc.collect()
assert not any("oxgang pool" in name for name in memory())
"""


def test_a_pool_that_was_alive_at_a_fork_leaves_no_memory():
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORK], timeout=50, check=True)
