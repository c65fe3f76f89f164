"""`multiprocessing.process`: the standard processes, which may have children whatever they are.

The books are the standard module's own: who is the current process, and which children it has. So
`active_children` of either module names the children of both, and whoever patches
`BaseProcess._bootstrap` there, as coverage tools do, reaches the processes of this package too.
"""

import os
from multiprocessing import process as _standard
from multiprocessing.process import (
    active_children,
    current_process,
    parent_process,
)

from oxgang import _template

__all__ = ["BaseProcess", "active_children", "current_process", "parent_process"]


class BaseProcess(_standard.BaseProcess):
    """A process that runs `target`, or what a subclass does in `run`.

    As the standard class, but for this: a daemonic process may have children. It ends with its
    parent even if that is killed, and so do its own daemonic children with it.
    """

    def start(self):
        """Starts the process. Once at most.

        Raises:
            AssertionError: It has been started, or was made by another process.
            ValueError: It is closed.
            RuntimeError: This process is being started itself, and is running the program's
                script to find a function; what starts processes belongs under
                ``if __name__ == "__main__":``.
        """
        self._check_closed()
        assert self._popen is None, "cannot start a process twice"
        assert self._parent_pid == os.getpid(), (
            "can only start a process object created by current process"
        )
        _template.refuse_while_importing_main("process")
        _standard._cleanup()
        self._popen = popen = self._Popen(self)
        self._sentinel = popen.sentinel
        # the target may know this object
        del self._target, self._args, self._kwargs
        _standard._children.add(self)


def __getattr__(name):
    # what the standard module keeps for itself, and has changed since this one was imported
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_standard, name)
