"""The program's template process, from the owner's side: one per program, started when the
first pool needs it, ended with the program.
"""

import json
import os
import pickle
import sys
import threading

from oxgang import _core

_lock = threading.Lock()
_template = None
_lifeline = None


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
        if _template is None or not _template.alive():
            _template = _core.Template(_command(), _first_message(), line)
            _template.prepare(_wanted())
        return _template


def _command():
    import subprocess

    flags = subprocess._args_from_interpreter_flags()
    # the program text comes over the link, since a path list may be longer than an argument
    code = "import os; exec(os.read(0, 65536))"
    return [sys.executable, *flags, "-c", code, "oxgang-template"]


def _first_message():
    path = [entry for entry in sys.path if isinstance(entry, str)]
    code = (
        f"import sys; sys.path[:] = {path!r}\n"
        f"from oxgang._worker import template; template({os.getpid()})"
    )
    return code.encode("utf-8", "surrogateescape")


def _wanted():
    """Modules that the program uses: what its main module mentions."""
    main = sys.modules.get("__main__")
    names = set()
    for value in list(vars(main).values()) if main else ():
        name = getattr(value, "__name__", None) if isinstance(value, type(sys)) else None
        name = name or getattr(value, "__module__", None)
        if isinstance(name, str) and name not in ("__main__", "builtins") and name in sys.modules:
            names.add(name)
    path = [entry for entry in sys.path if isinstance(entry, str)]
    order = [name for name in sys.modules if name in names]
    return json.dumps({"path": path, "modules": order}).encode()


def setup(name, initializer, initargs):
    """What a worker of the template needs to become one of this program's, as bytes."""
    from oxgang._pickling import dumps

    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    path = getattr(main, "__file__", None)
    facts = {
        "cwd": os.getcwd(),
        "environ": dict(os.environ),
        "path": [entry for entry in sys.path if isinstance(entry, str)],
        "argv": [argument for argument in sys.argv if isinstance(argument, str)],
        "main": (spec.name if spec is not None else None, path and os.path.abspath(path)),
        "multiprocessing": "multiprocessing" in sys.modules,
        "name": name,
        "initializer": None if initializer is None else dumps((initializer, initargs)),
    }
    return pickle.dumps(facts)


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
