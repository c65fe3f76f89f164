"""`imap` and `imap_unordered`: one body, on the standard library's pools and on ours."""

import gc
import itertools
import os
import signal
import threading
import time
import weakref

import calls
import pytest
from mp_pools import MAKERS, OWN, OWN_PROCESSES, PROCESSES, making, only
from oxgang.errors import WorkerCrashed

both = pytest.mark.parametrize("iterator", ["imap", "imap_unordered"])
sources = pytest.mark.parametrize("source", [list, iter])


@pytest.fixture(params=MAKERS)
def make(request):
    with making(request.param) as make:
        yield make


@pytest.fixture
def pool(make):
    return make(2)


def outcomes(results):
    """Values and errors, in their order."""
    found = []
    while True:
        try:
            found.append(next(results))
        except StopIteration:
            return found
        except Exception as error:
            found.append(error)


def failing_at(count):
    yield from range(count)
    raise LookupError("of the input")


@pytest.mark.parametrize("chunksize", [1, 3, 1000])
@sources
def test_iterators(pool, chunksize, source):
    items = list(range(100))
    assert list(pool.imap(calls.same, source(items), chunksize)) == items
    assert sorted(pool.imap_unordered(calls.same, source(items), chunksize)) == items
    for iterator in (pool.imap, pool.imap_unordered):
        empty = iterator(calls.same, source([]), chunksize)
        for _ in range(2):
            with pytest.raises(StopIteration):
                next(empty)
        with pytest.raises(ValueError, match="Chunksize"):
            iterator(calls.same, items, 0)


def test_a_failed_item_does_not_stop_an_iterator(pool):
    iterator = pool.imap(calls.nap, [0.0, "no number", 0.1])
    assert next(iterator) == 0.0
    with pytest.raises(TypeError):
        next(iterator)
    assert next(iterator) == 0.1
    with pytest.raises(StopIteration):
        next(iterator)


@both
def test_an_input_that_fails_fails_in_its_turn(pool, iterator):
    results = getattr(pool, iterator)(calls.same, failing_at(3))
    found = []
    with pytest.raises(LookupError, match="of the input"):
        found.extend(results)
    if iterator == "imap":
        assert found == [0, 1, 2]


@only(*OWN)
@both
def test_the_input_is_read_a_little_ahead_only(pool, iterator):
    read = itertools.count()
    results = getattr(pool, iterator)(calls.same, read)
    for _ in range(3):
        next(results)
    time.sleep(0.2)
    assert next(read) < 1000
    pool.terminate()


@only(*MAKERS)
@both
def test_an_input_may_wait_for_results(pool, iterator):
    """As a loop does that puts each result back in."""
    found = []
    more = threading.Semaphore(1)

    def fed():
        for number in range(50):
            more.acquire()
            yield number

    for result in getattr(pool, iterator)(calls.same, fed()):
        found.append(result)
        more.release()
    assert found == list(range(50))


@sources
@both
def test_what_nobody_takes_is_run_before_a_closed_pool_ends(pool, tmp_path, iterator, source):
    path = str(tmp_path / "runs")
    getattr(pool, iterator)(calls.count_in, source([path] * 300))
    pool.close()
    pool.join()
    assert (tmp_path / "runs").stat().st_size == 300


def test_a_closed_pool_still_gives_what_was_asked_for(pool):
    results = pool.imap(calls.same, range(500))
    pool.close()
    assert list(results) == list(range(500))
    pool.join()


@only(*OWN)
@both
@pytest.mark.parametrize("blocks", [False, True])
def test_a_pool_that_nobody_has_ends_even_if_an_input_has_not_been_read_to_its_end(
    make, iterator, blocks
):
    """Whether the reading thread waits for room, or the input for what never comes."""
    never, waits = threading.Event(), threading.Event()

    def numbers(pool):
        for number in itertools.count():
            if blocks and number == 3:
                del pool
                waits.set()
                never.wait()
            yield number

    pool = MAKERS[make.name](1)
    results = getattr(pool, iterator)(calls.same, numbers(pool))
    assert next(results) == 0
    if blocks:
        waits.wait()
    gone = weakref.ref(pool)
    readers = [one for one in threading.enumerate() if one.name == "oxgang-imap"]
    del pool, results
    while gone() is not None:
        gc.collect()
        time.sleep(0.001)
    never.set()
    for reader in readers:
        reader.join()


# -- results -------------------------------------------------------------------------------------


@both
@sources
@pytest.mark.parametrize("chunksize", [1, 7])
def test_many(pool, iterator, source, chunksize):
    """More than a window holds."""
    count = 20_000 if source is list else 3_000
    found = list(getattr(pool, iterator)(calls.same, source(range(count)), chunksize))
    assert (found if iterator == "imap" else sorted(found)) == list(range(count))


def test_what_comes_first_is_given_first(pool, tmp_path):
    path = tmp_path / "go"
    results = pool.imap_unordered(wait_or_give, [str(path), 1, 2])
    assert {next(results), next(results)} == {1, 2}
    path.touch()
    assert next(results) is None


def wait_or_give(item):
    return calls.wait_for_file(item) if isinstance(item, str) else item


def test_a_slow_item_does_not_stop_the_workers(pool, tmp_path):
    """The first ends when one has run that is far outside of the first window."""
    paths = str(tmp_path / "go"), str(tmp_path / "come")
    items = [(number, *paths) for number in range(2_000)]
    assert list(pool.imap(first_waits_for_last, items)) == list(range(2_000))


def first_waits_for_last(item):
    number, path, come = item
    if number == 0:
        open(come, "w").close()
        calls.wait_for_file(path)
    elif number == 1_999:
        calls.wait_for_file(come)
        open(path, "w").close()
    return number


@only(*OWN)
@both
@sources
def test_many_threads_may_take(pool, iterator, source):
    results = getattr(pool, iterator)(calls.same, source(range(3_000)))
    taken = [[] for _ in range(4)]
    threads = [threading.Thread(target=mine.extend, args=(results,)) for mine in taken]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(itertools.chain(*taken)) == list(range(3_000))


# -- errors --------------------------------------------------------------------------------------


@only(*PROCESSES)
@sources
def test_what_cannot_be_sent_is_an_error_at_its_place(pool, source):
    items = [0, threading.Lock(), 2, 3, threading.Lock()]
    found = outcomes(pool.imap(calls.same, source(items)))
    assert [type(one) for one in found] == [int, TypeError, int, int, TypeError]
    unordered = outcomes(pool.imap_unordered(calls.same, source(items)))
    assert sorted(one for one in unordered if isinstance(one, int)) == [0, 2, 3]
    assert sum(isinstance(one, TypeError) for one in unordered) == 2


@only(*OWN_PROCESSES)
@both
@sources
def test_a_death_costs_its_own_call(pool, iterator, source):
    found = outcomes(getattr(pool, iterator)(die_at_five, source(range(50))))
    lost = [place for place, one in enumerate(found) if isinstance(one, WorkerCrashed)]
    assert len(lost) == 1 and len(found) == 50
    del found[lost[0]]
    if iterator == "imap":
        assert lost == [5]
        assert found == [number for number in range(50) if number != 5]
    else:
        assert sorted(found) == [number for number in range(50) if number != 5]


def die_at_five(number):
    if number == 5:
        calls.die(signal.SIGKILL)
    return number


@only(*OWN)
@both
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_whatever_an_input_raises_is_told(pool, iterator, kind):
    """Who takes results would wait for ever if it only ended the thread that reads."""

    def ending():
        yield 1
        raise kind

    results = getattr(pool, iterator)(calls.same, ending())
    assert next(results) == 1
    with pytest.raises(kind):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


@only(*OWN)
@both
def test_what_cannot_be_submitted_any_more_is_told_in_its_turn(pool, iterator):
    results = getattr(pool, iterator)(calls.same, range(100_000))
    assert next(results) in (0, 1)
    pool._engine.end()
    errors = [one for one in outcomes(results) if isinstance(one, Exception)]
    assert 0 < len(errors) < 10_000
    last = str(errors[-1])
    assert "the pool was terminated" in last or "after shutdown" in last


@only(*OWN)
@both
def test_who_waits_for_an_input_when_the_pool_is_terminated_is_told(make, iterator):
    never = threading.Event()

    def stuck():
        yield 1
        never.wait()

    pool = make(1)
    results = getattr(pool, iterator)(calls.same, stuck())
    assert next(results) == 1
    ending = threading.Timer(0.1, pool.terminate)
    ending.start()
    assert outcomes(results) == []
    ending.join()
    never.set()


# -- interruptions and forks ---------------------------------------------------------------------


@only(*OWN)
@both
@sources
def test_who_is_interrupted_while_waiting_may_ask_again(make, tmp_path, iterator, source):
    path = tmp_path / "go"
    pool = make(1)
    results = getattr(pool, iterator)(calls.wait_for_file, source([str(path)] * 3))
    main = threading.get_ident()
    interrupt = threading.Timer(0.1, signal.pthread_kill, (main, signal.SIGINT))
    interrupt.start()
    with pytest.raises(KeyboardInterrupt):
        next(results)
    interrupt.join()
    path.touch()
    assert list(results) == [None] * 3


@pytest.mark.parametrize("chunksize", [1, 4])
@only(*OWN_PROCESSES)
def test_who_is_interrupted_while_decoding_may_ask_again(make, chunksize):
    calls.interrupted.clear()
    results = make(2).imap(calls.interrupting, range(6), chunksize)
    found = []
    with pytest.raises(KeyboardInterrupt):
        found.extend(results)
    found.extend(results)
    assert found == [0, 1, 2, "after all", 4, 5]


@only(*OWN)
@both
def test_results_are_taken_in_the_process_that_asked(pool, iterator):
    results = getattr(pool, iterator)(calls.same, [1, 2])
    pid = os.fork()
    if pid == 0:
        try:
            next(results)
        except RuntimeError as error:
            os._exit(3 if "forked" in str(error) else 4)
        os._exit(5)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
    assert sorted(results) == [1, 2]


# -- what is left --------------------------------------------------------------------------------


class Box:
    pass


@only("oxgang-thread")
@both
def test_results_that_know_their_iterator_are_garbage_with_it(pool, iterator):
    box = Box()
    box.results = getattr(pool, iterator)(calls.same, [box])
    box.mapped = pool.map_async(calls.same, [box, box], 1)
    box.mapped.wait()
    assert box.results._line.wait(60)
    gone = weakref.ref(box)
    del box
    while gone() is not None:
        gc.collect()
        time.sleep(0.001)
