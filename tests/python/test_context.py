"""What goes along with a task: context variables, seeds, OpenTelemetry's context."""

import contextvars
import random

import numpy
import oxgang
import oxgang.concurrent.futures as ours
import pytest

NAME = contextvars.ContextVar("name", default="nobody")


def who():
    return NAME.get()


def set_name(name):
    NAME.set(name)
    return NAME.get()


@pytest.fixture
def named():
    token = NAME.set("caller")
    yield
    NAME.reset(token)


def test_tasks_in_threads_have_the_context_of_their_submit(named):
    with oxgang.Executor("thread", 2) as executor:
        first = [executor.submit(who) for _ in range(3)]
        NAME.set("later")
        assert executor.submit(who).result() == "later"
        assert [future.result() for future in first] == ["caller"] * 3
        assert list(executor.map(lambda _: who(), range(3))) == ["later"] * 3
        assert executor.submit(dict, a=1).result() == {"a": 1}


def test_what_a_task_sets_is_its_own(named):
    with oxgang.Executor("thread", 1) as executor:
        assert executor.submit(set_name, "task").result() == "task"
        assert executor.submit(who).result() == who() == "caller"


def test_the_drop_in_does_as_the_standard_one(named):
    with ours.ThreadPoolExecutor(1) as pool:
        assert pool.submit(who).result() == "nobody"
    with ours.ThreadPoolExecutor(1, context=True) as pool:
        assert pool.submit(who).result() == "caller"
    with oxgang.Executor("thread", 1, context=False) as executor:
        assert executor.submit(who).result() == "nobody"


def test_a_further_try_has_the_context_too(named):
    tries = []

    def twice():
        tries.append(NAME.get())
        if len(tries) < 2:
            raise OSError
        return NAME.get()

    with ours.ThreadPoolExecutor(1, context=True, retries=2, retry_on=OSError) as pool:
        assert pool.submit(twice).result() == "caller"
    assert tries == ["caller", "caller"]


# -- seeds ---------------------------------------------------------------------------------------


def draw(_item):
    return random.random(), float(numpy.random.random()), oxgang.task_seed()


def draw_after_a_failure(folder):
    drawn = random.random()
    if not list(folder.glob("failed")):
        (folder / "failed").touch()
        raise OSError
    return drawn


def test_seeds_decide_whatever_the_workers():
    alone = list(oxgang.map(draw, range(30), seed=7, max_workers=1))
    for options in ({"max_workers": 3}, {"chunksize": 5}, {"retries": 1}):
        assert list(oxgang.map(draw, range(30), seed=7, **options)) == alone
    shuffled = list(oxgang.map(draw, range(30), seed=7, ordered=False))
    assert sorted(shuffled) == sorted(alone)
    assert len({number for drawn in alone for number in drawn}) == 90  # all different
    assert list(oxgang.map(draw, range(30), seed=8)) != alone
    with oxgang.Executor("process", 2) as executor:
        assert list(executor.map(draw, range(30), seed=7)) == alone


def test_a_further_try_has_the_same_seed(tmp_path):
    drawn = list(oxgang.map(draw_after_a_failure, [tmp_path], seed=1, retries=2))
    assert drawn == list(oxgang.map(draw_after_a_failure, [tmp_path], seed=1))


def test_threads_have_seeds_and_leave_shared_generators_alone():
    random.seed(3)
    expected = random.random()
    random.seed(3)
    seeds = list(oxgang.map(lambda _: oxgang.task_seed(), range(4), seed=7, model="thread"))
    assert random.random() == expected
    assert seeds == [drawn[2] for drawn in oxgang.map(draw, range(4), seed=7)]


def test_bad_seeds_are_refused():
    with pytest.raises(TypeError, match="whole number"):
        oxgang.map(draw, range(3), seed="x")
    with pytest.raises(LookupError, match="seed="):
        oxgang.task_seed()


# -- OpenTelemetry -------------------------------------------------------------------------------


def baggage_of_task(key):
    from opentelemetry import baggage

    return baggage.get_baggage(key)


@pytest.mark.parametrize("model", ["thread", "process"])
def test_telemetry_goes_along(model):
    pytest.importorskip("opentelemetry.propagate")
    from opentelemetry import baggage, context

    with oxgang.Executor(model, 1) as executor:
        token = context.attach(baggage.set_baggage("order", "17"))
        try:
            future = executor.submit(baggage_of_task, "order")
            mapped = executor.map(baggage_of_task, ["order", "nothing"])
            assert future.result() == "17"
            assert list(mapped) == ["17", None]
        finally:
            context.detach(token)
        assert executor.submit(baggage_of_task, "order").result() is None
