"""Children that are fresh interpreters."""

import os
from multiprocessing import popen_spawn_posix as _standard
from multiprocessing import resource_tracker, spawn, util

from oxgang import _core
from oxgang.multiprocessing import _parcel, popen_fork

__all__ = ["Popen"]


class Popen(_parcel.Lends, popen_fork.Popen):
    """A child that is a fresh interpreter; see `oxgang.multiprocessing.popen_fork.Popen`."""

    method = "spawn"
    DupFd = _standard._DupFd

    def duplicate_for_child(self, fd):
        """The child will have `fd` under this number."""
        if fd not in self._fds:  # pickling may have begun anew
            self._fds.append(fd)
        return fd

    def _launch(self, process_obj):
        tracker = resource_tracker.getfd()
        data = _parcel.pack(self, process_obj)
        reading, writing = os.pipe()
        try:
            command = spawn.get_command_line(tracker_fd=tracker, pipe_handle=reading)
            inherited = [*self._fds, tracker, reading]
            pid = util.spawnv_passfds(spawn.get_executable(), command, inherited)
            # the child takes the closing of this end for the end of its parent
            self._watch(_core.Child(pid), writing)
        except BaseException:
            os.close(writing)
            raise
        finally:
            os.close(reading)
        _parcel.deliver(writing, data)
