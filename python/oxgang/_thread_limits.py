"""Time limits of calls that run in threads: what `timer.rs` needs of Python."""

import ctypes
import sys
from threading import get_ident  # noqa: F401 - looked up by the timer

from oxgang._limits import TaskTimeout, stack_of

# These three run no Python code when they are called, which is what makes them usable at a moment
# when an exception may be pending.
set_exception = ctypes.pythonapi.PyThreadState_SetAsyncExc
number = ctypes.c_ulong
timeout = ctypes.py_object(TaskTimeout)


def _name(function):
    return getattr(function, "__qualname__", None) or type(function).__qualname__


def tell(error, trace, function, limit):
    """What a task raised after it was told to: if that is what it was told, it gets its facts."""
    if type(error) is not TaskTimeout or error.limit is not None:
        return
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    error.args = (f"the task has reached its time limit of {limit:g} s",)
    error.limit = limit
    error.function = _name(function)
    error.stack = stack_of(trace and trace.tb_frame)


def give_up(function, limit, grace, thread):
    """The exception for a future whose thread goes on."""
    name = _name(function)
    stack = stack_of(sys._current_frames().get(thread))
    error = TaskTimeout(
        f"{name} ran longer than its time limit of {limit:g} s and did not stop within {grace:g} s "
        "more: it is in a call that does not return to Python, or it goes on regardless. A thread "
        "cannot be ended: this one goes on till the call returns, and what it returns then is "
        "dropped. Processes can be ended: use a process pool",
        limit=limit,
        function=name,
        stack=stack,
    )
    error.add_note(f"Where the task was:\n{stack.rstrip()}")
    return error
