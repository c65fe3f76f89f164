"""The program's template process, from the owner's side: one per program, started when the
first pool needs it, ended with the program.
"""

import itertools
import os
import sys
import threading

# signal.py brings enum along
from _signal import SIG_BLOCK, SIG_SETMASK, SIGINT, pthread_sigmask

from oxgang import _core, _standard
from oxgang._pickling import dumps
from oxgang._worker import when_multiprocessing_comes

# what every process needs that is no worker, and what most need
_FOR_PROCESSES = ("oxgang.multiprocessing.popen_template", "oxgang._by_value")
_PROCESSES = "oxgang.multiprocessing."
_OWNERS = {"__main__", "builtins", "oxgang", "concurrent", "multiprocessing"}

_HELPER = "from multiprocessing.forkserver"

_lock = threading.Lock()
_template = None
_lifeline = None
_authkey = None
_told = (None, set())  # a template, and the modules it was told of for processes, not workers
_forked = []  # such processes


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
    # the program text comes over the link, in packets, since a path list may be longer than an
    # argument; it may be executed within a function, whose names a lambda would not see
    code = (
        "import os; exec(b''.join(iter("
        "lambda read=os.read, end=os._exit: read(0, 65536) or end(1), bytes(1))))"
    )
    if getattr(sys, "frozen", False):
        # the program itself is started, whose `freeze_support` knows how helpers of the standard
        # library begin: the standard one's too, as whoever froze it has amended that
        return [sys.executable, *_flags(), "-c", f"{_HELPER} import main; {code}"]
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


def _authkey_of_program():
    """The key of this process and its workers, also if `multiprocessing` is not imported yet."""
    process = _standard.loaded("multiprocessing.process")
    if process is not None:
        return bytes(process.current_process().authkey)
    global _authkey
    with _lock:
        if _authkey is None:
            _authkey = key = os.urandom(32)
            when_multiprocessing_comes(
                lambda process: setattr(process.current_process(), "authkey", key)
            )
        return _authkey


def _prepare_for(modules, template):
    """Has the template import what processes need, so that they do not do it one by one: these
    modules, and what this program uses of `oxgang.multiprocessing`."""
    global _told
    asked, known = _told
    if asked is not template:
        known = set()
    wanted = {*_FOR_PROCESSES, *(name for name in modules if _is_for_template(name))}
    wanted.update(name for name in list(sys.modules) if name.startswith(_PROCESSES))
    if missing := wanted - known:
        # in the order of this program's own imports, where it has made them
        order = [name for name in sys.modules if name in missing]
        template.prepare(dumps((_path(), [*order, *missing.difference(order)])))
        _told = template, known | missing


def _is_for_template(name):
    return isinstance(name, str) and name.partition(".")[0] not in _OWNERS and name in sys.modules


def fork(fds, modules):
    """A process that the template forks, as a `Child`, to live by `popen_template.live`; it gets
    copies of these descriptors, and needs these modules."""
    for last in (False, True):
        template = get()
        try:
            _prepare_for(modules, template)
            with _lock:
                _forked[:] = [child for child in _forked if child.poll() is None]
            child = template.fork([os.dup(fd) for fd in fds])
        except ConnectionError:
            # links close before a process has ended; nobody shall take it for alive meanwhile
            template.end()
            if last:
                raise
        else:
            _forked.append(child)
            return child


def refuse_while_importing_main(what):
    """Raises if this process is being started itself: because it runs the program's script to find
    something, and the script starts something outside of its guard; or because it is a helper of
    a frozen program that has not called `freeze_support`."""
    if getattr(sys, "frozen", False) and _is_helper(sys.argv):
        raise RuntimeError(
            f"this process was started as a helper of a frozen program, and is starting a {what} "
            "of its own. Let the program call multiprocessing.freeze_support() first thing under "
            'if __name__ == "__main__":'
        )
    worker = sys.modules.get("oxgang._worker")
    if worker is not None and worker.importing_main():
        raise RuntimeError(
            "this process is running your script to find one of its functions, and the script "
            f"has just tried to start a {what} of its own. Put what starts it under "
            'if __name__ == "__main__":'
        )


def _is_helper(argv):
    return "--multiprocessing-fork" in argv or any(
        option == "-c" and code.startswith(_HELPER) for option, code in itertools.pairwise(argv)
    )


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
        "authkey": _authkey_of_program(),
        "initializer": None if initializer is None else dumps((initializer, initargs)),
    }
    return dumps(facts)


def end():
    """Ends the template; the next pool starts another."""
    global _template
    with _lock:
        if any(child.poll() is None for child in _forked):
            return  # it will tell how they end; it ends with this process
        template, _template = _template, None
    if template is not None:
        template.end()


def _after_fork_in_child():
    global _template, _lifeline, _lock, _told
    _lock = threading.Lock()
    # dropping the copies is what lets the owner's line end with the owner
    _template = _lifeline = None
    _told = None, set()
    _forked.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)
