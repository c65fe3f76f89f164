"""Coroutines over worker processes: the owner's side.

A *host* is a worker of a `ProcessPoolExecutor` that runs one long task, `_host.live`: a loop with
up to `concurrency` coroutines. So how a worker comes to exist, who notices its death, its limit of
memory and what becomes of it when the owner dies are the pool's business, and stand.

Between the owner and a host there are two queues in shared memory, of this host alone. Orders go
there, news come back, each message a list of all that there was in one round of the loop. Which
call is where stands in the owner's table, `Host.calls`, and nowhere else.

# An order, and deaths

| the host dies | then the message | so its calls |
|---|---|---|
| before it takes the message | is in the queue | had not begun: they go to the head of the line |
| while it takes it | is in the queue, or is not | as above, or as below |
| after that | is gone | have begun: lost, unless told |
| while it tells | is in the queue, whole, or is not | are done, or lost |

A lost call is tried again, if it has retries left, or fails with `WorkerCrashed` (or
`MemoryLimitExceeded`), which names it, the process and how that ended. All news are taken in before
any call counts as lost. A host that dies is followed by a new one, unless `_STILLBORN` in a row
have died before they were ready: that breaks the pool. The owner's own death ends the hosts, as it
ends all workers.

# A loop that stands still

A limit is kept by the host itself. Where nothing has been heard of a call when its limit and its
grace are over, the owner asks for a sign of life; a host that gives none within another grace (at
least `_LEAST_ANSWER_S`) is ended: the call fails with `TaskTimeout`, the others that had begun
there are lost.
"""

import itertools
import threading
from collections import deque
from concurrent.futures import BrokenExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pickle import loads
from time import monotonic

from oxgang import _core, _pickling
from oxgang._faults import crash_error
from oxgang.asyncio import _host, _runs
from oxgang.asyncio._calls import name_of
from oxgang.asyncio._service import Service
from oxgang.multiprocessing.queues import Queue

_STILLBORN = 3
_MOST_FUNCTIONS = 256  # then they are told anew
_LEAST_ANSWER_S = 1.0


class Functions:
    """The functions of calls as bytes, each with a number under which a host knows it."""

    def __init__(self):
        self._known = {}  # function -> (number, bytes, its name, what they stay good for)
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)

    def encoded(self, fn):
        """Its number, its bytes, and its name. Number 0: the bytes are good for this moment."""
        try:
            known = self._known.get(fn)
        except TypeError:
            known = None  # nothing that can be a key
        if known is not None and _still_good(known[3]):
            return known[:3]
        called = name_of(fn)
        if not hasattr(fn, "__module__") or not hasattr(fn, "__qualname__"):
            return 0, _pickling.dumps(fn), called  # a partial, or an object
        data, watched = _pickling.dump_callable(fn)
        if watched is None or getattr(fn, "__self__", None) is not None:
            return 0, data, called
        with self._lock:
            if len(self._known) >= _MOST_FUNCTIONS:
                self._known.clear()
            number = next(self._numbers)
            self._known[fn] = number, data, called, watched
        return number, data, called


def _still_good(watched):
    return not watched or all(names.get(name) is value for names, name, value in watched)


class Host:
    """One worker process, as the owner sees it."""

    def __init__(self):
        self.orders = Queue()
        self.news = Queue()
        self.calls = {}  # number -> Call
        self.outgoing = []
        self.apart = False  # whether something in there has buffers
        self.functions = deque(maxlen=_host.MOST_FUNCTIONS)  # numbers of those that it knows
        self.future = self.pid = None
        self.ready = self.ending = False
        self.pinged = self.answered = 0
        self.late = None  # the call because of which it was ended, and its limit


class Hosts(Service):
    """Coroutines in worker processes.

    Args:
        limit: Calls that may be begun at a time.
        name: Of the thread.
        shape: Processes, calls in one of them, a multiprocessing context, bytes of memory.
        start: What a host needs: the loop, the initializer, its arguments, `watch_blocking`.
    """

    def __init__(self, limit, name, shape, start):
        from oxgang.asyncio._run import loop_factory

        # an owner's loop does little: the standard one will do if the hosts' is a function
        chosen = start[0] if isinstance(start[0], str) else "auto"
        super().__init__(loop_factory(chosen), limit, name)
        self.processes, self.concurrency, self.mp_context, self.memory_limit = shape
        self.start = start
        self.functions = Functions()
        self.numbers = itertools.count(1)
        self.hosts = []
        self.pool = self.fittest = None
        self.fit_until = 0  # so many calls: then another host may be fitter
        self.stillborn = 0

    # -- by who submits ------------------------------------------------------------------------

    def encoded(self, fn):
        """See `Functions`."""
        return self.functions.encoded(fn)

    def prepare(self, call, encoded):
        """Encodes a call, at once: what becomes of the arguments later is the caller's affair."""
        call.encoded = encoded
        number, _, call.fn = encoded
        if call.kwargs or not _core.are_plain(call.args):
            made = _host.encoded(_pickling.dump_call, (call.args, call.kwargs))
            call.args, call.buffers = made
        elif number and call.limit[0] is None:
            call.plain = number
        call.kwargs = None

    # -- in the loop's thread --------------------------------------------------------------------

    def before(self):
        # here, since at the end of a program no pool can begin any more
        from oxgang.concurrent.futures import ProcessPoolExecutor

        self.pool = ProcessPoolExecutor(
            self.processes, mp_context=self.mp_context, memory_limit=self.memory_limit
        )
        self.hosts = [self._new_host() for _ in range(self.processes)]

    async def open(self):
        for host in self.hosts:
            self._attend(host)

    def _new_host(self):
        host = Host()
        host.future = self.pool.submit(_host.live, host.orders, host.news, self.start)
        return host

    def _attend(self, host):
        self.loop.add_reader(host.news._watch_fd(), self._hear, host)
        urge = self.inbox.urge
        host.future.add_done_callback(lambda _: urge(partial(self._host_over, host)))

    def has_room(self):
        # in one round of begins only they change who has how much to do
        if self.fittest is None or len(self.fittest.calls) >= self.fit_until:
            self._choose()
        return self.fittest is not None

    def _choose(self):
        """Finds the host with the fewest calls, and until when it is."""
        fittest, least, next_to_it = None, self.concurrency, self.concurrency
        for host in self.hosts:
            count = len(host.calls)
            if host.ending:
                continue
            if count < least:
                fittest, least, next_to_it = host, count, least
            elif count < next_to_it:
                next_to_it = count
        self.fittest, self.fit_until = fittest, max(next_to_it, least + 1)

    def begin_next(self, most):
        host, calls = self.fittest, self.fittest.calls
        begun = _core.launch(
            self.line,
            min(most, self.fit_until - len(calls)),
            host.functions,
            calls,
            self.begun,
            host.outgoing,
            self.numbers,
            monotonic(),
        )
        return begun or super().begin_next(most)

    def begin(self, call):
        host = self.fittest
        if call.number is None:
            call.number = next(self.numbers)
        call.began = monotonic()
        host.calls[call.number] = call
        number, function, _ = call.encoded
        limit, grace = call.limit
        if number and number in host.functions:
            function = None
        elif number:
            host.functions.append(number)
        if call.buffers is not None:
            host.apart = True
        what = number, function, call.args, call.buffers, limit, grace
        host.outgoing.append((_host.RUN, call.number, call.fn, *what))
        if limit is not None:
            self._look_later(host, call)

    def all_begun(self):
        self.fittest = None
        for host in self.hosts:
            if host.outgoing:
                self._send(host)

    def _order(self, host, order):
        host.outgoing.append(order)
        if len(host.outgoing) == 1:
            self.loop.call_soon(self._send, host)

    def _send(self, host):
        orders, host.outgoing = host.outgoing, []
        apart, host.apart = host.apart, False
        if orders:
            host.orders.put(_host.packed(orders, apart))

    def _hear(self, host):
        # what follows from all the news follows at once: nobody else's turn of the loop, and so of
        # the interpreter, lies between
        with self.going_on():
            self._take_news(host)

    def _take_news(self, host):
        for news in _core.settle(_host.taken(host.news), host.calls, self.begun):
            what, number, *facts = news
            if what == _host.DONE:
                call = host.calls.pop(number, None)
                if call is not None:
                    self.finish(call, *_decoded(call, facts))
            elif what == _host.READY:
                host.ready, host.pid, self.stillborn = True, number, 0
            elif what == _host.ALIVE:
                host.answered = number
            elif what == _host.FAILED:
                error = BrokenProcessPool(
                    "the initializer of a pool of coroutines failed in a worker process; the "
                    "pool cannot be used any more"
                )
                error.__cause__ = _pickling.load_error(facts[0])
                self.break_off(error)
                return
            else:
                call = host.calls.pop(number, None)
                if call is not None:
                    raised = what == _host.RAISED
                    error = _pickling.load_error(facts[0]) if raised else _runs.TERMINATED
                    self.finish(call, False, error)

    def _look_later(self, host, call):
        self.loop.call_later(sum(call.limit), self._look_after, host, call.number)

    def _look_after(self, host, number):
        """The limit of a call and its grace are over."""
        call = host.calls.get(number)
        if call is None or host not in self.hosts:
            return
        host.pinged += 1
        self._order(host, (_host.ASK, host.pinged))
        patience = max(call.limit[1], _LEAST_ANSWER_S)
        self.loop.call_later(patience, self._end_if_silent, host, host.pinged, call)

    def _end_if_silent(self, host, ping, call):
        if host not in self.hosts or host.calls.get(call.number) is not call:
            return
        if host.answered < ping:
            host.late = call
            host.future.terminate()
        else:
            # it began late, or was given up this very moment; but the loop may yet stand still
            self._look_later(host, call)

    # -- how a host ends -------------------------------------------------------------------------

    def _host_over(self, host):
        if host not in self.hosts:
            return
        self._take_news(host)
        self.hosts.remove(host)
        self.loop.remove_reader(host.news._watch_fd())
        self._take_back(host)
        lost, host.calls = list(host.calls.values()), {}
        error = host.future.exception() if not host.future.cancelled() else None
        for call in lost:
            self._lose(host, call, error)
        if not host.ready:
            self.stillborn += 1
        if self.why_broken is None and not host.ending:
            self._replace(error)
        self.go_on()
        if not self.hosts and (host.ending or self.why_broken is not None):
            self.stop()

    def _take_back(self, host):
        """Calls that had not begun there go to the head of the line."""
        waiting = [*_host.taken(host.orders), *host.outgoing]
        numbers = sorted(filter(None, map(_host.call_of, waiting)))
        for number in reversed(numbers):
            call = host.calls.pop(number, None)
            if call is not None:
                del self.begun[call.future]
                call.failure = call  # it is not to be begun for the first time; see `go_on`
                self.line.appendleft(call)

    def _lose(self, host, call, error):
        loss = _fact(host, call, error)
        if call.terminated and loss[3] == "crash":
            loss = (*loss[:3], "terminated", *loss[4:])
        call.losses = *call.losses, loss
        told = crash_error(call.number, call.fn, call.losses, alone=False)
        if host.late not in (None, call):
            told.add_note(
                f"It was ended since {host.late.fn} blocked its event loop beyond a time limit."
            )
        again = loss[3] == "crash" or isinstance(told, call.options.retry_on or ())
        if again and self.has_a_try_left(call):
            self.begun.pop(call.future, None)
            self.try_again(call, told)
            return
        call.terminated = True  # so that it is not tried again
        self.finish(call, False, told)

    def _replace(self, error):
        if self.stillborn >= _STILLBORN:
            broken = BrokenProcessPool(
                f"{self.stillborn} worker processes in a row ended before they were ready: {error}"
            )
            broken.__cause__ = error
            self.break_off(broken)
            return
        try:
            host = self._new_host()
        except (OSError, RuntimeError, BrokenExecutor) as refused:
            if not self.hosts:
                broken = BrokenProcessPool(
                    f"no worker process is left, nor can one start: {refused}"
                )
                broken.__cause__ = refused
                self.break_off(broken)
            return
        self.hosts.append(host)
        self._attend(host)

    def last_call(self):
        if not self.hosts:
            self.stop()
        for host in self.hosts:
            if not host.ending:
                host.ending = True
                self._order(host, (_host.END, 0))

    def end_call(self, call):
        for host in self.hosts:
            if call.number in host.calls:
                self._order(host, (_host.TERMINATE, call.number))

    def end_all(self):
        for host in self.hosts:
            host.calls.clear()
        if self.pool is not None:
            self.pool.kill_workers()

    def end(self):
        if self.pool is not None:
            if self.hosts:
                self.pool.kill_workers()
            self.pool.shutdown()

    def statistics(self):
        workers = [{"pid": host.pid, "tasks": len(host.calls)} for host in list(self.hosts)]
        return {**super().statistics(), "workers": workers}


def _decoded(call, facts):
    data, buffers = facts
    try:
        return True, loads(data, buffers=buffers or ())
    except Exception as failure:
        return False, _pickling.payload_error(f"the result of {call.fn}", failure)


def _fact(host, call, error):
    """How a call was lost, as `crash_error` takes it."""
    seconds = monotonic() - call.began
    pid, code = getattr(error, "pid", None), getattr(error, "exitcode", None)
    pid = host.pid if pid is None else pid
    if host.late is call:
        return pid, code, seconds, "time", call.limit[0], None, "", None
    if isinstance(error, MemoryError):
        facts = error.limit, error.used, "", error.peak
        return pid, code, seconds, "memory", *facts
    killed = getattr(error, "out_of_memory", None)
    return pid, code, seconds, "crash", None, None if killed is None else int(killed), "", None
