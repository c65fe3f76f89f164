"""`oxgang.map`, and `outcomes`, which the command line is built on.

The faces of `_flow`: they check arguments, choose the engine, turn finished tasks into
values or `Outcome`s, and end a pool of their own in every way an iteration can end:

| the iteration                  | not begun | running, in processes | running, in threads   |
|--------------------------------|-----------|-----------------------|-----------------------|
| is exhausted                   |     -     |           -           |           -           |
| raises an item's failure       | cancelled | finish, waited for    | finish, waited for    |
| is closed or dropped early     | cancelled | their workers end     | finish, waited for    |
| is over its timeout, or Ctrl-C | cancelled | their workers end     | finish, not waited for|

A thread cannot be stopped from outside, hence the last column; coroutines are as processes, only
that they are cancelled, not killed. A pool that was given
(`outcomes`, `Executor.map`) belongs to its owner and goes on: only what has not begun is
cancelled.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sized
from functools import partial
from itertools import repeat, starmap
from operator import index
from threading import get_ident
from time import monotonic
from typing import NamedTuple

from oxgang._cpus import usable_cpus
from oxgang._flow import Window, as_done, by_event, oldest_first, primed
from oxgang._kinds import gives_coroutines
from oxgang._seeds import seeded


class Call(NamedTuple):
    """The arguments of one call."""

    args: tuple
    kwargs: dict


class Outcome(NamedTuple):
    """What became of one call. `value` counts only where `error` is None."""

    index: int
    call: Call
    value: object
    error: BaseException | None
    attempts: int


def outcomes(
    executor,
    fn,
    calls: Iterable[Call],
    *,
    ordered: bool = True,
    retries: int = 0,
    chunksize: int | str = "auto",
) -> Iterator[Outcome]:
    """Run `fn(*args, **kwargs)` for each call on `executor`; yield what became of each.

    Work begins at the call. Work in flight and unread results are both bounded, so `calls` may
    be endless. A failed task is an `Outcome` like any other; what does raise, after the
    outcomes before it, is `calls` itself failing, or the executor refusing work.

    `ordered=False` yields as they come. `retries=n` submits a task that raised an Exception,
    or was lost with its worker, up to n more times: it must be safe to repeat. Closing the
    iterator cancels what has not begun; the executor stays open.
    """
    check_options(fn, retries, chunksize)
    window = _window(executor, chunksize)
    submit = executor.submit

    def launch(call):
        return submit(fn, *call.args, **call.kwargs)

    if ordered and not retries:
        return primed(_outcomes_in_order(launch, iter(calls), window))
    source = primed(by_event(launch, iter(calls), window, ordered=ordered, retries=retries))
    return primed(_outcomes_of(source))


def _outcomes_in_order(launch, calls, window):
    launched = deque()

    def started():
        for call in calls:
            future = launch(call)
            launched.append(call)
            yield future

    source = primed(oldest_first(started(), window))
    count = 0
    try:
        yield
        for future in source:
            yield _outcome(count, launched.popleft(), future, 1)
            count += 1
    finally:
        source.close()


def _outcomes_of(source):
    try:
        yield
        for item in source:
            yield _outcome(item.index, item.call, item.future, item.attempts)
    finally:
        source.close()


def _outcome(number, call, future, attempts):
    error = future.exception()
    value = future.result() if error is None else None
    return Outcome(number, call, value, error, attempts)


def map(
    fn,
    *iterables: Iterable,
    model: str = "auto",
    max_workers: int | None = None,
    chunksize: int | str = "auto",
    ordered: bool = True,
    timeout: float | None = None,
    retries: int = 0,
    progress: bool | str = False,
    return_exceptions: bool = False,
    task_timeout: float | None = None,
    memory_limit: int | str | None = None,
    seed: int | None = None,
    forward_logs: bool = False,
) -> Iterator:
    """Like the built-in `map(fn, *iterables)`, with the calls run side by side.

    Starts at the call, in a pool of its own that ends with the iterator: exhausted, failed,
    closed or dropped. Closing it early ends the workers of a process pool at once, as
    leaving ``with multiprocessing.Pool()`` does. Ctrl-C ends within a moment.

    Inputs are read only a little ahead of the results taken, so they may be endless. An
    exception that an input iterable raises comes after the results of the items before it.

    model: "process"; "thread"; "coroutine"; or "auto", which means "coroutine" for a coroutine
        function, and for now "process" for any other.
    max_workers: how many at once; by default the processors this process may really use; of
        coroutines 100.
    chunksize: "auto" keeps about a tenth of a second of work in flight; n keeps at least n
        items per worker. Each item is a task of its own either way: a crash costs one item.
    ordered: False yields results as they come.
    timeout: seconds for all of it, from the call; then TimeoutError.
    retries: how many more times to run an item whose task raised an Exception or was lost with
        its worker, after a short, growing pause; the others go on. `fn` must be safe to
        repeat: a lost task may have done part of its work.
    progress: True draws a bar on stderr if that is a terminal; "always" draws it anyway.
    return_exceptions: True yields an item's exception in place of its value. Otherwise the
        first failure is raised, and what has not begun is cancelled.
    task_timeout: seconds that each item may take, from when a worker begins it. Then
        `oxgang.errors.TaskTimeout` is raised in it, and a second later it is ended.
    memory_limit: bytes of memory that a worker may have while it runs an item, or a text such as
        "2GiB"; beyond, it is ended: `oxgang.errors.MemoryLimitExceeded`. Not for threads.
    seed: a number that, with the item's place, decides what `random` and numpy's legacy generator
        give in its task, whichever worker runs it, and what `oxgang.task_seed()` is. In
        threads and coroutines, which share those generators, only the latter.
    forward_logs: log records and warnings of worker processes arrive in this one.
    """
    from oxgang._executor import Executor

    model = fitting_model(fn, model)
    executor = Executor(model, max_workers, forward_logs=forward_logs)
    try:
        return values(
            executor.target(),
            fn,
            iterables,
            chunksize=chunksize,
            ordered=ordered,
            timeout=timeout,
            retries=retries,
            progress=progress,
            return_exceptions=return_exceptions,
            task_timeout=task_timeout,
            memory_limit=memory_limit,
            seed=seed,
            model=executor.model,
            owned=executor,
        )
    except BaseException as error:
        executor.end(stop=True, wait=isinstance(error, Exception))
        raise


def values(
    executor,
    fn,
    iterables,
    *,
    chunksize,
    ordered,
    timeout,
    retries,
    progress,
    return_exceptions,
    task_timeout=None,
    memory_limit=None,
    seed=None,
    model=None,
    owned=None,
):
    """The iterator behind `map` and `Executor.map`.

    `executor` runs the calls; `owned` is the `oxgang.Executor` that ends with the iterator.
    """
    check_options(fn, retries, chunksize)
    if not iterables:
        raise TypeError("map() needs at least one iterable after the function")
    deadline = None if timeout is None else monotonic() + timeout
    bar = _progress_bar(fn, iterables, progress) if progress else None
    window = _window(executor, chunksize)
    submit = executor.submit
    if seed is not None:
        fn = seeded(fn, seed, model)
        numbered = enumerate(zip(*iterables, strict=False))
        arguments = ((fn, number, *items) for number, items in numbered)
    else:
        arguments = zip(repeat(fn), *iterables, strict=False)
    if task_timeout is not None or memory_limit is not None:
        submit = _limited_submit(executor, task_timeout, memory_limit)
    if not retries:
        engine = oldest_first if ordered else as_done
        source = engine(starmap(submit, arguments), window, deadline)
    else:
        source = by_event(
            lambda call: submit(*call),
            arguments,
            window,
            ordered=ordered,
            retries=retries,
            deadline=deadline,
        )
    source = primed(source)
    if bar is not None:
        source = primed(_watched(source, bar))
    owner = None if owned is None else _Owner(owned, deadline)
    return primed(_values(source, return_exceptions, owner))


def _limited_submit(executor, task_timeout, memory_limit):
    from oxgang._options import TaskOptions

    options = TaskOptions.of_pool(task_timeout, memory_limit=memory_limit)
    submit_with = getattr(executor, "submit_with", None)
    if submit_with is None:
        raise TypeError(f"{type(executor).__qualname__} has no limits; use one of oxgang's pools")
    return partial(submit_with, options)


def _values(source, return_exceptions, owner):
    # The consumer's value is kept in no variable here: it may be large, and it is theirs.
    ready = []
    try:
        yield
        for future in source:
            error = future.exception() if return_exceptions else None
            ready.append(future.result() if error is None else error)
            del future, error
            yield ready.pop()
    except BaseException as error:
        if owner is not None:
            owner.note(error)
        raise
    finally:
        # A failure's traceback holds this frame; let the frame not hold the failed future.
        future = None  # noqa: F841
        source.close()
        if owner is not None:
            owner.end()


class _Owner:
    """Ends the pool of a `map` as the table above says."""

    def __init__(self, executor, deadline):
        self.executor = executor
        self.deadline = deadline
        self.home = get_ident()
        self.stop = False
        self.wait = True
        self.reap = True

    def note(self, error):
        """The iteration ends by `error`."""
        if isinstance(error, GeneratorExit):
            self.stop = True
            # Dropped by a garbage collection on some other thread, maybe one of the pool's
            # own: it must not wait for itself.
            self.wait = self.reap = get_ident() == self.home
        elif not isinstance(error, Exception) or self._is_late():
            self.stop = True
            self.wait = False

    def end(self):
        self.executor.end(stop=self.stop, wait=self.wait, reap=self.reap)

    def _is_late(self):
        return self.deadline is not None and monotonic() >= self.deadline


def check_options(fn, retries, chunksize):
    """Refuse what cannot work, before anything is started."""
    if not callable(fn):
        raise TypeError(f"the function to map must be callable, not {type(fn).__name__}")
    if index(retries) < 0:
        raise ValueError(f"retries must be 0 or more, not {retries}")
    if chunksize != "auto":
        if isinstance(chunksize, str):
            raise ValueError(f'chunksize must be "auto" or a number, not {chunksize!r}')
        if index(chunksize) < 1:
            raise ValueError(f'chunksize must be "auto" or at least 1, not {chunksize}')


def fitting_model(fn, model):
    """The model for a function, where "auto" leaves it open.

    Raises:
        TypeError: the function is one of coroutines, and the model is not.
    """
    if model not in ("auto", "process", "thread") or not gives_coroutines(fn):
        return model
    if model != "auto":
        name = getattr(fn, "__qualname__", type(fn).__qualname__)
        raise TypeError(
            f"{name} is a coroutine function; use model='coroutine' (or 'auto'), or a plain "
            "function that calls asyncio.run"
        )
    return "coroutine"


def _window(executor, chunksize):
    workers = getattr(executor, "_max_workers", None)  # both standard pools have it
    return Window(workers or usable_cpus(), chunksize)


def _progress_bar(fn, iterables, progress):
    from oxgang._core import Progress

    if isinstance(progress, str) and progress != "always":
        raise ValueError(f'progress must be True, False or "always", not {progress!r}')
    sizes = [len(inputs) for inputs in iterables if isinstance(inputs, Sized)]
    name = getattr(fn, "__name__", type(fn).__name__)
    return Progress(min(sizes, default=None), name, "always" if progress == "always" else "auto")


def _watched(source, bar):
    try:
        yield
        for future in source:
            bar.advance(future.exception() is None)
            yield future
    finally:
        source.close()
        bar.finish()
