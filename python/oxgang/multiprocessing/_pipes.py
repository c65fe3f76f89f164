"""Pipes: messages through shared memory, and a descriptor that tells of them and of the end.

Messages stay whole, however many processes and threads use an end at once.
"""

import os
from multiprocessing import context, reduction
from multiprocessing.connection import BufferTooShort, Connection

from oxgang import _core
from oxgang.multiprocessing import _passing

__all__ = ["Pipe", "PipeConnection"]


class PipeConnection(_core.PipeEnd, Connection):
    """An end of a `Pipe`.

    Raises:
        EOFError: by what receives, when all is received and nobody has the other end any more.
        BrokenPipeError: by what sends, when nobody has the other end any more.
        OSError: it is closed, or made for the other direction only; by `recv_bytes`, if the message
            is longer than `maxlength`.
    """

    def __init__(self):
        # the base's has a descriptor, which this one looks after itself
        pass

    def __del__(self):
        # the base's closes the descriptor; Rust does
        pass

    def recv_bytes_into(self, buf, offset=0):
        """Receives bytes into a writable buffer, from `offset` on; how many.

        Raises:
            multiprocessing.BufferTooShort: They do not fit; they are its first argument.
        """
        with memoryview(buf) as view, view.cast("B") as room:
            if offset < 0:
                raise ValueError("negative offset")
            if offset > len(room):
                raise ValueError("offset too large")
            message = self.recv_bytes()
            end = offset + len(message)
            if end > len(room):
                raise BufferTooShort(message)
            room[offset:end] = message
            return len(message)

    def poll(self, timeout=0.0):
        """Whether there is something to receive, or comes within `timeout` seconds (None: waits as
        long as it takes). Also if nobody is there to send it: then receiving raises `EOFError`."""
        return self._poll(timeout)

    def __reduce__(self):
        (_, fd, key), reader, writer, lanes, second = self._parts()
        duplicates = [None if one is None else reduction.DupFd(one) for one in (fd, reader, writer)]
        started = context.get_spawning_popen() is not None
        return _rebuild, (type(self), key, duplicates, (lanes, second), started)


def _rebuild(cls, key, duplicates, place, started):
    """The end in the process that it was sent to."""
    memory, reader, writer = [None if one is None else one.detach() for one in duplicates]
    end = cls.__new__(cls)
    try:
        end._assemble(((os.getpid(), memory, key), reader, writer, *place))
    finally:
        if started:
            _passing.close_once(memory)  # both ends of a pipe came with one descriptor
        else:
            os.close(memory)
    return end


def Pipe(duplex=True):
    """Two connected ends; as `multiprocessing.Pipe`.

    Args:
        duplex: True: both send and receive. False: the first one receives, the second one sends.
    """
    one, other = PipeConnection(), PipeConnection()
    _core.PipeEnd._pair(one, other, duplex)
    return one, other
