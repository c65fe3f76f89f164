"""What goes along with a task: context variables, seeds, OpenTelemetry's context."""

import contextvars
import logging
import os
import random
import signal
import warnings

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


# -- logs and warnings ---------------------------------------------------------------------------


def log_some(number):
    logging.getLogger("some.where").info("number %d", number)
    logging.getLogger("some.where").debug("below the level")
    try:
        raise LookupError("inside")
    except LookupError:
        logging.getLogger().exception("caught")
    return number


def warn(text):
    warnings.warn(text, UserWarning, stacklevel=1)


def log_and_die():
    logging.getLogger("last").warning("words")
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def at_info(caplog):
    with caplog.at_level(logging.INFO):
        yield caplog


def test_records_of_workers_arrive(at_info):
    with oxgang.Executor("process", 2, forward_logs=True) as executor:
        assert list(executor.map(log_some, range(20))) == list(range(20))
    records = [record for record in at_info.records if record.name == "some.where"]
    assert sorted(record.getMessage() for record in records) == sorted(
        f"number {number}" for number in range(20)
    )
    assert {record.process for record in records}.isdisjoint({os.getpid()})
    (one, *_) = [record for record in at_info.records if record.name == "root"]
    assert "LookupError: inside" in one.getMessage()


def test_warnings_of_workers_arrive():
    with (
        pytest.warns(UserWarning, match="of a task"),
        oxgang.Executor("process", 1, forward_logs=True) as executor,
    ):
        executor.submit(warn, "of a task").result()


def test_the_last_words_of_a_worker_arrive_and_its_successors(at_info):
    with oxgang.Executor("process", 1, forward_logs=True) as executor:
        for _ in range(2):
            assert executor.submit(log_and_die).exception() is not None
        assert executor.submit(log_some, 1).result() == 1
    assert [record.name for record in at_info.records].count("last") == 2
    assert "number 1" in at_info.messages


def test_an_initializer_still_runs_and_map_forwards_too(at_info):
    options = {"initializer": set_name, "initargs": ("worker",)}
    with oxgang.Executor("process", 1, forward_logs=True, **options) as executor:
        assert executor.submit(who).result() == "worker"
    assert list(oxgang.map(log_some, [5], forward_logs=True)) == [5]
    assert "number 5" in at_info.messages
    at_info.clear()
    with oxgang.Executor("thread", 1, forward_logs=True) as executor:
        executor.submit(log_some, 6).result()
    assert at_info.messages.count("number 6") == 1


def test_without_it_nothing_arrives(at_info):
    with oxgang.Executor("process", 1) as executor:
        executor.submit(log_some, 7).result()
    assert "number 7" not in at_info.messages
