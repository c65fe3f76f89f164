"""`oxgang.pipeline`: work in stages, each of its own kind.

# An item's way

An item is one coroutine that goes through the stages in turn. A stage has *room* for so many items,
and lets so many of them (its limit) run at once:

| an item in stage n | has | leaves when |
|---|---|---|
| waits to run | room in n | fewer than the limit run |
| runs | room in n, one of its places | its call is done |
| is done | room in n | there is room in n + 1; after the last stage, at once |

So a slow stage fills its room, then that of the stage before, and in the end no further item is
taken from the input. Results that nobody has taken count too: see `oxgang.asyncio.map`.

Nothing can wait in a circle: room is given up in the order of the stages, and the last stage's
without a condition.
"""

import asyncio
import threading
from functools import partial
from operator import index

from oxgang._cpus import usable_cpus
from oxgang._executor import Executor
from oxgang._flow import primed
from oxgang._kinds import gives_coroutines
from oxgang._options import TaskOptions
from oxgang.asyncio._map import Attempt
from oxgang.asyncio._map import map as map_of_coroutines

MODELS = ("auto", "coroutine", "process", "thread")
_COROUTINES = 100


class stage:
    """One stage of a `pipeline`; immutable.

    Args:
        fn: Called with what the stage before has returned; its result goes to the next.
        model: "coroutine", for an ``async def``; "process"; "thread"; or "auto": the first for a
            coroutine function, else a process.
        limit: Calls at once. By default 100 coroutines, a process for each CPU that may be used,
            and 4 threads more than that, 32 at most.
        room: Items in the stage at once: those that wait for their turn, run, or wait for room in
            the next stage. Twice the limit by default.
        timeout: Seconds for a call. A coroutine is cancelled then; the others as
            `oxgang.TaskOptions` says.
        retries: Further tries of a call that raised what `retry_on` says, or was lost with its
            worker.
        retry_on: An exception class, or a tuple of them.
        memory_limit: As in `oxgang.TaskOptions`; only for processes.

    Raises:
        TypeError, ValueError: as said of what is wrong.
    """

    __slots__ = ("fn", "limit", "model", "name", "options", "room")

    def __init__(
        self,
        fn,
        *,
        model="auto",
        limit=None,
        room=None,
        timeout=None,
        retries=0,
        retry_on=Exception,
        memory_limit=None,
    ):
        if not callable(fn):
            raise TypeError(f"a stage is a function, not {fn!r}")
        self.fn = fn
        self.name = getattr(fn, "__qualname__", None) or repr(fn)
        self.model = _model(fn, self.name, model)
        self.limit = _count(limit, "limit", _limit(self.model))
        self.room = _count(room, "room", 2 * self.limit)
        if self.room < self.limit:
            raise ValueError(f"room ({self.room}) must not be less than limit ({self.limit})")
        if memory_limit is not None and self.model != "process":
            raise ValueError(f"memory_limit is for processes, not for a {self.model}")
        self.options = TaskOptions(
            timeout, memory_limit=memory_limit, retries=retries, retry_on=retry_on
        )

    def __repr__(self):
        return f"<oxgang.stage {self.name} model={self.model!r} limit={self.limit}>"


def pipeline(*stages):
    """Work in stages: fetch by coroutine, parse in a process, write by thread.

    >>> pages = pipeline(fetch, stage(parse, model="process"), stage(write, model="thread"))
    >>> for path in pages.map(urls):
    ...     print(path)

    An item need not wait for others: while one is parsed, the next ones are fetched. No stage gets
    far ahead of a slower one after it, so the input may be endless.

    Args:
        stages: Functions, or `stage`s of them, where more is to be said.

    Raises:
        TypeError: there is none, or one is not callable.
    """
    return Pipeline(stages)


class Pipeline:
    """What `pipeline` makes. In a ``with`` or ``async with`` block it keeps its workers from one
    `map` to the next; else each has its own. Of blocks within one another, the last to be left ends
    them."""

    def __init__(self, stages):
        if not stages:
            raise TypeError("a pipeline needs at least one stage")
        self.stages = tuple(one if isinstance(one, stage) else stage(one) for one in stages)
        self._kept = None
        self._blocks = 0  # that are entered and not left
        self._lock = threading.Lock()

    def __repr__(self):
        return f"<oxgang.pipeline {' | '.join(stage.name for stage in self.stages)}>"

    def amap(self, items, *, ordered=True, return_exceptions=False, progress=False):
        """An asynchronous iterator of what the last stage returns, for each item.

        Args:
            items: Iterable, or asynchronous iterable; read as there is room.
            ordered: Results in the order of the items; False: as they come.
            return_exceptions: Failures are results, instead of ending it.
            progress: True draws a bar on stderr if that is a terminal; "always" draws it anyway.

        Raises:
            Exception: by the iteration: what a stage raised, with a note which, and what the input
                raised. What is under way is cancelled then; calls in processes end with their
                workers, unless the pipeline keeps these.
        """
        return self._results(items, ordered, return_exceptions, progress)

    async def _results(self, items, ordered, return_exceptions, progress):
        workers = self._kept or _Workers(self.stages)
        done = False
        results = map_of_coroutines(
            self._flow(workers),
            items,
            limit=self._items(),
            ordered=ordered,
            return_exceptions=return_exceptions,
            progress=progress,
        )
        try:
            async for result in results:
                yield result
            done = True
        finally:
            await results.aclose()
            if workers is not self._kept:
                await asyncio.to_thread(workers.end, not done)

    def _flow(self, workers):
        return partial(_flow, [_Run(stage, workers) for stage in self.stages])

    def _items(self):
        return sum(stage.room for stage in self.stages)

    def map(self, items, *, ordered=True, return_exceptions=False, progress=False):
        """`amap`, for code that is no coroutine: an iterator. The coroutines run on a loop in a
        thread of their own, also while the caller is busy with a result. Work begins at the call.
        """
        workers = self._kept or _Workers(self.stages)
        loop = Executor("coroutine", self._items())
        results = loop.map(
            self._flow(workers),
            items,
            ordered=ordered,
            return_exceptions=return_exceptions,
            progress=progress,
        )
        end = None if workers is self._kept else workers.end
        return primed(_taken(results, loop, end))

    def __enter__(self):
        with self._lock:
            self._blocks += 1
            self._kept = self._kept or _Workers(self.stages)
        return self

    def __exit__(self, error, _value, _traceback):
        if (kept := self._left_a_block()) is not None:
            kept.end(error is not None)

    async def __aenter__(self):
        return self.__enter__()

    async def __aexit__(self, error, _value, _traceback):
        if (kept := self._left_a_block()) is not None:
            await asyncio.to_thread(kept.end, error is not None)

    def _left_a_block(self):
        """The workers, if they are to end."""
        with self._lock:
            self._blocks -= 1
            if self._blocks:
                return None
            kept, self._kept = self._kept, None
            return kept


def _taken(results, loop, end):
    """The results; then the end of the loop, and of the workers if `end` is how that is done."""
    done = False
    try:
        yield
        yield from results
        done = True
    finally:
        results.close()
        loop.end(stop=not done, wait=True)
        if end is not None:
            end(not done)


async def _flow(runs, item):
    """An item's way through all stages."""
    leave = None
    try:
        for run in runs:
            await run.room.acquire()
            if leave is not None:
                leave()
            leave = run.room.release
            async with run.places:
                item = await run.call(item)
    finally:
        if leave is not None:
            leave()
    return item


class _Run:
    """A stage, in one map."""

    def __init__(self, stage, workers):
        self.stage = stage
        self.room = asyncio.Semaphore(stage.room)
        # a worker that has ended a call shall find the next one there
        ahead = 2 if stage.model == "process" and stage.limit >= workers.sizes["process"] else 1
        self.places = asyncio.Semaphore(ahead * stage.limit)
        if stage.model == "coroutine":
            options = stage.options
            self._attempt = Attempt(stage.fn, options.retries, options.retry_on, options.timeout)
        else:
            self._workers = workers

    async def call(self, item):
        stage = self.stage
        try:
            if stage.model == "coroutine":
                return await self._attempt((item,))
            pool = self._workers.pool(stage.model)
            return await pool.submit_with(stage.options, stage.fn, item)
        except Exception as error:
            error.add_note(f"in the stage {stage.name} of a pipeline")
            raise


class _Workers:
    """The pools of a pipeline, one for all of its stages of a kind; made when they are needed."""

    def __init__(self, stages):
        limits = {model: [one.limit for one in stages if one.model == model] for model in MODELS}
        # threads mostly wait, and those of one stage must not keep another's from running
        self.sizes = {"process": max(limits["process"], default=0), "thread": sum(limits["thread"])}
        self._pools = {}

    def pool(self, model):
        pool = self._pools.get(model)
        if pool is None:
            pool = self._pools[model] = Executor(model, self.sizes[model])
        return pool

    def end(self, stop):
        """Ends the pools; what runs in processes too, if it is to `stop`."""
        for pool in self._pools.values():
            pool.end(stop=stop, wait=True)


def _model(fn, name, model):
    if model not in MODELS:
        raise ValueError(f"unknown model {model!r}; use one of: {', '.join(MODELS)}")
    is_coroutine = gives_coroutines(fn)
    if model == "auto":
        return "coroutine" if is_coroutine else "process"
    if is_coroutine != (model == "coroutine"):
        what = "a coroutine function" if is_coroutine else "no coroutine function"
        raise TypeError(f"{name} is {what}; leave model={model!r} out")
    return model


def _count(value, what, default):
    if value is None:
        return default
    value = index(value)
    if value < 1:
        raise ValueError(f"{what} must be at least 1, not {value}")
    return value


def _limit(model):
    if model == "coroutine":
        return _COROUTINES
    return usable_cpus() if model == "process" else min(32, usable_cpus() + 4)
