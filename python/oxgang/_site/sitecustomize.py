"""Runs in Python processes that find this folder in PYTHONPATH: see `oxgang._run`.

Such a process may be any Python at all, in an environment without oxgang: then nothing happens.
In either case the folder leaves ``sys.path`` again, and the `sitecustomize` that the process would
have had otherwise is run.
"""

import os
import sys


def _begin(here):
    package = os.path.dirname(here)
    sys.path[:] = [entry for entry in sys.path if entry != here]
    words = os.environ.get("OXGANG_RUN", "")
    if not words:
        return
    asked = words.split(":")[0] == str(os.getpid())  # by `oxgang run`, for this very program
    try:
        try:
            from oxgang import _run
        except ImportError:
            sys.path.append(os.path.dirname(package))
            try:
                from oxgang import _run
            finally:
                sys.path.pop()
    except (ImportError, SyntaxError):
        if asked:
            sys.stderr.write("oxgang run: this Python cannot import oxgang; install it there\n")
            sys.stderr.flush()
            os._exit(2)
        return
    _run.begin(words, here)


def _go_on():
    """Has the next `sitecustomize` run, in the place of this one."""
    this = sys.modules.pop("sitecustomize")
    try:
        import sitecustomize  # noqa: F401
    except ImportError as missing:
        if missing.name != "sitecustomize":
            raise
        sys.modules["sitecustomize"] = this


_begin(os.path.dirname(os.path.abspath(__file__)))
_go_on()
