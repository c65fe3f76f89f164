"""What the tests of coroutine pools run."""

import asyncio
import contextvars
import logging
import os
import random
import signal
import time
from pathlib import Path

import oxgang

VARIABLE = contextvars.ContextVar("VARIABLE", default="nothing")
_set_up = []
_tasks = []


async def same(value):
    await asyncio.sleep(0)
    return value


async def nap(seconds, value=None):
    await asyncio.sleep(seconds)
    return value


async def fail(text):
    raise LookupError(text)


async def pid(_=None):
    return os.getpid()


async def raise_it(error):
    raise error


async def raise_in_a_task(error):
    asyncio.get_running_loop().create_task(raise_it(error))
    await asyncio.sleep(0.05)
    return "went on"


async def variable(new):
    old = VARIABLE.get()
    VARIABLE.set(new)
    return old


async def cancel_self():
    asyncio.current_task().cancel()
    await asyncio.sleep(1)


async def cancel_self_and_return():
    asyncio.current_task().cancel()
    return "regardless"


async def cancel_others():
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    return len(others)


async def look_at_own_task():
    task = asyncio.current_task()
    coroutine = task.get_coro()
    frame = coroutine.cr_frame
    await asyncio.sleep(0)
    known = task in asyncio.all_tasks()
    return coroutine.__qualname__, frame.f_code.co_name, coroutine.cr_running, known


async def lend_task(fail):
    _tasks.append(asyncio.current_task())
    await asyncio.sleep(0.05)
    if fail:
        raise LookupError("lent")
    return "lent"


async def await_lent_task():
    while not _tasks:
        await asyncio.sleep(0.001)
    try:
        return await _tasks.pop()
    except LookupError as error:
        return repr(error)


def make_tasks_of_my_own():
    def factory(loop, coroutine, **options):
        task = asyncio.Task(coroutine, loop=loop, **options)
        task.set_name("of a factory")
        return task

    asyncio.get_running_loop().set_task_factory(factory)


def make_no_tasks():
    asyncio.get_running_loop().set_task_factory(_make_no_task)


def _make_no_task(loop, coroutine, **options):
    if hasattr(coroutine, "function"):  # a call's
        raise ZeroDivisionError("no task")
    return asyncio.Task(coroutine, loop=loop, **options)


async def name_of_task():
    await asyncio.sleep(0)
    return asyncio.current_task().get_name()


async def clean_up(path, seconds=60):
    Path(path, f"begun-{os.getpid()}").touch()
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        Path(path, "cleaned").touch()
        raise


async def answer_late(folder=None):
    if folder is not None:
        Path(folder, "begun-").touch()
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        return "answered"


async def go_on_regardless(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            await asyncio.sleep(0.05)
        except asyncio.CancelledError:
            continue


async def block(seconds):
    time.sleep(seconds)
    return "blocked"


async def spin(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return "spun"


async def count_and_fail(path, times):
    path = Path(path)
    with path.open("a") as file:
        file.write("x")
    if path.stat().st_size <= times:
        raise ConnectionError(f"try {path.stat().st_size}")
    return path.stat().st_size


async def meet(folder, mine, theirs):
    """Marks that it is there, and waits for the other."""
    Path(folder, mine).touch()
    while not Path(folder, theirs).exists():
        await asyncio.sleep(0.005)
    return os.getpid()


async def meet_and_fail(folder, mine, theirs):
    """As `meet`, but fails then; notes each call."""
    with Path(folder, "calls").open("ab") as calls:
        calls.write(b".")
    await meet(folder, mine, theirs)
    raise ConnectionError("failed")


async def die(folder, how):
    """Ends the process when its neighbours have begun."""
    while not Path(folder, "begun").exists():
        await asyncio.sleep(0.005)
    if how == "exit":
        os._exit(7)
    os.kill(os.getpid(), signal.SIGKILL)


async def count_and_die(path, times):
    path = Path(path)
    with path.open("a") as file:
        file.write("x")
    if path.stat().st_size <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return path.stat().st_size


async def grow(count):
    held = [b"x" * (1 << 20) for _ in range(count)]
    await asyncio.sleep(60)
    return held


async def change(array):
    array += 1
    return array


async def unloadable():
    return Unloadable()


async def undumpable():
    return (_ for _ in ())


class Unloadable:
    def __reduce__(self):
        return _refuse, ()


def _refuse():
    raise ValueError("never mind")


async def seeded(_):
    return oxgang.task_seed(), random.Random(oxgang.task_seed()).random()


async def complain(text):
    logging.getLogger("of.coroutines").warning(text)


async def set_up(value):
    await asyncio.sleep(0.01)
    _set_up.append((value, os.getpid(), asyncio.get_running_loop()))


def set_up_plainly(value):
    _set_up.append((value, os.getpid(), asyncio.get_running_loop()))


def fail_to_set_up():
    raise ZeroDivisionError("no set-up")


async def die_in_set_up():
    os._exit(3)


async def setting():
    value, pid, loop = _set_up[-1]
    return value, pid == os.getpid(), loop is asyncio.get_running_loop()


class Asker:
    """Things that give coroutines."""

    def __init__(self, value=1):
        self.value = value

    async def method(self, add):
        return self.value + add

    async def __call__(self, add):
        return self.value + add


def plain(value):
    return value


def decorated(fn):
    from functools import wraps

    @wraps(fn)
    def wrapper(*args):
        return fn(*args)

    return wrapper


same_decorated = decorated(same)
