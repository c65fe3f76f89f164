"""A process object on its way to the process that it is to become.

What travels is what the standard start methods send, in their order: what the process needs to
know first, then the object. So their own code at the other end unpacks it, frozen programs start
their children as ever, and whoever adds something to the first part (coverage tools do) has it
arrive. Two things differ. The object is pickled as calls are (see `oxgang._pickling`): what lives
in ``__main__`` goes by value, so that the other end need not run the program's script to find it;
and the script is run there only when a name is asked for that did not come along.
"""

import io
import os
import pickle
import sys
from multiprocessing import context, reduction, resource_tracker, spawn

from oxgang import _pickling
from oxgang.multiprocessing import _lines

_MAIN = ("init_main_from_name", "init_main_from_path")


def pack(popen, process_obj, *, all_of_it=False):
    """The bytes that make a process `process_obj`; `popen` is told of the descriptors that they
    refer to. `all_of_it`: for a process that neither inherits this one's environment nor gets
    what the standard start methods hand on besides."""
    preparation = spawn.get_preparation_data(process_obj._name)
    main = tuple(preparation.pop(key, None) for key in _MAIN)
    context.set_spawning_popen(popen)
    try:
        line = _lines.to_hold(process_obj)
        if line is not None:
            popen.lend(line)
        facts = {
            "main": main,
            "line": None if line is None else reduction.DupFd(line),
            "environ": dict(os.environ) if all_of_it else None,
            "tracker": None,
        }
        tracker = resource_tracker._resource_tracker._fd
        if all_of_it and tracker is not None:
            # one of the child's own would take what the child leaves to others for forgotten
            facts["tracker"] = reduction.DupFd(tracker)
        stream = io.BytesIO()
        reduction.dump(preparation, stream)
        reduction.dump(_Parcel(facts, _pickling.dumps(process_obj)), stream)
    finally:
        context.set_spawning_popen(None)
    return stream.getbuffer()


def deliver(fd, data):
    """Writes all of it; a child that has ended already tells so by its exit code."""
    try:
        with open(fd, "wb", closefd=False) as stream:
            stream.write(data)
    except BrokenPipeError:
        return


class Lends:
    """A start method that hands descriptors on which are closed here once the child has them."""

    def __init__(self, process_obj):
        self._fds = []
        self._lent = []
        try:
            super().__init__(process_obj)
        finally:
            for fd in self._lent:
                os.close(fd)

    def lend(self, fd):
        """`fd` is needed until the child is started."""
        self._lent.append(fd)


class _Parcel:
    """Arrives as the process object."""

    def __init__(self, facts, data):
        self.facts = facts
        self.data = data

    def __reduce__(self):
        return unpack, (self.facts, self.data)


def unpack(facts, data):
    """The process object, in the process that it is to become."""
    line = facts["line"]
    if line is not None:
        line = line.detach()
        _lines.hold(line)
    tracker = facts["tracker"]
    if tracker is not None:
        resource_tracker._resource_tracker._fd = tracker.detach()
    environ = facts["environ"]
    if environ is not None and dict(os.environ) != environ:
        os.environ.clear()
        os.environ.update(environ)
    if not getattr(sys, "frozen", False):  # there the program's script is running already
        from oxgang._worker import fresh_main

        fresh_main(*facts["main"])
    return pickle.loads(data)
