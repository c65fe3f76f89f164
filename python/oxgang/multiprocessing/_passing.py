"""How a primitive passes to another process.

A child that is being started inherits the descriptor of the segment, one for all primitives of a
segment, as the standard library hands descriptors on. A process that runs already (a worker of a
pool) opens it by the number that it has in the sending process, through ``/proc``; which segment
it is gets checked. Nothing is named, so nothing is left behind.
"""

import contextlib
import os
import weakref
from multiprocessing import context, reduction

_handed_on = weakref.WeakKeyDictionary()  # process being started -> {segment: descriptor for it}
_arrived = set()


def reduce(cls, core, *arguments):
    """What `__reduce__` gives for a primitive of class `cls` around `core`."""
    popen = context.get_spawning_popen()
    if popen is None:
        return rebuild, (cls, core._address(False), None, arguments)
    address = core._address(True)
    serial, _, _, fd = address
    segments = _handed_on.setdefault(popen, {})
    if serial not in segments:
        segments[serial] = reduction.DupFd(fd)
    return rebuild, (cls, address, segments[serial], arguments)


def rebuild(cls, address, duplicate, arguments):
    """The primitive in the process that it was sent to."""
    inherited = None if duplicate is None else duplicate.detach()
    made = cls._attach(address, inherited, *arguments)
    if inherited is not None:
        close_once(inherited)
    return made


def close_once(inherited):
    """Closes a descriptor that this process was started with: what it is for has been opened."""
    if inherited not in _arrived:
        _arrived.add(inherited)
        os.close(inherited)


def parts(address_for, fds_of):
    """What is sent of a thing with several descriptors: its address, and duplicates for a child.

    Args:
        address_for: Gives the address; its argument says whether the receiver inherits.
        fds_of: The descriptors that an address names.
    """
    popen = context.get_spawning_popen()
    if popen is None:
        return address_for(False), None
    address = address_for(True)
    return address, [reduction.DupFd(fd) for fd in fds_of(address)]


@contextlib.contextmanager
def inherited(duplicates):
    """The descriptors that arrived with such parts, while the thing opens them for itself."""
    if duplicates is None:
        yield None
        return
    fds = tuple(duplicate.detach() for duplicate in duplicates)
    try:
        yield fds
    finally:
        for fd in fds:
            close_once(fd)
