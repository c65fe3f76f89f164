"""Children that are forks of the program's template process."""

import os
import pickle
import types
from multiprocessing import process, spawn

from oxgang import _template
from oxgang.multiprocessing import _parcel, popen_fork

__all__ = ["Popen"]

_arrived = []  # in a child: the descriptors that came along


class _Arriving:
    """Which of the descriptors that the child gets."""

    def __init__(self, index):
        self.index = index

    def detach(self):
        return _arrived[self.index]


class Popen(_parcel.Lends, popen_fork.Popen):
    """A child that the template has forked; see `oxgang.multiprocessing.popen_fork.Popen`."""

    method = "template"
    DupFd = _Arriving

    def duplicate_for_child(self, fd):
        """The child will find `fd` there."""
        if fd not in self._fds:  # pickling may have begun anew
            self._fds.append(fd)
        return self._fds.index(fd)

    def _launch(self, process_obj):
        data = _parcel.pack(self, process_obj, all_of_it=True)
        reading, writing = os.pipe()
        parent = os.pidfd_open(os.getpid())
        try:
            fds = [reading, parent, *self._fds]
            self._watch(_template.fork(fds, _modules_of(process_obj)))
        except BaseException:
            os.close(writing)
            raise
        finally:
            os.close(reading)
            os.close(parent)
        try:
            # not before the child is there: without these bytes it ends, should nobody be left
            # who knows of it
            _parcel.deliver(writing, data)
        finally:
            os.close(writing)


def _modules_of(process_obj):
    """Where the first things are defined that the process will ask for."""
    things = process_obj._target, *process_obj._args, *process_obj._kwargs.values()
    named = (types.FunctionType, types.BuiltinFunctionType, type)
    homes = (one if isinstance(one, named) else type(one) for one in (*things, type(process_obj)))
    return {home.__module__ for home in homes}


def live(fds, held):
    """The life of a child, in the fork of the template; its exit code. `held`: what ends it with
    its owner until it knows better."""
    reading, parent, *_arrived[:] = fds
    current = process.current_process()
    current._inheriting = True
    try:
        with open(reading, "rb") as stream:
            spawn.prepare(pickle.load(stream))
            process_obj = pickle.load(stream)
    except EOFError:
        return 1  # whoever wanted it has given up
    finally:
        del current._inheriting
    held.clear()  # who shall end with the owner holds a line of its own by now
    return process_obj._bootstrap(parent)
