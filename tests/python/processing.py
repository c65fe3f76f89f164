"""What the processes of test_process.py run."""

import multiprocessing
import os
import sys
import time

import oxgang.multiprocessing as ours


def facts():
    current, parent = multiprocessing.current_process(), multiprocessing.parent_process()
    return {
        "pid": os.getpid(),
        "name": current.name,
        "parent": parent.pid,
        "daemon": current.daemon,
        "method": ours.get_start_method(),
    }


def tell(writing, *args, **kwargs):
    writing.send((args, kwargs, facts()))


def tell_at(gate, writing, *args, **kwargs):
    gate.wait()
    tell(writing, *args, **kwargs)


def tell_when_told(writing):
    writing.send("ready")
    time.sleep(600)


def fail(text):
    raise LookupError(text)


def sleep(writing):
    writing.send("sleeps")
    time.sleep(600)


def touch(path):
    open(path, "w").close()


class Told:
    """Half of a process: what it runs."""

    def __init__(self, writing, number):
        super().__init__()
        self.writing = writing
        self.number = number

    def run(self):
        self.writing.send(self.number)


def subclass_of(base, *arguments):
    """An instance of a class that can be found by name, of this base."""
    name = f"Made_{base.__module__.replace('.', '_')}_{base.__name__}"
    return globals()[name](*arguments)


def _make_subclasses():
    for module, methods in ((multiprocessing, 3), (ours, 4)):
        for method in ("spawn", "forkserver", "fork", "template")[:methods]:
            base = module.get_context(method).Process
            name = f"Made_{base.__module__.replace('.', '_')}_{base.__name__}"
            globals()[name] = type(name, (Told, base), {"__module__": __name__})


_make_subclasses()


def wait_for_parent(writing):
    writing.send("waits")
    multiprocessing.parent_process().join()
    assert not multiprocessing.parent_process().is_alive()
    writing.send("the parent has ended")


def leave_behind(own, method, writing):
    """Ends, by somebody else's hand, before its child."""
    child = (
        (ours if own else multiprocessing)
        .get_context(method)
        .Process(target=wait_for_parent, args=(writing,))
    )
    child.start()
    child.join()


def put_under_lock(items, lock, event):
    event.set()
    with lock:
        items.put("under the lock")


def send(writing, text):
    writing.send(text)


def parent(method, writing):
    child = ours.get_context(method).Process(target=send, args=(writing, "from the child"))
    child.start()
    child.join()
    sys.exit(child.exitcode)


def parent_of_sleeper(method, writing):
    child = ours.get_context(method).Process(target=send_pid_and_sleep, args=(writing,))
    assert child.daemon  # as its parent
    child.start()
    child.join()


def send_pid_and_sleep(writing):
    writing.send(os.getpid())
    time.sleep(600)


def leave_sleeper(writing):
    pid = os.fork()
    if pid == 0:
        time.sleep(600)
        os._exit(0)
    writing.send(pid)


class Stowaway:
    """Does something when it arrives."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)  # this module is not to be found yet
