"""`multiprocessing.shared_memory`: blocks of memory with a name, and lists in them.

Names and contents are the standard library's, so that a standard peer can attach, and be attached
to. The signatures are those of Python 3.13, on every Python. What is different: a process that only
attaches to a block does not answer for it. Unless ``track=True`` asks for it, its end neither
destroys the block under those who use it, nor is there a word of leaks. The creator's end does: the
resource tracker unlinks what a tree of processes has made and not unlinked, however it ended.

For memory without a name, which is freed with its last user, see `oxgang.shared`.
"""

import _posixshmem
import mmap
import os
import secrets
from multiprocessing import resource_tracker
from multiprocessing import shared_memory as _standard

__all__ = ["ShareableList", "SharedMemory"]


_SHM_NAME_PREFIX = "/psm_"


def _make_filename():
    return _SHM_NAME_PREFIX + secrets.token_hex(4)


class SharedMemory(_standard.SharedMemory):
    """A block of shared memory; as `multiprocessing.shared_memory.SharedMemory`.

    Args:
        name: Of the block to attach to, or to make; None: make up one.
        create: Whether to make it. Raises FileExistsError if there is one of that name.
        size: Bytes that a new one has at least.
        track: Whether the resource tracker is to unlink the block when this tree of processes has
            ended; None: if it is made here.

    Raises:
        FileNotFoundError: there is no block of that name.
    """

    def __init__(self, name=None, create=False, size=0, *, track=None):
        if size < 0:
            raise ValueError("'size' must be a positive integer")
        if create and size == 0:
            raise ValueError("'size' must be a positive number different from zero")
        if name is None and not create:
            raise ValueError("'name' can only be None if create=True")
        self._flags = os.O_RDWR | (os.O_CREAT | os.O_EXCL if create else 0)
        self._track = create if track is None else bool(track)
        self._open(name)
        try:
            if create:
                os.ftruncate(self._fd, size)
            self._size = os.fstat(self._fd).st_size
            self._mmap = mmap.mmap(self._fd, self._size)
        except BaseException:
            os.close(self._fd)
            self._fd = -1
            if create:
                _posixshmem.shm_unlink(self._name)
            raise
        self._buf = memoryview(self._mmap)
        if self._track:
            resource_tracker.register(self._name, "shared_memory")

    def _open(self, name):
        while True:
            path = _make_filename() if name is None else f"/{name}"
            try:
                self._fd = _posixshmem.shm_open(path, self._flags, mode=self._mode)
            except FileExistsError:
                if name is not None:
                    raise
            else:
                self._name = path
                return

    def unlink(self):
        """Destroys the block: its memory goes when nobody has it open any more. To be called once,
        by whichever process."""
        if not self._name:
            return
        _posixshmem.shm_unlink(self._name)
        if not self._track:
            # the tracker may know it from its maker; to take back what it does not know is an error
            resource_tracker.register(self._name, "shared_memory")
        resource_tracker.unregister(self._name, "shared_memory")


class ShareableList(_standard.ShareableList):
    """A list of fixed length in a block of shared memory; as
    `multiprocessing.shared_memory.ShareableList`.

    Args:
        sequence: Its items: int, float, bool, str, bytes, None.
        name: Of its block; without a `sequence`: of the list to attach to.
    """

    def __init__(self, sequence=None, *, name=None):
        if name is None or sequence is not None:
            super().__init__(sequence, name=name)
            # made here, so tracked; nothing else differs
            self.shm.__class__, self.shm._track = SharedMemory, True
        else:
            self.shm = SharedMemory(name)
            self._list_len = len(self)
            offsets = memoryview(self.shm.buf)[8 : 8 * (self._list_len + 2)].cast("q")
            self._allocated_offsets = offsets.tolist()
            offsets.release()
