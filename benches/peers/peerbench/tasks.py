"""The functions that workers run.

They live in a module of their own, with only light imports, so that every
contender can pickle them by name and a spawned worker pays next to nothing to
import them.
"""

import math
import os
import signal
import threading
import time

# -- trivial ---------------------------------------------------------------


def noop(x):
    return x


def short_sleep(x):
    time.sleep(0.02)
    return x


# -- CPU-bound -------------------------------------------------------------


def is_prime(n):
    """Trial division, deliberately plain Python: this is the work being timed."""
    if n < 4:
        return n > 1
    if n % 2 == 0 or n % 3 == 0:
        return False
    for divisor in range(5, math.isqrt(n) + 1, 6):
        if n % divisor == 0 or n % (divisor + 2) == 0:
            return False
    return True


def burn(steps):
    """A fixed amount of interpreter work, whatever the machine's mood."""
    total = 0
    for i in range(steps):
        total += i & 7
    return total


# -- data in and out -------------------------------------------------------

PAGE_OF_FLOATS = 512  # 512 float64 = 4096 bytes: touches every page once
_made = {}  # results are built once per worker, then returned again


def touch(array):
    """Read one number of every page, so that a lazily mapped array is really there."""
    return float(array[::PAGE_OF_FLOATS].sum())


def new_array(nbytes):
    import numpy

    return numpy.arange(nbytes // 8, dtype="float64")


def new_dict(size):
    return {i: (i, "item-%d" % i, i * 0.5) for i in range(size)}


def new_blobs(size):
    return [bytes([i % 256]) * 10_240 for i in range(size)]


BUILDERS = {"array": new_array, "dict": new_dict, "blobs": new_blobs}


def made(kind, size):
    key = (kind, size)
    if key not in _made:
        _made.clear()  # one kept object per worker at most
        _made[key] = BUILDERS[kind](size)
    return _made[key]


def weigh(obj):
    """A small number that proves the object arrived whole."""
    return touch(obj) if hasattr(obj, "dtype") else len(obj)


def take(obj):
    return weigh(obj)


def give(kind, size):
    return made(kind, size)


def take_and_give(obj, kind, size):
    weigh(obj)
    return made(kind, size)


def make_ready(job):
    """Warm-up for `give`: leaves the object built in whichever worker runs this."""
    kind, size = job.split(":")
    made(kind, int(size))
    time.sleep(0.03)
    return os.getpid()


def take_shared(name, length):
    """The hand-written stdlib way: attach to a shared_memory block by name."""
    from multiprocessing import shared_memory

    import numpy

    block = shared_memory.SharedMemory(name=name)
    try:
        array = numpy.ndarray((length,), dtype="float64", buffer=block.buf)
        total = touch(array)
        del array
        return total
    finally:
        block.close()


def take_from_registry(shared, _):
    """mpire hands its shared objects over as the first argument."""
    return touch(shared)


# -- two workers at once ---------------------------------------------------


def meet(directory, limit):
    """True once two tasks are running at the same moment in two workers."""
    mark = os.path.join(directory, "met-%d-%d" % (os.getpid(), threading.get_ident()))
    open(mark, "w").close()
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        if sum(n.startswith("met-") for n in os.listdir(directory)) >= 2:
            return True
        time.sleep(0.001)
    return False


# -- faults ----------------------------------------------------------------


def sleep_or_die(job):
    """A short task; the one numbered -1 kills its own worker."""
    if job < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.02)
    return job


def sleep_forever(directory):
    mark = os.path.join(directory, "pid-%d" % os.getpid())
    open(mark, "w").close()
    try:
        while True:
            time.sleep(0.1)
    finally:
        open(os.path.join(directory, "ended"), "w").close()


def sleep_a_minute(directory):
    mark = os.path.join(directory, "pid-%d" % os.getpid())
    open(mark, "w").close()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        time.sleep(0.05)


def return_a_lock(_):
    return threading.Lock()


class NeedsTwoArguments(Exception):
    """Pickles, but cannot be unpickled: args holds one value, __init__ wants two."""

    def __init__(self, code, text):
        super().__init__("%s: %s" % (code, text))


def raise_unloadable(_):
    raise NeedsTwoArguments(7, "raised in the task")


class HoldsALock(Exception):
    def __init__(self, text):
        super().__init__(text)
        self.lock = threading.Lock()


def raise_undumpable(_):
    raise HoldsALock("raised in the task")


def nested(contender_name):
    """Inside a worker: open the same kind of pool again and use it."""
    from peerbench.contenders import find

    return find(contender_name).make(2).run_nested(noop, [1, 2, 3, 4])


# -- hygiene ---------------------------------------------------------------


def churn(i):
    """Allocate, use and drop a megabyte; nothing is kept."""
    block = bytearray(1 << 20)
    block[::4096] = b"x" * 256
    return len(block)
