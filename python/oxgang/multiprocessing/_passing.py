"""How a primitive passes to another process.

A child that is being started inherits the descriptor of the segment, one for all primitives of a
segment, as the standard library hands descriptors on. A process that runs already (a worker of a
pool) opens it by the number that it has in the sending process, through ``/proc``; which segment
it is gets checked. Nothing is named, so nothing is left behind.
"""

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
    if inherited is not None and inherited not in _arrived:
        _arrived.add(inherited)  # the primitive has opened it for itself
        os.close(inherited)
    return made
