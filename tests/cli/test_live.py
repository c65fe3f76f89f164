"""Calls that may have to be waited for: `live_outcomes` on its own, on a pool of threads."""

import itertools
import queue
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from oxgang._live import MOST, live_outcomes
from oxgang._map import Call


@pytest.fixture
def pool():
    with ThreadPoolExecutor(2) as pool:
        yield pool


def calls_of(items):
    return (Call((item,), {}) for item in items)


def fed_by(source):
    """Calls that come when the test puts them; None ends them."""
    return calls_of(iter(source.get, None))


def test_an_outcome_never_waits_for_a_later_call(pool):
    source = queue.SimpleQueue()
    outcomes = live_outcomes(pool, str.upper, fed_by(source))
    for index, text in enumerate(["a", "b", "c"]):
        source.put(text)
        outcome = next(outcomes)
        assert (outcome.index, outcome.value, outcome.error) == (index, text.upper(), None)
        assert (outcome.call, outcome.attempts) == (Call((text,), {}), 1)
    source.put(None)
    assert list(outcomes) == []


def test_endless_calls_are_read_only_a_little_ahead(pool, until):
    gate, read = threading.Event(), []

    def endless():
        for number in itertools.count():
            read.append(number)
            yield Call((number,), {})

    outcomes = live_outcomes(pool, lambda number: gate.wait(60) and number, endless())
    threading.Thread(target=lambda: (until(lambda: len(read) > MOST), gate.set())).start()
    for taken, outcome in enumerate(outcomes, 1):
        assert outcome.error is None
        # One more is read before the reader finds that there is no room for it.
        assert len(read) <= MOST + taken + 1
        if taken == 3 * MOST:
            break
    outcomes.close()


def test_all_come_once_and_failures_are_outcomes(pool):
    found = list(live_outcomes(pool, lambda number: 6 // number, calls_of(range(5))))
    assert sorted(outcome.index for outcome in found) == [0, 1, 2, 3, 4]
    errors = [outcome.index for outcome in found if outcome.error is not None]
    assert errors == [0]


def test_retries(pool):
    left = {"once": 1, "always": 99, "never": 0}

    def fails(name):
        if left[name]:
            left[name] -= 1
            raise OSError(name)
        return name

    found = {o.call.args[0]: o for o in live_outcomes(pool, fails, calls_of(left), retries=2)}
    assert {name: outcome.attempts for name, outcome in found.items()} == {
        "once": 2,
        "always": 3,
        "never": 1,
    }
    assert isinstance(found["always"].error, OSError)
    assert found["once"].error is None and found["once"].value == "once"


def test_an_error_of_the_calls_comes_after_the_outcomes_before_it(pool):
    def calls():
        yield from calls_of("ab")
        raise LookupError("the third")

    outcomes = live_outcomes(pool, str.upper, calls())
    assert {next(outcomes).value, next(outcomes).value} == {"A", "B"}
    with pytest.raises(LookupError, match="the third"):
        next(outcomes)


def test_closing_cancels_what_has_not_begun(pool):
    source, gate, begun = queue.SimpleQueue(), threading.Event(), []

    def hold(number):
        begun.append(number)
        return number == 0 or gate.wait(60)

    for number in range(10):
        source.put(number)
    source.put(None)
    outcomes = live_outcomes(pool, hold, fed_by(source))
    assert next(outcomes).index == 0
    outcomes.close()
    gate.set()
    pool.shutdown()
    assert len(begun) < 10
