"""Children that are forks of this process; and what all start methods have in common."""

import atexit
import os
from multiprocessing import popen_fork as _standard
from multiprocessing import util

from oxgang import _core
from oxgang.multiprocessing import _lines

__all__ = ["Popen"]


class Popen(_standard.Popen):
    """A child process, from its parent's side. What becomes readable when it ends (`sentinel`) is
    the kernel's handle of it, and its end is found by that: so any number of threads may ask."""

    method = "fork"
    _child = None

    def poll(self, flag=os.WNOHANG):
        """How it ended; None: it runs. Waits for that if `flag` is 0."""
        if self.returncode is None and self._child is not None:
            waits = flag != os.WNOHANG
            self.returncode = self._child.wait() if waits else self._child.poll()
        return self.returncode

    def wait(self, timeout=None):
        """Waits until it ends, for `timeout` seconds at most: how, or None."""
        if self.returncode is None:
            self.returncode = self._child.wait(timeout)
        return self.returncode

    def _send_signal(self, sig):
        if self.returncode is None:
            self._child.signal(sig)

    def _watch(self, child, *kept):
        """From now on `child` is this child; these descriptors are kept until it is closed."""
        self._child = child
        self.pid = child.pid
        self.sentinel = child.fileno()
        self.finalizer = util.Finalize(self, util.close_fds, kept) if kept else None

    def close(self):
        """Lets go of the child's handle."""
        super().close()
        self._child = None

    def _launch(self, process_obj):
        line = _lines.to_hold(process_obj)
        parent = os.pidfd_open(os.getpid())
        try:
            pid = os.fork()
            if pid == 0:
                _live(process_obj, parent, line)
            self._watch(_core.Child(pid))
        finally:
            os.close(parent)
            if line is not None:
                os.close(line)


def _live(process_obj, parent, line):
    """The whole life of the child."""
    code = 1
    try:
        atexit._clear()
        atexit.register(util._exit_function)
        if line is not None:
            _lines.hold(line)
        code = process_obj._bootstrap(parent_sentinel=parent)
    finally:
        atexit._run_exitfuncs()
        os._exit(code)
