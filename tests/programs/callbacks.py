"""Callbacks of futures: order, chains, errors in them."""

import concurrent.futures
import logging
import threading

lines = []


class Kept(logging.Handler):
    def emit(self, record):
        lines.append(record.getMessage().partition(" for ")[0])


logging.getLogger("concurrent.futures").addHandler(Kept())


def then(pool, future, function):
    following = concurrent.futures.Future()

    def forward(done):
        if done.exception() is not None:
            following.set_exception(done.exception())
        else:
            pool.submit(function, done.result()).add_done_callback(
                lambda last: following.set_result(last.result())
            )

    future.add_done_callback(forward)
    return following


def broken(_future):
    raise RuntimeError("in a callback")


with concurrent.futures.ThreadPoolExecutor(2) as pool:
    go = threading.Event()
    future = pool.submit(go.wait, 30)
    order = []
    for number in range(3):
        future.add_done_callback(lambda _done, n=number: order.append(n))
    future.add_done_callback(broken)
    future.add_done_callback(lambda done: order.append(done is future))
    go.set()
    future.result()
    print(then(pool, then(pool, pool.submit(int, "20"), lambda n: n + 1), lambda n: n * 2).result())
    failing = then(pool, pool.submit(int, "x"), str)
    print(repr(failing.exception(30)))
print(order, lines)

waited = [concurrent.futures.Future() for _ in range(3)]
waited[1].set_exception(OSError("second"))
done, rest = concurrent.futures.wait(waited, return_when=concurrent.futures.FIRST_EXCEPTION)
print(len(done), len(rest))
threading.Timer(0.01, lambda: [one.set_result(1) for one in waited if not one.done()]).start()
print(len(concurrent.futures.wait(waited, 30).done), concurrent.futures.ALL_COMPLETED)
try:
    next(concurrent.futures.as_completed([concurrent.futures.Future()], timeout=0.01))
except concurrent.futures.TimeoutError as error:
    print(error)
