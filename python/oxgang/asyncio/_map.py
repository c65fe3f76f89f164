"""A coroutine function over many items, so many at a time.

# Who does what

`limit` workers, tasks of the loop, each take the next item, run the call, and put the result down.
The consumer takes results up. What is begun and not taken up is bounded by the *window*, twice the
limit: so an endless input runs in bounded memory, and a slow consumer slows the input down.

| the consumer | the workers |
|---|---|
| is at the end | have ended: the input is exhausted |
| meets a failure that it is to raise | are cancelled |
| leaves (break, `aclose`, cancellation) | are cancelled, and awaited |

A call, or the input, may raise `CancelledError` of its own, of a task that it awaits and somebody
cancelled: that is an outcome like any other. A worker has been cancelled only if its task says so.
If that was not the consumer's doing, or if a call raises what ends programs, the worker ends, and
so does the map, by the same error: nobody waits for what no worker will bring.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterable, Sized
from functools import partial

from oxgang._flow import pause_before
from oxgang._options import exception_classes


def map(
    fn,
    *iterables,
    limit=100,
    ordered=True,
    retries=0,
    retry_on=Exception,
    timeout=None,
    return_exceptions=False,
    progress=False,
):
    """An asynchronous iterator over ``await fn(*args)``, many at a time.

    >>> async for page in map(fetch, urls, limit=50):
    ...     print(len(page))

    Args:
        fn: A coroutine function.
        iterables: Its arguments; the shortest ends it. Asynchronous iterables too. They are read as
            there is room, so they may be endless.
        limit: Calls in flight.
        ordered: Results in the order of the items; False: as they come.
        retries: Further tries of a call that raised, after pauses that double from 50 ms to 2 s.
        retry_on: The exceptions (a class or a tuple) that are worth one. What cancels the call, or
            ends the program, never is.
        timeout: Seconds for each try; then it is cancelled, and `TimeoutError` counts as its error.
        return_exceptions: Failures are yielded as results, instead of ending it.
        progress: True draws a bar on stderr if that is a terminal; "always" draws it anyway.

    Raises:
        TypeError: `fn` is not callable; there is no iterable; `retry_on` is no exception class.
        ValueError: `limit` is less than 1, `retries` less than 0, `timeout` not positive.
        Exception: by the iteration: what a call raised, in its turn, and what the input raised. The
            others are cancelled then.
    """
    if not callable(fn):
        raise TypeError(f"map needs a coroutine function, not {type(fn).__name__}")
    if not iterables:
        raise TypeError("map needs at least one iterable")
    if limit < 1:
        raise ValueError(f"limit must be at least 1, not {limit}")
    if retries < 0:
        raise ValueError(f"retries must not be negative: {retries}")
    if timeout is not None and timeout <= 0:
        raise ValueError(f"timeout must be positive, or None for no limit; not {timeout}")
    bar = None
    if progress:
        from oxgang._map import _progress_bar

        bar = _progress_bar(fn, iterables, progress)
    attempt = Attempt(fn, retries, exception_classes(retry_on), timeout)
    flight = partial(_Flight, attempt, iterables, limit, ordered)
    return _results(flight, _at_first(iterables, limit), return_exceptions, bar)


# whatever retry_on says: who cancels the call, or ends the program, must not wait for more tries
_NEVER_AGAIN = (asyncio.CancelledError, KeyboardInterrupt, SystemExit)


class Attempt:
    """A call, with its limit and further tries."""

    def __init__(self, fn, retries, retry_on, timeout):
        self.fn = fn
        self.retries = retries
        self.retry_on = retry_on
        self.timeout = timeout
        self.plain = not retries and timeout is None

    async def __call__(self, args):
        tries = 0
        while True:
            try:
                if self.timeout is None:
                    return await self.fn(*args)
                async with asyncio.timeout(self.timeout):
                    return await self.fn(*args)
            except _NEVER_AGAIN:
                raise
            except self.retry_on:
                if tries == self.retries:
                    raise
            tries += 1
            await asyncio.sleep(pause_before(tries))


class _Input:
    """Items of all iterables, side by side; asynchronous ones one at a time."""

    def __init__(self, iterables):
        self.asynchronous = any(isinstance(one, AsyncIterable) for one in iterables)
        if self.asynchronous:
            self.iterators = [
                aiter(one) if isinstance(one, AsyncIterable) else iter(one) for one in iterables
            ]
            self.lock = asyncio.Lock()
        else:
            self.calls = zip(*iterables)  # noqa: B905 - the shortest ends it, as with the builtin

    async def next(self):
        """The next arguments; None at the end. Only for asynchronous input."""
        args = []
        for iterator in self.iterators:
            try:
                if hasattr(iterator, "__anext__"):
                    args.append(await anext(iterator))
                else:
                    args.append(next(iterator))
            except (StopIteration, StopAsyncIteration):
                return None
        return tuple(args)


class _Flight:
    """What the workers and the consumer share. All in one loop, so changes between two awaits are
    one step."""

    def __init__(self, attempt, iterables, limit, ordered):
        self.attempt = attempt
        self.input = _Input(iterables)
        self.window = 2 * limit
        self.ordered = ordered
        self.begun = self.taken = 0
        self.results = {} if ordered else deque()
        self.ended = False  # no further item will be begun
        self.failure = None  # what the input raised, or what has ended a worker
        self.wakes_consumer = None
        self.wait_for_room = deque()
        self.loop = asyncio.get_running_loop()

    async def work(self):
        """A worker's life."""
        try:
            await self.work_on()
        except BaseException as error:
            self.end(error)
            raise

    async def work_on(self):
        """Takes items and puts down what becomes of them, till there is none."""
        while not self.ended:
            if self.begun - self.taken >= self.window:
                room = self.loop.create_future()
                self.wait_for_room.append(room)
                await room
                continue
            try:
                if self.input.asynchronous:
                    async with self.input.lock:
                        args = None if self.ended else await self.input.next()
                else:
                    args = next(self.input.calls, None)
            except BaseException as failure:
                if _ends_worker(failure):
                    raise
                self.end(failure)
                return
            if args is None:
                self.end()
                return
            index = self.begun
            self.begun += 1
            try:
                outcome = True, await self.attempt(args)
            except BaseException as error:
                outcome = False, error
                if _ends_worker(error):
                    self.put(index, outcome)
                    raise
            self.put(index, outcome)

    def end(self, failure=None):
        """No further item is begun; `failure`: why, to be raised after the results before it."""
        self.ended = True
        if self.failure is None:
            self.failure = failure
        self.wake_all()

    def put(self, index, outcome):
        if self.ordered:
            self.results[index] = outcome
            if index != self.taken:
                return  # the consumer waits for another
        else:
            self.results.append(outcome)
        self.wake()

    def wake(self):
        if self.wakes_consumer is not None and not self.wakes_consumer.done():
            self.wakes_consumer.set_result(None)

    def wake_all(self):
        self.wake()
        while self.wait_for_room:
            self.let_in()

    def let_in(self):
        room = self.wait_for_room.popleft()
        if not room.done():
            room.set_result(None)

    async def take(self):
        """The next result, ``(whether it is one, value or error)``; None at the end."""
        while True:
            if self.ordered:
                outcome = self.results.pop(self.taken, None)
            else:
                outcome = self.results.popleft() if self.results else None
            if outcome is not None:
                self.taken += 1
                if self.wait_for_room:
                    self.let_in()
                return outcome
            if self.ended and self.taken == self.begun:
                return None
            self.wakes_consumer = self.loop.create_future()
            await self.wakes_consumer


async def _results(make, count, return_exceptions, bar):
    flight = make()  # in the loop
    workers = [asyncio.ensure_future(flight.work()) for _ in range(count)]
    try:
        while (outcome := await flight.take()) is not None:
            done, value = outcome
            if bar is not None:
                bar.advance(done)
            if not (done or return_exceptions):
                raise value
            yield value
        if flight.failure is not None:
            raise flight.failure
    finally:
        flight.ended = True  # also for one whose call does not let itself be cancelled
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        if bar is not None:
            bar.finish()


def _ends_worker(error):
    """Whether the worker, which is the current task, is to end by it; else it is an outcome."""
    if isinstance(error, asyncio.CancelledError):
        return asyncio.current_task().cancelling() > 0
    return not isinstance(error, Exception)


def _at_first(iterables, limit):
    """Workers: no more than items, if that is known; and one, to see that there are none."""
    sizes = [len(one) for one in iterables if isinstance(one, Sized)]
    return max(1, min([limit, *sizes]))
