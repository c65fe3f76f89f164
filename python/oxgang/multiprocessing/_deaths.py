"""What is said when a process has died that held, or waited for, something."""

import logging
import threading

from oxgang.errors import OwnerDied

LOGGER = logging.getLogger("oxgang.multiprocessing")


def log(primitive, pid):
    """Once per death and primitive: by the process that takes over what the dead one held."""
    LOGGER.warning(
        "process %d ended while it held a %s; what the %s guards may be half done, and goes on "
        "from here",
        pid,
        type(primitive).__name__,
        type(primitive).__name__,
    )


def owner_died(primitive, pid):
    """The error of a lock that tells of deaths."""
    name = type(primitive).__name__
    return OwnerDied(
        f"process {pid} ended while it held this {name}; call its recover(), put right what it "
        "guards, and release it",
        pid=pid,
    )


def broken_barrier(pid):
    """The error of a barrier; `pid`: a party that died while it waited."""
    if pid is None:
        return threading.BrokenBarrierError()
    return threading.BrokenBarrierError(f"process {pid} ended while it waited at the barrier")
