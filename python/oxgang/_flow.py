"""The flow of many calls through an executor: bounded going in, bounded coming out.

Three engines, all generators driven by the consumer alone (no thread, no timer):

- `oldest_first`: results in the order of the inputs, each task run once. Nothing is made per
  item but its future; the generator waits on the oldest.
- `as_done`: results as they come, each task run once. The futures' callbacks put them in a
  queue; the generator waits on the queue.
- `by_event`: tasks that may be run again, in either order. Also by callbacks, since a failure
  must be seen before its turn comes, and with a record per item.

Promises of all:

- What is submitted and not yet yielded stays within the `Window`, so an endless input, or a
  consumer that stops reading, needs bounded memory.
- They are *primed*: created by `primed`, which has submitted the first window, and stopped the
  generator inside its `try`. So work begins at the call, and closing or dropping the
  generator cancels what has not begun, even if nobody ever asked for a result.
- When reading an input or submitting fails, everything submitted before is yielded first,
  then that error is raised. If nothing was before, it is raised at the call.

Only the public face of an executor is used, so any `concurrent.futures.Executor` will do.
"""

from collections import deque
from concurrent.futures import CancelledError
from heapq import heappop, heappush
from itertools import islice, repeat, starmap
from queue import Empty, SimpleQueue
from random import random
from time import monotonic

AHEAD_S = 0.1  # how much work is kept in flight
MOST = 4096  # items in flight at most, whatever the rate
GLANCE_S = 0.002  # a wait on a slow item looks so soon whether the workers run dry,
LONGEST_GLANCE_S = 0.05  # and ever less often while they do not
FIRST_BACKOFF_S = 0.05
LONGEST_BACKOFF_S = 2.0
TIME_IS_OVER = "the time given to map is over and not every item is done"


def primed(generator):
    """Run `generator` to its first yield, where it is inside its `try`."""
    next(generator)
    return generator


class Window:
    """How many items may be submitted and not yet yielded.

    Between `size` and `size + batch` items are kept. The size follows the rate at which
    results are taken: enough for `AHEAD_S` seconds of work, at least `least`, at most `most`.
    It at most doubles and loses at most a quarter at a time, so one odd moment weighs little.
    """

    __slots__ = ("batch", "least", "most", "size")

    def __init__(self, workers, chunksize="auto"):
        self.least = 2 * workers + 1
        if chunksize != "auto":
            self.least = max(self.least, chunksize * workers)
        self.most = max(MOST, self.least)
        self._resize(max(self.least, 4 * workers))

    def adapt(self, count, seconds):
        """`count` items were taken in `seconds`."""
        wanted = int(count * AHEAD_S / seconds) if seconds > 0 else self.most
        wanted = min(max(wanted, self.size * 3 // 4), self.size * 2)
        self._resize(min(max(wanted, self.least), self.most))

    def _resize(self, size):
        self.size = size
        self.batch = max(1, size // 4)


class Line(deque):
    """Futures that are submitted and not yet yielded, the oldest first."""

    __slots__ = ()

    def wait(self, seconds):
        """Whether the oldest is done within so many seconds."""
        return _is_done_within(self[0], seconds)

    def busy(self, enough):
        """How many are not done; stops counting at `enough`. The newest are likely."""
        count = 0
        for future in reversed(self):
            if not future.done():
                count += 1
                if count == enough:
                    break
        return count


class Feed:
    """The items still to be submitted; taking one from `started` submits it, for `line`."""

    __slots__ = ("error", "line", "open", "started")

    def __init__(self, started, line):
        self.started = started
        self.line = line
        self.open = True
        self.error = None

    def fill(self, count):
        """Submit up to `count` more and append them to the line."""
        if not self.open or count <= 0:
            return
        line = self.line
        before = len(line)
        try:
            line.extend(islice(self.started, count))
        except Exception as error:
            # Told to the consumer in its turn; see `finish`.
            self.error = error
            self.open = False
        else:
            self.open = len(line) - before == count

    def finish(self):
        """Everything before is yielded: raise what ended the inputs, if something did."""
        if self.error is not None:
            try:
                raise self.error
            finally:
                self.error = None  # the error knows this frame; do not know the error


def oldest_first(started, window, deadline=None):
    """Yield the futures that the iterator `started` gives, done, in that order.

    Taking a future from `started` must submit its task.
    """
    line = Line()
    feed = Feed(started, line)
    try:
        feed.fill(window.size + window.batch)
        if not line:
            feed.finish()
        yield
        while line:
            begun = monotonic()
            count = min(window.batch, len(line))
            for _ in repeat(None, count):
                if not line[0].done():
                    wait_for_oldest(line, feed, window, deadline)
                yield line.popleft()
            window.adapt(count, monotonic() - begun)
            feed.fill(window.size + window.batch - len(line))
        feed.finish()
    finally:
        _cancel(line)


def wait_for_oldest(line, feed, window, deadline):
    """Wait until the oldest of `line` is done, and keep the workers busy meanwhile.

    One slow item must not stop the others: when what was submitted after it is nearly all
    done, more is submitted, up to the most that may lie unread.
    """
    glance = GLANCE_S
    while True:
        wait = glance if feed.open and len(line) < window.most else None
        if deadline is not None:
            left = _time_left(deadline)
            wait = left if wait is None else min(wait, left)
        if line.wait(wait):
            return
        if deadline is not None and monotonic() >= deadline:
            raise TimeoutError(TIME_IS_OVER)
        if len(line) < window.most:
            idle = window.size - line.busy(window.size)
            if idle >= window.size - 1:
                window.adapt(idle, glance)  # only the oldest is at work: look further ahead
            before = len(line)
            feed.fill(min(idle, window.most - before))
            # what was submitted now may be done as soon as what was before
            glance = GLANCE_S if len(line) > before else min(2 * glance, LONGEST_GLANCE_S)


def _is_done_within(future, seconds):
    try:
        future.exception(seconds)
    except TimeoutError:
        pass  # not here: an interruption in this block would show the timeout as its context
    except CancelledError:
        return True
    return future.done()


def as_done(started, window, deadline=None):
    """Yield the futures that the iterator `started` gives as they are done."""
    events = SimpleQueue()
    running = {}  # a set that knows its order

    def watched():
        for future in started:
            running[future] = None
            future.add_done_callback(events.put)
            yield future

    submitted, ready = deque(), deque()
    feed = Feed(watched(), submitted)
    try:
        feed.fill(window.size + window.batch)
        if not submitted:
            feed.finish()
        yield
        while running:
            submitted.clear()  # these are found through `running`
            begun = monotonic()
            count = min(window.batch, len(running))
            for _ in repeat(None, count):
                ready.append(events.get() if deadline is None else _next_done(events, deadline))
                running.pop(ready[0])
                yield ready.pop()
            window.adapt(count, monotonic() - begun)
            feed.fill(window.size + window.batch - len(running))
        feed.finish()
    finally:
        _cancel(running)


class Item:
    """One call on its way through `by_event`. Quacks like its (last) future when done."""

    __slots__ = ("attempts", "call", "deaths", "final", "future", "index")

    def __init__(self, index, call):
        self.index = index
        self.call = call
        self.attempts = 0
        self.deaths = ()  # of the workers that its earlier attempts have cost
        self.final = False
        self.future = None

    def result(self):
        try:
            return self.future.result()
        finally:
            del self  # a failure's traceback holds this frame; see Future.result

    def exception(self):
        return self.future.exception()


def by_event(launch, calls, window, *, ordered, retries, deadline=None):
    """Yield an `Item` for each of `calls`, done: as they come, or in order.

    `launch(call)` submits one and returns its future. A task that raised an Exception or was
    lost is launched again, up to `retries` more times, after a pause that doubles from
    `FIRST_BACKOFF_S` to `LONGEST_BACKOFF_S`, less up to half by chance, so that what failed
    together does not come back together; the others go on meanwhile. If it cannot be launched
    again (the pool is broken or shut down) its last failure stands. One that has cost several
    workers says so of all of them.

    (The pools can run calls again by themselves, too. Here that is the flow's business, since
    what pauses must not count as being in flight: it would hold up the others.)
    """
    flow = _EventFlow(launch, calls, ordered=ordered, retries=retries, deadline=deadline)
    ready = flow.ready
    try:
        flow.fill(window.size + window.batch)
        if not flow.held():
            flow.feed.finish()
        yield
        begun, count = monotonic(), 0
        while flow.held():
            if flow.again:
                flow.launch_again()
            if ready:
                yield ready.popleft()
                count += 1
                if count >= window.batch:
                    window.adapt(count, monotonic() - begun)
                    begun, count = monotonic(), 0
                    flow.fill(window.size + window.batch - flow.held())
            else:
                # The consumer waits for a slow item, or for one that is to run again: that
                # must not let the workers run dry.
                idle = window.size - len(flow.running)
                if idle >= window.batch:
                    flow.fill(min(idle, window.most - flow.held()))
                flow.wait_for_event()
        flow.feed.finish()
    finally:
        _cancel(flow.running)
        del flow.feed  # it starts items through the flow: they know each other


class _EventFlow:
    """Where each item of `by_event` is.

    An item is `running`, or waits to run `again`, or is final: then in `ready`, to be yielded
    next, or, ordered, still in `line` behind one that is not final.
    """

    __slots__ = (
        "again",
        "deadline",
        "events",
        "feed",
        "launch",
        "line",
        "ordered",
        "ready",
        "retries",
        "running",
    )

    def __init__(self, launch, calls, *, ordered, retries, deadline):
        self.launch = launch
        self.ordered = ordered
        self.retries = retries
        self.deadline = deadline
        self.events = SimpleQueue()  # futures, put by their callbacks as they are done
        self.running = {}  # future -> Item
        self.again = []  # heap of (when, index, Item)
        self.line = deque()  # ordered only: the items not in `ready`, oldest first
        self.ready = deque()
        self.feed = Feed(starmap(self.start_new, enumerate(calls)), self.line)

    def start_new(self, index, call):
        return self.start(Item(index, call))

    def start(self, item):
        future = self.launch(item.call)
        item.future = future
        item.attempts += 1
        self.running[future] = item
        future.add_done_callback(self.events.put)
        return item

    def fill(self, count):
        """Start up to `count` new items."""
        self.feed.fill(count)
        if not self.ordered:
            self.line.clear()  # these are found through `running`

    def held(self):
        """How many items are begun and not yet yielded."""
        if self.ordered:
            return len(self.ready) + len(self.line)
        return len(self.ready) + len(self.running) + len(self.again)

    def launch_again(self):
        """Start those whose pause is over."""
        now = monotonic()
        while self.again and self.again[0][0] <= now:
            item = heappop(self.again)[-1]
            try:
                self.start(item)
            except Exception:
                self.settle(item)  # its own failure tells more than "cannot submit" would

    def wait_for_event(self):
        """Wait until a task is done, or a pause is over; TimeoutError at the deadline."""
        future = self.next_done()
        if future is None:
            return
        item = self.running.pop(future)
        if item.attempts <= self.retries and _is_worth_repeating(future):
            item.deaths += getattr(future.exception(), "deaths", ())
            heappush(self.again, (monotonic() + pause_before(item.attempts), item.index, item))
        else:
            _tell_deaths(future, item.deaths)
            self.settle(item)

    def next_done(self):
        if self.deadline is None and not self.again:
            return self.events.get()
        return _next_done(self.events, self.deadline, self.again[0][0] if self.again else None)

    def settle(self, item):
        """Its last attempt is over."""
        item.final = True
        if not self.ordered:
            self.ready.append(item)
            return
        while self.line and self.line[0].final:
            self.ready.append(self.line.popleft())


def pause_before(attempt):
    """Seconds until an item that has been tried so often is tried again."""
    # 2 ** 1024 is no float, and the pause has long been the longest then
    pause = min(FIRST_BACKOFF_S * 2 ** min(attempt - 1, 60), LONGEST_BACKOFF_S)
    return pause * (1 - random() / 2)


def _tell_deaths(future, earlier):
    """The workers that an item's earlier attempts have cost, in its last failure."""
    if earlier and not future.cancelled() and (error := future.exception()) is not None:
        from oxgang._faults import history

        if hasattr(error, "deaths"):
            error.deaths = earlier = earlier + error.deaths
        error.add_note(history(earlier))


def _is_worth_repeating(future):
    """Whether it failed by an Exception. Cancelled by someone, or told to exit: no."""
    return not future.cancelled() and isinstance(future.exception(), Exception)


def _next_done(events, deadline, moment=None):
    """The next event, or None at `moment`; TimeoutError at the deadline."""
    first = min(time for time in (deadline, moment) if time is not None)
    while True:
        try:
            return events.get(timeout=_time_left(first))
        except Empty:
            pass  # and not in this block, as above
        now = monotonic()  # a wait may end a little early
        if deadline is not None and now >= deadline:
            raise TimeoutError(TIME_IS_OVER)
        if moment is not None and now >= moment:
            return None


def _time_left(deadline):
    return max(0.0, deadline - monotonic())


def _cancel(futures):
    """Cancel what has not begun, the newest first, so that no worker gets to it meanwhile."""
    for future in reversed(list(futures)):
        future.cancel()
    futures.clear()
