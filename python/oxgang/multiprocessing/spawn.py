"""`multiprocessing.spawn`: the standard module's own, and frozen programs' children.

In a program that is frozen into one file, `sys.executable` is the program, and a child or helper
is started by running the program again with arguments that say what it is to be. Right at its
beginning the program calls `freeze_support`, which does what they say and does not come back.
"""

import itertools
import sys
from multiprocessing import spawn as _standard
from multiprocessing.spawn import (
    get_command_line,
    get_executable,
    get_preparation_data,
    import_main_path,
    is_forking,
    prepare,
    set_executable,
    spawn_main,
)

__all__ = [
    "freeze_support",
    "get_command_line",
    "get_executable",
    "get_preparation_data",
    "import_main_path",
    "is_forking",
    "prepare",
    "set_executable",
    "spawn_main",
]

# as the standard library, and we, start helpers
_HELPERS = (
    "from multiprocessing.resource_tracker import main",
    "from multiprocessing.forkserver import main",
)


def freeze_support():
    """In a frozen program that was started as a child or as a helper of one (a fork server, a
    template, a resource tracker): does that, and ends. Otherwise does nothing.

    To be called first thing under ``if __name__ == "__main__":``.
    """
    if not getattr(sys, "frozen", False):
        return
    code = helper_code(sys.argv)
    if code is not None:
        exec(code, {"__name__": "__oxgang_helper__"})
        sys.exit()
    if is_forking(sys.argv):
        words = (word.partition("=") for word in sys.argv[2:])
        options = {name: None if value == "None" else int(value) for name, _, value in words}
        spawn_main(**options)
        sys.exit()


def helper_code(argv):
    """The code that this process was started to run, if it is a helper of a frozen program."""
    for option, code in itertools.pairwise(argv):
        if option == "-c" and code.startswith(_HELPERS):
            return code
    return None


def __getattr__(name):
    # what the standard module keeps for itself; looked up each time, since it may change
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_standard, name)
