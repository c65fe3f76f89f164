"""Functions for workers, in the tests of the executors."""

import itertools
import os
import signal
import sys
import threading
import time


def same(value):
    return value


def keywords(*args, **kwargs):
    return args, kwargs


def pid(_=None):
    return os.getpid()


def append_to(path, text, delay=0):
    time.sleep(delay)
    with open(path, "a") as file:
        file.write(f"{text}\n")
    return text


def nap(seconds):
    time.sleep(seconds)
    return seconds


def fail(text):
    raise LookupError(text)


def unlock(array):
    array.setflags(write=True)
    array[0] = 9


def length(data):
    return len(data)


def make_bytes(count):
    return b"x" * count


def die(number):
    os.kill(os.getpid(), number)
    time.sleep(60)  # SIGSTOP and ignored signals do not end it


def leave(code):
    os._exit(code)


def system_exit(code):
    sys.exit(code)


def lock(_=None):
    return threading.Lock()


def interrupt_once():
    """Unpickling what `Interrupting` was is interrupted, the first time in a process."""
    if not interrupted:
        interrupted.append(True)
        raise KeyboardInterrupt
    return "after all"


interrupted = []


class Interrupting:
    def __reduce__(self):
        return interrupt_once, ()


def interrupting(number):
    return Interrupting() if number == 3 else number


class Unloadable(Exception):
    """Pickles, and cannot be unpickled: __init__ wants two, args has one."""

    def __init__(self, code, text):
        super().__init__(f"{code}: {text}")


def raise_unloadable():
    raise Unloadable(7, "raised in the task")


class HoldsLock(Exception):
    def __init__(self, text):
        super().__init__(text)
        self.lock = threading.Lock()


def raise_undumpable():
    raise HoldsLock("raised in the task")


def _refuse():
    raise ValueError("will not be rebuilt")


class RefusesToLoad:
    def __reduce__(self):
        return _refuse, ()


def refusing(_=None):
    return RefusesToLoad()


def exit_when_loaded():
    return ExitsWhenLoaded()


class ExitsWhenLoaded:
    def __reduce__(self):
        return sys.exit, (3,)


def count_in(path):
    """Leaves one mark for each run."""
    with open(path, "ab") as file:
        file.write(b".")
    return os.getpid()


def wait_for_mark(path):
    """Until `count_in` has left a mark: the file is there a moment before."""
    while not os.path.exists(path) or os.path.getsize(path) == 0:
        time.sleep(0.002)


def wait_for_file(path):
    while not os.path.exists(path):
        time.sleep(0.002)


def meet(mine, theirs):
    open(mine, "w").close()
    wait_for_file(theirs)
    return True


def count_and_die(path, number):
    count_in(path)
    die(number)


_setting = "unset"


def set_up(value):
    global _setting
    _setting = value


def setting():
    return _setting


def fail_to_set_up():
    raise RuntimeError("no licence")


def environment(name):
    return os.environ.get(name), os.getcwd()


def in_worker():
    import multiprocessing

    return multiprocessing.current_process().name, multiprocessing.parent_process() is not None


def nested(depth, method="template"):
    import multiprocessing

    from oxgang.concurrent.futures import ProcessPoolExecutor

    if depth == 0:
        return [os.getpid()]
    context = None if method == "template" else multiprocessing.get_context(method)
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return [os.getpid(), *pool.submit(nested, depth - 1, method).result()]


def ignore_term():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


# -- large data ------------------------------------------------------------------------------


def describe(array):
    return array.shape, array.dtype, array.flags.c_contiguous, array.flags.f_contiguous


def describe_and_keep(array, other):
    return describe(array), other


def ends(array):
    return int(array[0]), int(array[-1])


def full(count, number):
    import numpy

    return numpy.full(count, number, "u1")


def fill_and_sum(array, number):
    array[:] = number
    return int(array.sum(dtype="i8"))


_held = []


def hold(array):
    _held.append(array)
    return len(_held)


def held():
    return [ends(array) for array in _held]


def let_go():
    _held.clear()


def append_line(path, number, _data):
    with open(path, "a") as file:
        file.write(f"{number}\n")


def spin(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return seconds


def stuck_in_c():
    """One call that never gives the interpreter back, nor looks at signals."""
    return sum(range(10**15))


def die_with(lock):
    lock.acquire()
    os.kill(os.getpid(), signal.SIGKILL)


def take_and_release(lock):
    with lock:
        return True


def wait_for_lock():
    held = threading.Lock()
    held.acquire()
    held.acquire(timeout=600)


def select():
    import selectors
    import socket

    ours, _theirs = socket.socketpair()
    with selectors.DefaultSelector() as selector:
        selector.register(ours, selectors.EVENT_READ)
        selector.select(600)


def go_on_regardless():
    while True:
        try:
            time.sleep(600)
        except TimeoutError:
            continue


def clean_up(path, result):
    try:
        time.sleep(600)
    except TimeoutError:
        open(path, "w").close()
        if result is None:
            raise
    return result


def raise_instead():
    try:
        time.sleep(600)
    except TimeoutError:
        raise LookupError("instead")  # noqa: B904 - the context is looked at


class LoadsForEver:
    def __reduce__(self):
        return nap, (600,)


class SlowToDump:
    def __reduce__(self):
        time.sleep(600)
        return nap, (0,)


def make_slow_to_dump():
    return SlowToDump()


def fill():
    kept = []
    while True:
        kept.append(b"x" * (1 << 20))
        time.sleep(0.001)


def fill_in_c():
    return list(itertools.repeat(None))


def count_and_nap(path):
    count_in(path)
    time.sleep(600)


def count_and_get_stuck(path):
    count_in(path)
    stuck_in_c()


def slow_at_first(folder, times):
    """The first `times` runs never end; gives the number of the run."""
    run = folder.count_call("slow")
    if run <= times:
        time.sleep(600)
    time.sleep(0.2)
    return run


def call(function):
    return function()


def nested_limit(method):
    """A limit in a pool of this worker, which has one itself."""
    import multiprocessing

    from oxgang.concurrent.futures import ProcessPoolExecutor

    context = None if method == "template" else multiprocessing.get_context(method)
    with ProcessPoolExecutor(1, context, task_timeout=0.3, timeout_grace=0.1) as pool:
        raise pool.submit(stuck_in_c).exception()


# -- shared memory -----------------------------------------------------------------------------


def fill_row(array, row):
    array[row] = row
    return row


def make_shared(count, number):
    from oxgang import shared

    array = shared.empty(count, "u1")
    array[:] = number
    return array


def count_open(name):
    count = 0
    for fd in os.listdir("/proc/self/fd"):
        try:
            count += os.readlink(f"/proc/self/fd/{fd}").startswith(f"/memfd:{name}")
        except OSError:
            continue
    return count


def sum_shared(handle):
    return int(handle.get()["data"].sum())


def call_shared(handle, *args):
    return handle.get()(*args)


def change_one(value, place):
    """The value, with one byte of the array turned over."""
    if place is not None:
        value[place] ^= 255
    return value


def turned(array):
    """Another array of the same size."""
    return ~array


def footprint():
    """Of this process: pid, RSS and PSS in bytes, descriptors, memfds among them, mappings."""
    sizes = {}
    with open("/proc/self/smaps_rollup") as rollup:
        for line in rollup:
            name, _, rest = line.partition(":")
            if name in ("Rss", "Pss"):
                sizes[name] = int(rest.split()[0]) * 1024
    names = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            names.append(os.readlink(f"/proc/self/fd/{fd}"))
        except FileNotFoundError:
            continue  # the listing's own descriptor
    with open("/proc/self/maps") as maps:
        mappings = sum(1 for _ in maps)
    memfds = sum(name.startswith("/memfd:") for name in names)
    return os.getpid(), sizes["Rss"], sizes["Pss"], len(names), memfds, mappings


def footprint_after_a_nap(_):
    time.sleep(0.02)  # so that the other worker takes the next one
    return footprint()


def written_bytes():
    """Bytes of shared memory that this worker has written results to."""
    sizes = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            if "oxgang channel" in os.readlink(f"/proc/self/fd/{name}"):
                facts = os.stat(f"/proc/self/fd/{name}")
                sizes[facts.st_ino] = facts.st_blocks * 512
        except FileNotFoundError:
            continue  # the listing's own descriptor
    assert sizes
    return sum(sizes.values())
