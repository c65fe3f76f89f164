"""Functions for the command to call; each tells by files what it did."""

import asyncio
import os
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

WATCHDOG = 300  # longer than the one around the command: it must be ended, not wait for us


def upper(text):
    return text.upper()


def same(text):
    return text


def length(text):
    return {"length": len(text), "text": text}


def keywords(**kwargs):
    return kwargs


def named(name, age):
    return f"{name}:{age}:{type(age).__name__}"


def odd_fails(text):
    if int(text) % 2:
        raise ValueError(f"{text} is odd\nreally")
    return int(text)


def columns(text):
    """ "a=1,b=2" -> {"a": "1", "b": "2"}"""
    return dict(pair.split("=") for pair in text.split(","))


def die(text):
    if text == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if text == "leave":
        os._exit(3)
    return text


class Pair(NamedTuple):
    left: int
    right: int


@dataclass
class Point:
    x: float
    y: float


class Opaque:
    pass


class Unprintable:
    def __str__(self):
        raise RuntimeError("no text for you")


def make(what):
    return {
        "pair": Pair(1, 2),
        "point": Point(1.5, 2.5),
        "nan": float("nan"),
        "nested nan": {"m": [float("nan"), float("inf"), 1.0]},
        "none": None,
        "true": True,
        "list": [1, "é", None],
        "path": Path("a/b"),
        "big": 2**70,
        "opaque": Opaque(),
        "holds opaque": {"inner": [Opaque()]},
        "unprintable": Unprintable(),
        "surrogate": "\udcff",
        "text": 'comma, "quote"\nnewline',
    }[what]


def pid(text):
    time.sleep(0.001)  # long enough that one worker cannot take all
    return os.getpid()


def touch(path):
    Path(path).touch()
    return path


def second_try(path):
    """Fails the first time."""
    if not os.path.exists(path):
        Path(path).touch()
        raise OSError("try again")
    return "done"


def note_then_hold(path):
    """Says that it runs, and goes on for ever as far as the test is concerned."""
    Path(path).write_text(str(os.getpid()))
    time.sleep(WATCHDOG)
    raise TimeoutError("nobody ended this call")


def note_then_wait(path):
    """Says that it runs, and returns once there is a file beside it that says so."""
    Path(path).write_text(str(os.getpid()))
    end = time.monotonic() + WATCHDOG
    while not Path(path + ".go").exists():
        if time.monotonic() > end:
            raise TimeoutError("nobody let this call go on")
        time.sleep(0.005)
    return "done"


def hold_unless_first(text):
    """The input "first" returns (or fails, for "fail"); all others hold."""
    if text.startswith("first"):
        return text
    if text.startswith("fail"):
        raise ValueError(text)
    time.sleep(WATCHDOG)
    raise TimeoutError("nobody ended this call")


def slowly(text):
    time.sleep(0.002)
    return {"text": text, "twice": text * 2}


def sometimes_slow(text):
    if text == "spin":
        while True:
            pass
    if text == "stuck":
        lock = threading.Lock()
        lock.acquire()
        while True:
            try:
                lock.acquire()
            except TimeoutError:
                continue
    if text == "fill":
        kept = []
        while True:
            kept.append(b"x" * (1 << 20))
    return text


def log_run(text):
    """Appends the input to the file named by the environment: who ran, how often."""
    with open(os.environ["OXGANG_TEST_LOG"], "a") as log:
        log.write(text + "\n")
    time.sleep(0.001)
    return text


def two(first, second):
    return first


async def coroutine(text):
    return text


not_callable = 3


async def nap_and_upper(text):
    await asyncio.sleep(0.01)
    return text.upper()


async def meet_all(text):
    """Ends when as many calls as the number in the text run at once."""
    count, own = map(int, text.split())
    Path(f"meet-{own}").touch()
    while len(list(Path().glob("meet-*"))) < count:
        await asyncio.sleep(0.005)
    return own


async def hold_after_first(text):
    if text.startswith("first"):
        return text
    if text.startswith("fail"):
        raise ValueError(text)
    Path(f"holding {text}").touch()
    await asyncio.sleep(WATCHDOG)


async def second_try_async(text):
    path = Path(f"tried {text}")
    if not path.exists():
        path.touch()
        raise ConnectionError("the first try")
    return "done"


async def stand_still(text):
    Path(f"holding {text}").touch()
    time.sleep(WATCHDOG)
