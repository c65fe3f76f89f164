"""`multiprocessing.reduction`: the standard library's own, but for handles through a `Pipe`.

Reducers that are registered with `ForkingPickler` count for everything that is pickled here, too.
"""

from multiprocessing import reduction as _standard
from multiprocessing.reduction import (
    ACKNOWLEDGE,
    HAVE_SEND_HANDLE,
    AbstractReducer,
    DupFd,
    ForkingPickler,
    dump,
    recvfds,
    register,
    sendfds,
)

from oxgang.multiprocessing import resource_sharer
from oxgang.multiprocessing._pipes import PipeConnection

__all__ = [
    "ACKNOWLEDGE",
    "HAVE_SEND_HANDLE",
    "AbstractReducer",
    "DupFd",
    "ForkingPickler",
    "dump",
    "recv_handle",
    "recvfds",
    "register",
    "send_handle",
    "sendfds",
]


def send_handle(conn, handle, destination_pid):
    """Sends a descriptor over a connection; as `multiprocessing.reduction.send_handle`.

    A `Pipe` has no socket that it could go through: what is sent there is where the receiver can
    fetch it. So this process must not end before that.
    """
    if isinstance(conn, PipeConnection):
        conn.send(resource_sharer.DupFd(handle))
    else:
        _standard.send_handle(conn, handle, destination_pid)


def recv_handle(conn):
    """Receives a descriptor over a connection.

    Raises:
        RuntimeError: What came is no descriptor.
    """
    if not isinstance(conn, PipeConnection):
        return _standard.recv_handle(conn)
    came = conn.recv()
    if not isinstance(came, resource_sharer.DupFd):
        raise RuntimeError(f"a descriptor was expected, and {type(came).__name__} came")
    return came.detach()
