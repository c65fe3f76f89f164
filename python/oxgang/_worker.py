"""What a worker process runs. As little as possible is imported here: the template process
pays for it before the first task of a program can run.
"""

import os
import sys
import types

# signal.py brings enum along, which a worker may never need
from _signal import SIG_UNBLOCK, SIGINT, default_int_handler, pthread_sigmask, signal

from oxgang import _core, _standard

POOL_WORKER = "PoolWorker"  # what workers of a `multiprocessing` pool are called; they are daemonic


def _ignore_interrupt(number, frame):
    """Ctrl-C goes to the whole foreground group; what becomes of the workers is the owner's
    decision. A handler, not SIG_IGN, which programs started by a task would inherit."""


def _outlast_interrupt():
    signal(SIGINT, _ignore_interrupt)
    pthread_sigmask(SIG_UNBLOCK, [SIGINT])  # see `_template.CtrlCLater`


class _Main(types.ModuleType):
    """The worker's ``__main__``: empty, filled with what the owner sends by value. A name that
    was sent by name only (see `_pickling`) makes it run the owner's script."""

    def __getattr__(self, name):
        if name.startswith("__") or self.__dict__.get("_oxgang_main_ran", True):
            raise AttributeError(f"module '__main__' has no attribute {name!r}")
        self.__dict__["_oxgang_main_ran"] = True
        _run_main(self)
        return self.__dict__[name] if name in self.__dict__ else self.__getattr__(name)


def _run_main(module):
    """The owner's script, without its ``if __name__ == "__main__"`` part."""
    import runpy

    name, path = module.__dict__["_oxgang_main"]
    if name is not None and name.rpartition(".")[2] == "__main__":
        return  # of a package: it does its work whoever runs it, and nothing can be found there
    if name is not None:
        found = runpy.run_module(name, run_name="__mp_main__", alter_sys=True)
    else:
        found = runpy.run_path(path, run_name="__mp_main__")
    for key, value in found.items():
        module.__dict__.setdefault(key, value)
        if getattr(value, "__module__", None) == "__mp_main__":
            # the owner knows it by the other name
            try:
                value.__module__ = "__main__"
            except (AttributeError, TypeError):
                continue


def fresh_main(name, path):
    main = _Main("__main__")
    main.__dict__.update(
        __builtins__=__builtins__,
        __spec__=None,
        _oxgang_main=(name, path),
        _oxgang_main_ran=name is None and path is None,
    )
    if path is not None:
        main.__file__ = path
    sys.modules["__main__"] = sys.modules["__mp_main__"] = main


def importing_main():
    """Whether this process is in the middle of running the owner's script to find a name."""
    main = sys.modules.get("__main__")
    return isinstance(main, _Main) and "__mp_main__" in (
        frame.f_globals.get("__name__") for frame in _frames()
    )


def _frames():
    frame = sys._getframe()
    while frame is not None:
        yield frame
        frame = frame.f_back


# -- setting up --------------------------------------------------------------------------


def _setup(data):
    """Makes the process what the owner is: folder, environment, path, arguments."""
    from oxgang._pickling import loads

    facts = loads(data)
    if os.getcwd() != facts["cwd"]:
        os.chdir(facts["cwd"])
    if dict(os.environ) != facts["environ"]:
        os.environ.clear()
        os.environ.update(facts["environ"])
    if sys.path != facts["path"]:
        sys.path[:] = facts["path"]
    sys.argv[:] = facts["argv"]
    if not getattr(sys, "frozen", False):  # there the program's script is running already
        fresh_main(*facts["main"])
    when_multiprocessing_comes(lambda module: _tell(module, facts["name"], facts["authkey"]))
    if facts["initializer"] is not None:
        initializer, initargs = loads(facts["initializer"])
        _initialize(initializer, initargs)


def when_multiprocessing_comes(tell):
    """Calls `tell` with `multiprocessing.process`: once that is imported, which most workers never
    do, and which costs more than starting one."""
    _standard.when_loaded("multiprocessing.process", tell)


def _tell(process, name, authkey):
    """`multiprocessing` shall know that this is a worker, and whose."""
    current = type(process._current_process)()
    current._name = f"{name}-{os.getpid()}"
    current._parent_pid = _owner_pid
    current._config["daemon"] = name == POOL_WORKER
    process._current_process = current
    process._parent_process = process._ParentProcess("MainProcess", _owner_pid, None)
    current.authkey = authkey  # of the program's processes, for what one fetches from another


_owner_pid = None


def _initialize(initializer, initargs):
    try:
        initializer(*initargs)
    except BaseException:
        from concurrent.futures._base import LOGGER

        LOGGER.critical("Exception in initializer:", exc_info=True)
        raise


def _failed_setup(error):
    return (
        "A child process terminated abruptly, the process pool is not usable anymore: a "
        f"worker could not get ready: {type(error).__name__}: {error}"
    )


def serve(invitation, setup):
    """Works until the pool says stop."""
    _outlast_interrupt()

    def guarded(data):
        try:
            setup(data)
        except BaseException as error:
            raise RuntimeError(_failed_setup(error)) from error

    _core.work(invitation, guarded)


def _end():
    """The end of a worker that was forked from the template: what an interpreter's end does
    for the user, without tearing the copy of the template down."""
    import atexit

    threading = _standard.loaded("threading")
    if threading is not None:
        threading._shutdown()
    util = _standard.loaded("multiprocessing.util")
    if util is not None:
        util._exit_function()
    report = sys.modules.get("oxgang._report")
    if report is not None:
        report.hand_in()
    atexit._run_exitfuncs()
    _flush()


def _flush():
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, ValueError, OSError):
            continue  # closed by a task, or nobody reads: as at any interpreter's end


# -- the template --------------------------------------------------------------------------


def template(owner_pid):
    """The template process: warms up what it is told to, forks a worker when it is told to."""
    global _owner_pid
    import gc

    import oxgang._pickling  # noqa: F401 - every worker needs it

    _outlast_interrupt()
    _owner_pid = owner_pid
    link = os.dup(0)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    server = _core.TemplateServer(link)
    while (order := server.next()) is not None:
        if isinstance(order, bytes):
            _warm_up(order)
            continue
        link, incarnation, invitation = order if len(order) == 3 else (order[0], 0, None)
        gc.freeze()  # what is there now stays shared: workers do not touch it while collecting
        try:
            pid = os.fork()
        except OSError as error:
            server.refused(link, incarnation, f"fork failed: {error}")
            pid = None
        if pid == 0:
            os._exit(_life(server, invitation) if invitation else _process_life(server, order[1]))
        if invitation is None:
            for fd in order[1]:
                os.close(fd)
        del invitation, order
        if pid is not None:
            server.started(link, incarnation, pid)


def _warm_up(order):
    """Imports modules; one that fails fails again, and visibly, in the task that needs it."""
    from oxgang._pickling import loads

    path, names = loads(order)
    sys.path[:] = path
    for name in names:
        try:
            __import__(name)
        except Exception:
            continue


def _life(server, invitation):
    import atexit

    atexit._clear()  # what the template's imports registered is the template's
    try:
        held = server.leave()
    except BrokenPipeError:
        return 1  # the owner has ended: there is nobody to tell, and nothing to do
    try:
        serve(invitation, _setup)
        _end()
    except BaseException:
        import traceback

        traceback.print_exc()
        return 1
    del held
    return 0


def _process_life(server, fds):
    """The life of a process that is no worker: what the program gave a `Process` to do."""
    import atexit

    atexit._clear()
    code = 1
    try:
        held = [server.leave()]
        from multiprocessing import util

        from oxgang.multiprocessing import popen_template

        atexit.register(util._exit_function)
        signal(SIGINT, default_int_handler)
        code = popen_template.live(fds, held)
    except BrokenPipeError:
        return 1  # the owner has ended: there is nobody to tell, and nothing to do
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()
        _flush()
    return code


# -- workers made by a multiprocessing context ------------------------------------------------


class Descriptors:
    """The descriptors of an invitation, on their way to a process that is being started."""

    def __init__(self, incarnation, fds):
        self.incarnation = incarnation
        self.fds = fds

    def __reduce__(self):
        from multiprocessing.reduction import DupFd

        return _rebuild, (self.incarnation, [DupFd(fd) for fd in self.fds])


def _rebuild(incarnation, duplicates):
    return Descriptors(incarnation, [duplicate.detach() for duplicate in duplicates])


def run_process(descriptors, initializer, initargs):
    """The target of a worker that a standard context starts."""
    channel, pool, wake, line = descriptors.fds
    try:
        _held = _core.hold_lifeline(line)
    except BrokenPipeError:
        os._exit(1)  # the owner has ended: there is nobody to tell, and nothing to do
    invitation = _core.Invitation(descriptors.incarnation, channel, pool, wake)

    def setup(_data):
        if initializer is not None:
            _initialize(initializer, initargs)

    serve(invitation, setup)
