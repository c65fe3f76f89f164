"""Coroutines over worker processes: a worker's side, and what is said between the two.

Messages are lists of tuples; see `_hosts`. Those that have no buffers are marshalled, which is the
quickest way for plain values between two processes of one interpreter.

| order | then |
|---|---|
| `RUN` | number, name, function (number; bytes, None: known), its arguments |
| `TERMINATE` | number |
| `ASK` | number: to be answered by `ALIVE` |
| `END` | nothing: when all is done |

The arguments are a plain tuple, or a pickle and its buffers; then come limit and grace.

| news | then |
|---|---|
| `READY` | process id |
| `FAILED` | nothing, and what the initializer raised |
| `DONE` | number, and a value, its pickle and buffers |
| `RAISED` | number, and an error as `_pickling.dump_error` has it |
| `TERMINATED` | number |
| `ALIVE` | number of the question |
"""

import asyncio
import marshal
import os
from collections import deque
from pickle import PickleBuffer, loads
from queue import Empty

from oxgang import _pickling
from oxgang.asyncio import _runs
from oxgang.asyncio._run import loop_factory
from oxgang.asyncio._service import initialize
from oxgang.asyncio._watchdog import Watchdog

RUN, TERMINATE, ASK, END = range(4)
READY, FAILED, DONE, RAISED, TERMINATED, ALIVE = range(6)
MOST_FUNCTIONS = 256  # that a host remembers, the newest
_PATIENCE_S = 10.0  # for coroutines that were cancelled at the end
_PLAIN = frozenset((type(None), bool, int, float, str, bytes))
_LONG = frozenset((str, bytes))
_SHORT = 1 << 12


def is_plain(values):
    """Whether values are short and of the kinds that need no pickle."""
    for value in values:
        kind = type(value)
        if kind not in _PLAIN or (kind in _LONG and len(value) > _SHORT):
            return False
    return True


def packed(messages, apart):
    """Messages as the queue gets them; `apart`: some have buffers."""
    return messages if apart else marshal.dumps(messages, 2)


def unpacked(item):
    """Messages that were `packed`."""
    return marshal.loads(item) if type(item) is bytes else item


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


class _Host:
    def __init__(self, loop, orders, news):
        self.loop = loop
        self.orders = orders
        self.news = news
        self.runs = _runs.Runs(loop, self.tell)
        self.functions = {}  # by number; bytes till they could be loaded
        self.remembered = deque()
        self.outgoing = []
        self.apart = False  # whether something in there has buffers
        self.ending = self.over = False
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
            self.say((READY, os.getpid()))
            self.loop.add_reader(self.orders._watch_fd(), self.look)

    def close(self):
        if self.watchdog is not None:
            self.watchdog.stop()
        self.loop.remove_reader(self.orders._watch_fd())
        self.send()

    def look(self):
        while True:
            try:
                orders = self.orders.get(False)
            except Empty:
                break
            for what, number, *rest in unpacked(orders):
                if what == RUN:
                    self.run(number, *rest)
                elif what == TERMINATE:
                    self.runs.terminate(number)
                elif what == ASK:
                    self.say((ALIVE, number))
                else:
                    self.ending = True
        self.rest()

    def run(self, number, name, *what):
        function, code, data, buffers, limit, grace = what
        try:
            fn = self.function(function, code)
            if type(data) is tuple:
                args, kwargs = data, {}
            else:
                args, kwargs = loads(data, buffers=buffers or ())
        except Exception as failure:
            error = _pickling.payload_error(f"the call of {name}", failure)
            self.say((RAISED, number, _pickling.dump_error(error)))
            return
        self.runs.begin(number, fn, args, kwargs, limit=limit, grace=grace)

    def function(self, number, data):
        if not number:
            return _pickling.load_callable(data)
        if data is not None:
            # before it is loaded: from now on the owner counts on it, whatever comes of that
            if len(self.remembered) == MOST_FUNCTIONS:
                del self.functions[self.remembered.popleft()]
            self.remembered.append(number)
            self.functions[number] = data
        fn = self.functions[number]
        if not callable(fn):
            fn = self.functions[number] = _pickling.load_callable(fn)
        return fn

    def tell(self, number, done, value):
        if value is _runs.TERMINATED:
            self.say((TERMINATED, number))
        elif done and is_plain((value,)):
            self.say((DONE, number, value, None, None))
        else:
            if done:
                try:
                    data, buffers = encoded(_pickling.dump_result, value)
                    news = DONE, number, None, data, buffers
                    self.apart |= buffers is not None
                except Exception as error:
                    done, value = False, error
            if not done:
                news = RAISED, number, _pickling.dump_error(value)
            self.say(news)
        self.rest()

    def say(self, news):
        self.outgoing.append(news)
        if len(self.outgoing) == 1:
            self.loop.call_soon(self.send)

    def send(self):
        news, self.outgoing = self.outgoing, []
        apart, self.apart = self.apart, False
        if news:
            self.news.put(packed(news, apart))

    def rest(self):
        if self.ending and not self.runs.by_key:
            self.over = True
            self.loop.stop()
