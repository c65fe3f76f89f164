"""How much is in flight, how much lies unread, and how failed tasks run again."""

import threading
from concurrent.futures import Future
from functools import partial
from itertools import count, islice, pairwise
from queue import SimpleQueue

import oxgang
import pytest
from oxgang import _flow
from oxgang._flow import AHEAD_S, MOST, Feed, Line, Window
from oxgang._map import Call, outcomes
from tasks import (
    Inputs,
    counted,
    counted_but_first_waits,
    exit_by_exception,
    fail_times,
    first_waits_for,
    low_numbers_fail_once,
    square,
    wait_until,
)

MOST_UNREAD = MOST + MOST // 4


# The window alone.


def test_window_starts_small():
    window = Window(workers=2)
    assert (window.least, window.size, window.batch) == (5, 8, 2)


@pytest.mark.parametrize(("workers", "chunksize", "least"), [(2, 1, 5), (2, 50, 100), (1, 3, 3)])
def test_window_keeps_a_chunk_per_worker(workers, chunksize, least):
    window = Window(workers, chunksize)
    assert window.least == least
    window.adapt(1, 1000.0)
    window.adapt(1, 1000.0)
    assert window.size >= least


def test_window_may_exceed_the_most_when_told():
    assert Window(2, 10_000).size == 20_000


def test_window_follows_the_rate():
    window = Window(workers=2)
    sizes = []
    for _ in range(20):
        window.adapt(1000, 1.0)  # a thousand a second
        sizes.append(window.size)
    assert sizes == sorted(sizes)
    assert all(later <= 2 * sooner for sooner, later in pairwise(sizes))
    assert window.size == int(1000 * AHEAD_S)
    for _ in range(20):
        window.adapt(1, 1.0)
    assert window.size == window.least


def test_window_has_a_limit():
    window = Window(workers=2)
    for _ in range(40):
        window.adapt(10**9, 0.0)
    assert window.size == MOST


# Bounded going in, bounded coming out.


def test_before_the_first_result_is_taken(model, engine):
    inputs = Inputs()
    results = oxgang.map(square, inputs, model=model, max_workers=2, **engine)
    assert inputs.read == 10  # a window and its batch, for two workers
    results.close()


def test_chunksize_is_read_ahead(model, engine):
    inputs = Inputs()
    results = oxgang.map(square, inputs, model=model, max_workers=2, chunksize=300, **engine)
    for taken in range(2000):
        assert inputs.read - taken >= 600
        next(results)
    results.close()


def test_endless_inputs_are_read_as_results_are_taken(model, engine, monkeypatch):
    monkeypatch.setattr(_flow, "MOST", 32)
    inputs = Inputs()
    results = oxgang.map(square, inputs, model=model, max_workers=2, **engine)
    for taken in range(1, 2000):
        next(results)
        assert inputs.read <= taken + 32 + 8
    results.close()


def test_unread_results_are_bounded(engine, folder):
    """The consumer takes a few and stops: the workers stop too."""
    inputs = Inputs()
    with oxgang.Executor("thread", 2) as pool:
        results = pool.map(partial(counted, folder), inputs, **engine)
        list(islice(results, 5))
        read = inputs.read
        wait_until(lambda: folder.ran() == read, "all that was submitted has run")
        assert inputs.read == read <= 5 + MOST_UNREAD
        results.close()


def test_slow_item_does_not_stop_the_workers(model, engine, folder):
    """Number 0 ends when number 500 has run, far outside of the first window."""
    task = partial(first_waits_for, folder, 500)
    results = oxgang.map(task, range(600), model=model, max_workers=2, **engine)
    assert sorted(results) == list(range(600))


@pytest.mark.parametrize("retries", [0, 1])
def test_what_lies_behind_a_slow_item_is_bounded(retries, folder, monkeypatch):
    monkeypatch.setattr(_flow, "MOST", 64)
    inputs = Inputs()
    with oxgang.Executor("thread", 2) as pool:
        results = pool.map(partial(counted_but_first_waits, folder), inputs, retries=retries)
        taker = threading.Thread(target=next, args=(results,))
        taker.start()
        wait_until(lambda: folder.ran() == 64, "all that may lie unread has run")
        folder.mark("go")
        taker.join()
        assert inputs.read <= 64 + 1 + 16
        results.close()


def test_a_wait_on_a_slow_item_looks_ever_less_often(monkeypatch):
    """And soon again once it has submitted something."""
    line, waits = Line(Future() for _ in range(4)), []
    feed = Feed(iter(Future, None), line)

    def look(oldest, seconds):
        waits.append(seconds)
        if len(waits) == 8:
            line[1].set_result(None)
        elif len(waits) == 12:
            oldest.set_result(None)
        return oldest.done()

    monkeypatch.setattr(_flow, "_is_done_within", look)
    window = Window(workers=1)
    assert window.size == len(line)
    _flow.wait_for_oldest(line, feed, window, None)
    assert len(line) == 5
    growing = [0.002, 0.004, 0.008, 0.016, 0.032, 0.05, 0.05, 0.05]
    assert waits == pytest.approx(growing + growing[:4])


def test_an_interruption_while_waiting_is_told_alone():
    """And not as one that came while a timeout was handled, with two tracebacks."""

    class Interrupted:
        def exception(self, _seconds):
            raise TimeoutError

        def done(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        _flow._is_done_within(Interrupted(), 0.001)
    assert caught.value.__context__ is None


def test_an_interruption_at_a_deadline_is_told_alone(monkeypatch):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(_flow, "monotonic", interrupted)
    monkeypatch.setattr(_flow, "_time_left", lambda _: 0.001)
    with pytest.raises(KeyboardInterrupt) as caught:
        _flow._next_done(SimpleQueue(), 1.0)
    assert caught.value.__context__ is None


# Running again.


def test_retries_run_a_failed_task_again(model, engine, folder):
    options = engine | {"retries": 2}
    task = partial(fail_times, folder, 2)
    results = oxgang.map(task, range(10), model=model, max_workers=2, **options)
    assert sorted(results) == list(range(10))
    assert [folder.calls(number) for number in range(10)] == [3] * 10


def test_last_failure_stands_when_retries_are_used_up(model, engine, folder):
    options = engine | {"retries": 1}
    task = partial(fail_times, folder, 5)
    with pytest.raises(ConnectionError, match="failed 2 times"):
        list(oxgang.map(task, [4], model=model, max_workers=2, **options))
    assert folder.calls(4) == 2


def test_without_retries_a_task_runs_once(model, folder):
    with pytest.raises(ConnectionError, match="failed 1 times"):
        list(oxgang.map(partial(fail_times, folder, 1), [4], model=model))
    assert folder.calls(4) == 1


def test_pause_of_one_holds_up_no_other(folder, monkeypatch):
    """Forty items fail, more than a window, and pause for an hour; the others all come."""
    monkeypatch.setattr(_flow, "FIRST_BACKOFF_S", 3600)
    monkeypatch.setattr(_flow, "LONGEST_BACKOFF_S", 3600)
    task = partial(low_numbers_fail_once, folder, 40)
    with oxgang.Executor("thread", 2) as pool:
        results = pool.map(task, range(200), ordered=False, retries=1)
        assert sorted(next(results) for _ in range(160)) == list(range(40, 200))
        results.close()


def test_pause_is_within_the_timeout(folder, monkeypatch):
    monkeypatch.setattr(_flow, "FIRST_BACKOFF_S", 3600)
    monkeypatch.setattr(_flow, "LONGEST_BACKOFF_S", 3600)
    task = partial(fail_times, folder, 1)
    with oxgang.Executor("thread", 1) as pool, pytest.raises(TimeoutError):
        list(pool.map(task, [1], retries=1, timeout=0.05))


def test_endless_failures_are_bounded(folder, monkeypatch):
    monkeypatch.setattr(_flow, "FIRST_BACKOFF_S", 3600)
    monkeypatch.setattr(_flow, "LONGEST_BACKOFF_S", 3600)
    monkeypatch.setattr(_flow, "MOST", 50)
    inputs = Inputs()
    with oxgang.Executor("thread", 2) as pool, pytest.raises(TimeoutError):
        list(pool.map(partial(fail_times, folder, 1), inputs, retries=1, timeout=0.5))
    assert inputs.read <= 50 + 13


def test_asked_to_exit_is_not_run_again():
    with oxgang.Executor("thread", 1) as pool:
        (outcome,) = outcomes(pool, exit_by_exception, [Call((3,), {})], retries=5)
    assert outcome.attempts == 1
    assert isinstance(outcome.error, SystemExit)


def test_last_failure_stands_when_the_pool_is_closed_meanwhile(folder):
    with oxgang.Executor("thread", 1) as pool:
        results = outcomes(pool, partial(fail_times, folder, 9), [Call((1,), {})], retries=5)
        wait_until(lambda: folder.calls(1) == 1, "it failed once")
        pool.shutdown()
        (outcome,) = results
    assert (outcome.attempts, str(outcome.error)) == (1, "1 failed 1 times")


# Outcomes.


def test_outcomes_tell_everything(model, engine, folder):
    calls = [Call((number,), {}) for number in range(20)]
    with oxgang.Executor(model, 2) as pool:
        got = list(outcomes(pool, partial(low_numbers_fail_once, folder, 5), calls, **engine))
    if engine["ordered"]:
        assert [outcome.index for outcome in got] == list(range(20))
    got.sort()
    assert [outcome.call for outcome in got] == calls
    for number, outcome in enumerate(got):
        if number < 5 and engine["retries"] == 0:
            assert isinstance(outcome.error, ConnectionError)
            assert (outcome.value, outcome.attempts) == (None, 1)
        else:
            assert (outcome.value, outcome.error) == (number, None)
            assert outcome.attempts == (2 if number < 5 else 1)


def test_outcomes_pass_keywords(make_pool):
    with make_pool() as pool:
        calls = [Call(("ff",), {"base": 16}), Call(("11",), {"base": 2}), Call((), {"nothing": 0})]
        values = list(outcomes(pool, int, calls))
    assert [outcome.value for outcome in values] == [255, 3, None]
    assert isinstance(values[2].error, TypeError)


def test_closing_outcomes_leaves_the_pool_open(make_pool, engine):
    with make_pool() as pool:
        calls = (Call((number,), {}) for number in count())
        results = outcomes(pool, square, calls, **engine)
        next(results)
        results.close()
        assert pool.submit(square, 9).result() == 81


def test_outcomes_of_a_closed_pool(make_pool, engine):
    pool = make_pool()
    pool.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        outcomes(pool, square, [Call((1,), {})], **engine)


def test_calls_that_raise_come_after_the_outcomes_before(make_pool, engine):
    def calls():
        yield from (Call((number,), {}) for number in range(5))
        raise LookupError("no more calls")

    got = []
    with make_pool() as pool, pytest.raises(LookupError, match="no more calls"):
        for outcome in outcomes(pool, square, calls(), **engine):
            got.append(outcome.value)
    assert sorted(got) == [0, 1, 4, 9, 16]
