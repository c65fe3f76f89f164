"""`oxgang.map` and `Executor.map`: what they yield, in which order, and what they raise.

What the standard `Executor.map` promises too runs on the standard executors as well. How the
flow is bounded is in test_flow.py, how an iteration ends in test_map_ends.py.
"""

import gc
import threading
import weakref
from functools import partial
from itertools import count

import oxgang
import pytest
from pools import MAKERS
from tasks import (
    Inputs,
    add,
    fail_at_seven,
    fail_at_seven_counted,
    parcel,
    raise_timeout,
    square,
    wait_for_go,
)


@pytest.fixture(params=[*MAKERS, "map-thread", "map-process"])
def run_map(request):
    """map(fn, *iterables, timeout=None), of an executor or our function."""
    if request.param.startswith("map-"):
        yield partial(oxgang.map, model=request.param.removeprefix("map-"), max_workers=2)
    else:
        with MAKERS[request.param]() as pool:
            yield pool.map


# What the standard library promises as well.


def test_results_are_in_order(run_map):
    assert list(run_map(square, range(100))) == [number * number for number in range(100)]


def test_no_items(run_map):
    assert list(run_map(square, [])) == []


def test_shortest_iterable_ends_it(run_map):
    assert list(run_map(add, [1, 2, 3], [10, 20])) == [11, 22]
    assert list(run_map(add, range(3), range(50, 100))) == [50, 52, 54]


def test_failure_comes_after_the_results_before_it(run_map):
    results = run_map(fail_at_seven, range(40))
    assert [next(results) for _ in range(7)] == list(range(7))
    with pytest.raises(LookupError, match="seven"):
        next(results)
    assert list(results) == []


def test_not_iterable_is_refused_at_the_call(run_map):
    with pytest.raises(TypeError, match="int"):
        run_map(square, 5)


def test_it_begins_at_the_call(run_map, folder):
    results = run_map(partial(wait_for_go, folder), range(2))
    folder.wait_for("begun-0")
    folder.mark("go")
    assert list(results) == [0, 1]


def test_timeout_is_for_the_whole(run_map, folder):
    results = run_map(partial(wait_for_go, folder), range(2), timeout=0.05)
    with pytest.raises(TimeoutError):
        next(results)
    folder.mark("go")


def test_generous_timeout_changes_nothing(run_map):
    assert list(run_map(square, range(20), timeout=3600)) == [n * n for n in range(20)]


def test_timeout_error_of_a_task_is_its_own(run_map):
    with pytest.raises(TimeoutError, match="of the task 0"):
        next(run_map(raise_timeout, range(3)))


def test_results_are_not_held(run_map):
    for result in run_map(parcel, range(10)):
        watched = weakref.ref(result)
        del result
        assert watched() is None


def test_map_within_threads(run_map):
    def within():
        sums.append(sum(run_map(square, range(50))))

    sums = []
    threads = [threading.Thread(target=within) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sums == [sum(number * number for number in range(50))] * 4


# Ours.


def test_every_engine_yields_everything(model, engine):
    results = oxgang.map(square, range(300), model=model, max_workers=2, **engine)
    expected = [number * number for number in range(300)]
    if engine["ordered"]:
        assert list(results) == expected
    else:
        assert sorted(results) == expected


def test_every_engine_with_several_iterables(model, engine):
    results = oxgang.map(add, count(), range(5), model=model, max_workers=2, **engine)
    assert sorted(results) == [0, 2, 4, 6, 8]


def test_every_engine_with_no_items(engine):
    assert list(oxgang.map(square, [], **engine)) == []


def test_inputs_that_raise_come_after_the_results_before(model, engine):
    inputs = Inputs(fail_at=30, error=LookupError("no more"))
    results = oxgang.map(square, inputs, model=model, max_workers=2, **engine)
    got = []
    with pytest.raises(LookupError, match="no more"):
        for result in results:
            got.append(result)
    assert sorted(got) == [number * number for number in range(30)]


def test_inputs_that_raise_at_once_raise_at_the_call(engine):
    inputs = Inputs(fail_at=0, error=LookupError("nothing"))
    with pytest.raises(LookupError, match="nothing"):
        oxgang.map(square, inputs, **engine)


def test_return_exceptions(model, engine):
    results = oxgang.map(
        fail_at_seven, range(12), model=model, max_workers=2, return_exceptions=True, **engine
    )
    got = list(results)
    failed = [result for result in got if isinstance(result, Exception)]
    assert [(type(error), str(error.args[0])) for error in failed] == [(LookupError, "seven")]
    values = [result for result in got if not isinstance(result, Exception)]
    assert sorted(values) == [number for number in range(12) if number != 7]
    if engine["ordered"]:
        assert isinstance(got[7], LookupError)


def test_failure_cancels_what_has_not_begun(model, engine, folder):
    # The first window is about ten items, and a few may have begun by the time.
    task = partial(fail_at_seven_counted, folder)
    with pytest.raises(LookupError):
        list(oxgang.map(task, range(10_000), model=model, max_workers=2, **engine))
    assert folder.ran() < 9_000


def test_unordered_yields_as_they_come(model, folder):
    """The others come before the one that waits; in order this would hang."""
    results = oxgang.map(
        partial(wait_unless_positive, folder), range(20), model=model, max_workers=2, ordered=False
    )
    got = [next(results) for _ in range(19)]
    assert sorted(got) == list(range(1, 20))
    folder.mark("go")
    assert list(results) == [0]


def wait_unless_positive(folder, number):
    if number == 0:
        folder.wait_for("go")
    return number


def test_failure_leaves_no_reference_cycle(engine):
    class Broken(Exception):
        pass

    def fail(number):
        raise Broken(number)

    gc.collect()
    gc.disable()
    try:
        with oxgang.Executor("thread", 1) as pool:
            try:
                list(pool.map(fail, range(3), **engine))
            except Broken as error:
                watched = weakref.ref(error)
        assert watched() is None
    finally:
        gc.enable()


def test_inputs_are_freed_when_it_ends(engine):
    gc.collect()
    gc.disable()
    try:
        inputs = Inputs()
        watched = weakref.ref(inputs)
        with oxgang.Executor("thread", 1) as pool:
            results = pool.map(square, inputs, **engine)
            del inputs
            next(results)
            assert watched() is not None
            results.close()
        assert watched() is None
    finally:
        gc.enable()


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="retries must be 0 or more, not -1"):
        oxgang.map(square, [1], retries=-1)
    with pytest.raises(TypeError):
        oxgang.map(square, [1], retries=1.5)
    with pytest.raises(ValueError, match='chunksize must be "auto" or at least 1, not 0'):
        oxgang.map(square, [1], chunksize=0)
    with pytest.raises(ValueError, match="'many'"):
        oxgang.map(square, [1], chunksize="many")
    with pytest.raises(TypeError, match="must be callable, not int"):
        oxgang.map(5, [1])
    with pytest.raises(TypeError, match="at least one iterable"):
        oxgang.map(square)
    with pytest.raises(ValueError, match="use one of: auto, process, thread"):
        oxgang.map(square, [1], model="fibre")
