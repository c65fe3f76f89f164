"""Children that are forks of the standard library's fork server."""

import os
import threading
from multiprocessing import connection, forkserver, util
from multiprocessing import popen_forkserver as _standard

from oxgang.multiprocessing import _parcel

__all__ = ["Popen"]


class Popen(_parcel.Lends, _standard.Popen):
    """A child that the fork server has forked, which also says how it ended: to any number of
    threads."""

    def __init__(self, process_obj):
        self._telling = threading.Lock()
        super().__init__(process_obj)

    def poll(self, flag=os.WNOHANG):
        """How it ended; None: it runs. Waits for that if `flag` is 0."""
        if self.returncode is not None:
            return self.returncode
        if not connection.wait([self.sentinel], 0 if flag == os.WNOHANG else None):
            return None
        with self._telling:
            if self.returncode is None:
                try:
                    self.returncode = forkserver.read_signed(self.sentinel)
                except (OSError, EOFError):
                    self.returncode = 255  # the server has ended, and cannot tell
        return self.returncode

    def duplicate_for_child(self, fd):
        """The child will find `fd` there."""
        if fd not in self._fds:  # pickling may have begun anew
            self._fds.append(fd)
        return self._fds.index(fd)

    def _launch(self, process_obj):
        _without_main()
        data = _parcel.pack(self, process_obj)
        self.sentinel, writing = forkserver.connect_to_new_process(self._fds)
        # the child takes the closing of this end for the end of its parent
        kept = os.dup(writing)
        self.finalizer = util.Finalize(self, util.close_fds, (kept, self.sentinel))
        with open(writing, "wb") as stream:
            stream.write(data)
        self.pid = forkserver.read_signed(self.sentinel)


def _without_main():
    """The server would run the program's script to have it at hand, which needs a guard there and
    which children of this package do not need."""
    server = forkserver._forkserver
    if server._preload_modules == ["__main__"]:
        server._preload_modules = []


def _forked():
    """In a fork of this process: the server is the parent's. (The standard module takes it for the
    fork's own, and fails when it looks after it.)"""
    server = forkserver._forkserver
    if server._forkserver_alive_fd is not None:
        os.close(server._forkserver_alive_fd)
    server._forkserver_address = server._forkserver_alive_fd = server._forkserver_pid = None
    server._lock = threading.Lock()


os.register_at_fork(after_in_child=_forked)
