"""`oxgang.asyncio.call_soon_threadsafe`, beside the loop's own; under every loop."""

import asyncio
import contextvars
import gc
import os
import threading
import weakref

import pytest
import rloop
import uvloop
from oxgang.asyncio import call_soon_threadsafe

LOOPS = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
    "rloop": rloop.new_event_loop,
}
POSTS = {
    "standard": lambda loop, *args, **options: loop.call_soon_threadsafe(*args, **options),
    "oxgang": call_soon_threadsafe,
}
VARIABLE = contextvars.ContextVar("VARIABLE", default="unset")


@pytest.fixture(params=LOOPS)
def loop(request):
    loop = LOOPS[request.param]()
    yield loop
    loop.close()


@pytest.fixture(params=POSTS)
def post(request):
    return POSTS[request.param]


def rloop_differs(loop, post):
    if post is POSTS["standard"] and type(loop).__module__.startswith("rloop"):
        pytest.skip("rloop's own does otherwise")


def in_thread(fn):
    thread = threading.Thread(target=fn)
    thread.start()
    return thread


def test_a_burst_from_threads_comes_whole_and_in_each_ones_order(loop, post):
    seen, threads, each = [], 3, 1000
    done = asyncio.Event()

    def take(thread, number):
        seen.append((thread, number))
        if len(seen) == threads * each:
            done.set()

    def send(thread):
        for number in range(each):
            post(loop, take, thread, number)

    async def main():
        senders = [in_thread(lambda thread=thread: send(thread)) for thread in range(threads)]
        await done.wait()
        for sender in senders:
            sender.join()

    loop.run_until_complete(main())
    for thread in range(threads):
        assert [number for of, number in seen if of == thread] == list(range(each))


def test_one_at_a_time_and_from_the_loop_itself(loop, post):
    async def main():
        for _ in range(20):
            for sender in (lambda call: in_thread(call).join(), lambda call: call()):
                come = loop.create_future()
                sender(lambda come=come: post(loop, come.set_result, 1))
                assert await come == 1
            await asyncio.sleep(0.001)  # longer than the loop looks by itself

    loop.run_until_complete(main())


def test_before_the_loop_runs(loop, post):
    come = loop.create_future()
    post(loop, come.set_result, 5)
    assert loop.run_until_complete(come) == 5


def test_in_a_context(loop, post):
    rloop_differs(loop, post)
    seen = []
    given = contextvars.copy_context()
    given.run(VARIABLE.set, "given")
    VARIABLE.set("sender's")
    post(loop, lambda: seen.append(VARIABLE.get()))
    VARIABLE.set("changed")
    post(loop, lambda: seen.append(VARIABLE.get()), context=given)
    loop.run_until_complete(asyncio.sleep(0.001))
    assert seen == ["sender's", "given"]


def test_what_a_callback_raises_is_reported_and_the_next_is_called(loop, post):
    complaints, seen = [], []
    loop.set_exception_handler(lambda *context: complaints.append(context[-1]["exception"]))
    post(loop, [].pop)
    post(loop, seen.append, 1)
    loop.run_until_complete(asyncio.sleep(0.001))
    assert [type(error) for error in complaints] == [IndexError]
    assert seen == [1]


def test_who_leaves_by_a_callback_leaves_the_rest_for_later(loop, post):
    if type(loop).__module__.startswith("rloop"):
        pytest.skip("rloop reports SystemExit, and goes on")
    seen = []

    def leave():
        raise SystemExit(3)

    post(loop, leave)
    post(loop, seen.append, 1)
    with pytest.raises(SystemExit):
        loop.run_until_complete(asyncio.sleep(60))
    loop.run_until_complete(asyncio.sleep(0.001))
    assert seen == [1]


def test_a_closed_loop_takes_none(loop, post):
    rloop_differs(loop, post)
    loop.close()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="closed"):
            post(loop, print)


def test_a_loop_that_was_closed_right_after_a_post_takes_none(loop, post):
    """It had been about to look for more, or had not looked yet."""
    rloop_differs(loop, post)
    seen = []

    async def main():
        in_thread(lambda: post(loop, seen.append, 1)).join()
        while not seen:
            await asyncio.sleep(0)

    loop.run_until_complete(main())
    post(loop, seen.append, 2)
    loop.close()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="closed"):
            post(loop, seen.append, 3)
    assert seen == [1]


def test_a_loop_that_loses_what_it_was_to_call_is_asked_again():
    """So it is if Ctrl-C comes after a handle was taken out and before it runs."""
    loop, seen = asyncio.new_event_loop(), []
    for number in range(3):  # after the first the port is about to look again by itself
        call_soon_threadsafe(loop, seen.append, number)
        loop._ready.clear()
        loop.run_until_complete(asyncio.sleep(0))
        loop.run_until_complete(asyncio.sleep(0))
        assert seen == list(range(number + 1))
    loop.close()


def test_what_is_no_loop_or_no_callback(loop):
    with pytest.raises((TypeError, AttributeError)):
        call_soon_threadsafe(object(), print)
    with pytest.raises(TypeError, match="callable"):
        call_soon_threadsafe(loop, 5)


def test_between_futures_of_a_pool(loop):
    """Posts and completed futures are told by one port."""
    import calls
    from oxgang.concurrent.futures import ThreadPoolExecutor

    seen = []

    async def main():
        with ThreadPoolExecutor(2) as pool:
            for number in range(300):
                call_soon_threadsafe(loop, seen.append, number)
                assert await pool.submit(calls.same, number) == number
        await asyncio.sleep(0)

    loop.run_until_complete(main())
    assert seen == list(range(300))


def test_nothing_of_it_outlives_the_loop():
    def some():
        loop = asyncio.new_event_loop()
        call_soon_threadsafe(loop, print)
        loop.close()
        return weakref.ref(loop)

    some()
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    references = [some() for _ in range(5)]
    gc.collect()
    assert [reference() for reference in references] == [None] * 5
    assert len(os.listdir("/proc/self/fd")) == before
