"""The program's template process, from the owner's side: one per program, started when the
first pool needs it, ended with the program.
"""

import os
import sys
import threading

# signal.py brings enum along
from _signal import SIG_BLOCK, SIG_SETMASK, SIGINT, pthread_sigmask

from oxgang import _core
from oxgang._pickling import dumps

_OWNERS = {"__main__", "builtins", "oxgang", "concurrent", "multiprocessing"}

_lock = threading.Lock()
_template = None
_lifeline = None


class CtrlCLater:
    """Within, Ctrl-C waits, and processes that are started begin so: they have not yet said what
    it means to them, and would die of it with a page of traceback. `_worker` ends it there."""

    def __enter__(self):
        self._before = pthread_sigmask(SIG_BLOCK, [SIGINT])

    def __exit__(self, *_error):
        pthread_sigmask(SIG_SETMASK, self._before)


def lifeline():
    """The line that workers hold; it ends them when this process ends."""
    global _lifeline
    with _lock:
        if _lifeline is None:
            _lifeline = _core.Lifeline()
        return _lifeline


def get():
    """The template, started if there is none."""
    global _template
    line = lifeline()
    with _lock:
        if _template is not None and not _template.alive():
            _template.end()  # reaped, whoever still holds it
            _template = None
        if _template is None:
            with CtrlCLater():
                _template = _core.Template(_command(), _first_message(), line)
            _template.prepare(_wanted())
        return _template


def _command():
    # the program text comes over the link, since a path list may be longer than an argument
    code = "import os; exec(os.read(0, 65536))"
    return [sys.executable, *_flags(), "-c", code, "oxgang-template"]


def _flags():
    plain = not (sys.warnoptions or sys._xoptions)
    names = ("debug", "optimize", "ignore_environment", "verbose", "bytes_warning")
    more = ("no_site", "no_user_site", "isolated", "dont_write_bytecode", "dev_mode", "safe_path")
    if plain and not any(getattr(sys.flags, name, 0) for name in names + more):
        return []  # the usual case, and an import saved
    import subprocess

    return subprocess._args_from_interpreter_flags()


def _path():
    return [entry for entry in sys.path if isinstance(entry, str)]


def _first_message():
    code = (
        f"import sys; sys.path[:] = {_path()!r}\n"
        f"{_install_order()}"
        f"from oxgang._worker import template; template({os.getpid()})"
    )
    return code.encode("utf-8", "surrogateescape")


def _install_order():
    install = sys.modules.get("oxgang._install")
    return "" if install is None else install.order()


def _wanted():
    """Modules that the program uses: what its main module mentions, but for those that an
    owner needs and a worker does not."""
    main = sys.modules.get("__main__")
    names = set()
    for value in list(vars(main).values()) if main else ():
        name = getattr(value, "__name__", None) if isinstance(value, type(sys)) else None
        name = name or getattr(value, "__module__", None)
        if isinstance(name, str) and name.partition(".")[0] not in _OWNERS:
            names.add(name)
    order = [name for name in sys.modules if name in names]
    return dumps((_path(), order))


def setup(name, initializer, initargs):
    """What a worker of the template needs to become one of this program's, as bytes."""
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    path = getattr(main, "__file__", None)
    facts = {
        "cwd": os.getcwd(),
        "environ": dict(os.environ),
        "path": _path(),
        "argv": [argument for argument in sys.argv if isinstance(argument, str)],
        "main": (spec.name if spec is not None else None, path and os.path.abspath(path)),
        "name": name,
        "initializer": None if initializer is None else dumps((initializer, initargs)),
    }
    return dumps(facts)


def end():
    """Ends the template; the next pool starts another."""
    global _template
    with _lock:
        template, _template = _template, None
    if template is not None:
        template.end()


def _after_fork_in_child():
    global _template, _lifeline, _lock
    _core.forked()
    _lock = threading.Lock()
    # dropping the copies is what lets the owner's line end with the owner
    _template = _lifeline = None


os.register_at_fork(after_in_child=_after_fork_in_child)
