"""How ``OXGANG_DEBUG=locks`` tells what it finds: on stderr, whole, with stacks."""

import os
import sys
import threading

SLICE_S = 0.1  # how often who waits looks whether it waits for ever

_telling = threading.Lock()


def wanted():
    """Whether locks are to be watched."""
    return "locks" in os.environ.get("OXGANG_DEBUG", "").split(",")


def stack(depth=2):
    """Where the caller of the caller is."""
    import traceback  # three times the time of all else that `oxgang.threading` imports

    return traceback.format_stack(sys._getframe(depth))


def who():
    """This thread of this process, in words."""
    return f"thread {threading.current_thread().name} of process {os.getpid()}"


def where(text, lines):
    """A stack under a heading."""
    return [f"  {text}:", *(f"  {line}" for entry in lines for line in entry.splitlines())]


def tell(lines):
    """Writes the lines, and nobody else's between them."""
    with _telling:
        sys.stderr.write("".join(line if line.endswith("\n") else f"{line}\n" for line in lines))
        sys.stderr.flush()


os.register_at_fork(after_in_child=_telling._at_fork_reinit)
