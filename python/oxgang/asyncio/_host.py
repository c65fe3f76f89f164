"""Coroutines over worker processes: a worker's side, and what is said between the two.

Messages are lists of tuples; see `_hosts`. Those that have no buffers are marshalled, which is the
quickest way for plain values between two processes of one interpreter.

| order | then |
|---|---|
| (none) | number, number of a function that is known, plain arguments: a call without a limit |
| `RUN` | number, name, function (number; bytes, None: known), its arguments |
| `TERMINATE` | number |
| `ASK` | number: to be answered by `ALIVE` |
| `END` | nothing: when all is done |

The arguments are a plain tuple, or a pickle and its buffers; then come limit and grace.

| news | then |
|---|---|
| (none) | number, and a plain value: nothing else has two parts |
| `READY` | process id, nothing |
| `FAILED` | nothing, and what the initializer raised |
| `DONE` | number, and a value's pickle and its buffers |
| `RAISED` | number, and an error as `_pickling.dump_error` has it |
| `TERMINATED` | number, nothing |
| `ALIVE` | number of the question, nothing |
"""

import asyncio
import contextlib
import marshal
import os
from collections import deque
from pickle import PickleBuffer, loads
from queue import Empty

from oxgang import _core, _pickling
from oxgang.asyncio import _runs
from oxgang.asyncio._run import loop_factory
from oxgang.asyncio._service import initialize
from oxgang.asyncio._watchdog import Watchdog

RUN, TERMINATE, ASK, END = range(4)
READY, FAILED, DONE, RAISED, TERMINATED, ALIVE = range(6)
MOST_FUNCTIONS = 256  # that a host remembers, the newest
_PATIENCE_S = 10.0  # for coroutines that were cancelled at the end


def packed(messages, apart):
    """Messages as the queue gets them; `apart`: some have buffers."""
    return messages if apart else marshal.dumps(messages, 2)


def unpacked(item):
    """Messages that were `packed`."""
    return marshal.loads(item) if type(item) is bytes else item


def call_of(order):
    """The number of the call that is to begin by an order; None: by none."""
    if len(order) == 3:
        return order[0]
    return order[1] if order[0] == RUN else None


def taken(queue):
    """All messages that are in a queue."""
    messages = []
    with contextlib.suppress(Empty):  # by a wake-up that came late
        messages += unpacked(queue.get(False))
        while not queue.empty():
            messages += unpacked(queue.get(False))
    return messages


def encoded(dump, value):
    """What `dump` makes of a value: bytes, and long buffers that go beside them."""
    made = dump(value)
    if type(made) is tuple:
        made, buffers = made
        return bytes(made), [PickleBuffer(buffer) for buffer in buffers]
    return bytes(made), None


def live(orders, news, start):
    """A host's life, as a task of a worker."""
    loop, initializer, initargs, watch_blocking = start
    loop = loop_factory(loop)()
    asyncio.set_event_loop(loop)
    host = _Host(loop, orders, news)
    opening = loop.create_task(host.open(initializer, initargs, watch_blocking))
    try:
        _runs.run_until_stopped(loop, lambda: host.over)
    finally:
        opening.cancel()
        host.close()
        _runs.close(loop, _PATIENCE_S)


class _Known:
    """A function that the owner names by its number."""

    __slots__ = ("data", "fn", "is_bare", "name")

    def __init__(self, name, data):
        self.name = name
        self.data = data
        self.fn = None  # till it could be loaded
        self.is_bare = False


class _Host:
    def __init__(self, loop, orders, news):
        self.loop = loop
        self.orders = orders
        self.news = news
        self.outgoing = []
        self.runs = _runs.Runs(loop, self.tell, self.outgoing)
        self.functions = {}  # by number
        self.remembered = deque()
        self.apart = False  # whether something in there has buffers
        self.ending = self.over = False
        self.sending = False  # that is to come
        self.watchdog = None

    async def open(self, initializer, initargs, watch_blocking):
        if watch_blocking is not None:
            self.watchdog = Watchdog(self.loop, watch_blocking, self.runs.name_of_task)
        try:
            await initialize(initializer, initargs)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self.say((FAILED, 0, _pickling.dump_error(error)))
            self.ending = True
            self.rest()
        else:
            self.say((READY, os.getpid(), None))
            self.send()
            self.loop.add_reader(self.orders._watch_fd(), self.look)

    def close(self):
        if self.watchdog is not None:
            self.watchdog.stop()
        self.loop.remove_reader(self.orders._watch_fd())
        self.send()

    def look(self):
        self.send()  # before what may begin now, and block the loop
        self.sending = True
        functions, begin, make_task = self.functions, self.runs.begin_plain, self.runs.task_maker()
        for order in taken(self.orders):
            if len(order) == 3:
                number, function, args = order
                known = functions[function]
                if known.is_bare:
                    begin(make_task, number, known.fn, args)
                else:
                    self.run(number, known.name, function, None, args, None, None, None)
                continue
            what, number, *rest = order
            if what == RUN:
                self.run(number, *rest)
            elif what == TERMINATE:
                self.runs.terminate(number)
            elif what == ASK:
                self.say((ALIVE, number, None))
            else:
                self.ending = True
        # those that were begun have their first step now, or had it; what comes of it goes together
        self.loop.call_soon(self.send)
        self.rest()

    def run(self, number, name, *what):
        function, code, data, buffers, limit, grace = what
        try:
            fn = self.function(function, name, code)
            if type(data) is tuple:
                args, kwargs = data, {}
            else:
                args, kwargs = loads(data, buffers=buffers or ())
        except Exception as failure:
            error = _pickling.payload_error(f"the call of {name}", failure)
            self.say((RAISED, number, _pickling.dump_error(error)))
            return
        self.runs.begin(number, fn, args, kwargs, limit=limit, grace=grace)

    def function(self, number, name, data):
        if not number:
            return _pickling.load_callable(data)
        if data is not None:
            # before it is loaded: from now on the owner counts on it, whatever comes of that
            if len(self.remembered) == MOST_FUNCTIONS:
                del self.functions[self.remembered.popleft()]
            self.remembered.append(number)
            self.functions[number] = _Known(name, data)
        known = self.functions[number]
        if known.fn is None:
            known.fn = _pickling.load_callable(known.data)
            known.is_bare = _runs.is_bare(known.fn)
        return known.fn

    def tell(self, number, done, value):
        if value is _runs.TERMINATED:
            self.say((TERMINATED, number, None))
        elif done and _core.are_plain((value,)):
            self.say((number, value))
        else:
            if done:
                try:
                    data, buffers = encoded(_pickling.dump_result, value)
                    news = DONE, number, data, buffers
                    self.apart |= buffers is not None
                except Exception as error:
                    done, value = False, error
            if not done:
                news = RAISED, number, _pickling.dump_error(value)
            self.say(news)
        self.rest()

    def say(self, news):
        self.outgoing.append(news)
        if not self.sending:
            self.sending = True
            self.loop.call_soon(self.send)

    def send(self):
        self.sending = False
        apart, self.apart = self.apart, False
        if self.outgoing:
            news = packed(self.outgoing[:] if apart else self.outgoing, apart)
            self.outgoing.clear()
            self.news.put(news)

    def rest(self):
        if self.ending and not self.runs.by_key:
            self.over = True
            self.loop.stop()
