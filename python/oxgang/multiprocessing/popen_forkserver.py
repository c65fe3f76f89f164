"""Children that are forks of the standard library's fork server."""

import os
from multiprocessing import forkserver, util
from multiprocessing import popen_forkserver as _standard

from oxgang.multiprocessing import _parcel

__all__ = ["Popen"]


class Popen(_parcel.Lends, _standard.Popen):
    """A child that the fork server has forked, which also says how it ended."""

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
