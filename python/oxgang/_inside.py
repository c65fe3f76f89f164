"""`oxgang run` for interpreters that take no notice of PYTHONPATH or of the `site` module (-E, -I,
-S): the program is run from here, in the place of the interpreter's own main program.

What `_run` has for nothing is made by hand: ``__main__`` and ``sys.path[0]`` as they would be, and
tracebacks that begin with the program.
"""

import os
import sys

_BOOT = "import sys; sys.path.append({folder!r}); from oxgang._inside import main; main()"


def command(flags, setting, program):
    """The interpreter's command line."""
    folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return [*flags, "-c", _BOOT.format(folder=folder), setting, *program]


def main():
    """Runs the program named by ``sys.argv``; called once, at the very beginning."""
    _, setting, *program = sys.argv
    sys.path.pop()
    if not sys.flags.safe_path:
        del sys.path[0]
    from oxgang._run import begin

    begin(setting)
    names = vars(sys.modules["__main__"])
    kept = {name: names[name] for name in ("__builtins__", "__loader__")}
    names.clear()
    names.update(
        kept,
        __name__="__main__",
        __doc__=None,
        __package__=None,
        __spec__=None,
        __annotations__={},
    )
    try:
        _run(program, names)
    except BaseException as error:
        _begin_traceback_with_program(error)
        raise


def _run(program, names):
    kind = program[0] if program else "-"
    if kind == "-m":
        import runpy

        sys.argv[:] = ["-m", *program[2:]]
        _search_first("" if sys.flags.safe_path else os.getcwd())
        runpy._run_module_as_main(program[1])
    elif kind == "-c":
        sys.argv[:] = ["-c", *program[2:]]
        _search_first("")
        exec(compile(program[1], "<string>", "exec"), names)
    elif kind == "-":
        sys.argv[:] = program or [""]
        _search_first("")
        if sys.stdin.isatty():
            import code

            code.interact(local=names, exitmsg="")
        else:
            names.update(__file__="<stdin>", __cached__=None)
            exec(compile(sys.stdin.read(), "<stdin>", "exec"), names)
    else:
        sys.argv[:] = program
        _run_path(kind, names)


def _search_first(entry):
    if not sys.flags.safe_path:
        sys.path.insert(0, entry)


def _run_path(path, names):
    if os.path.isdir(path) or _is_archive(path):
        import runpy

        sys.path.insert(0, path)
        runpy._run_module_as_main("__main__", alter_argv=False)
        return
    try:
        with open(path, "rb") as file:
            source = file.read()
    except OSError as error:
        sys.stderr.write(
            f"{sys.executable}: can't open file {os.path.abspath(path)!r}: "
            f"[Errno {error.errno}] {error.strerror}\n"
        )
        sys.exit(2)
    _search_first(os.path.dirname(os.path.realpath(path)))
    from importlib.machinery import SourceFileLoader

    path = os.path.abspath(path)
    names.update(__file__=path, __cached__=None, __loader__=SourceFileLoader("__main__", path))
    exec(compile(source, path, "exec"), names)


def _is_archive(path):
    if not os.path.isfile(path) or path.endswith(".py"):
        return False
    import zipfile

    return zipfile.is_zipfile(path)


def _begin_traceback_with_program(error):
    """What is shown of an error that ends the program has no frames of this module. The hook that
    shows it is whatever the program has made it by now."""
    hook = sys.excepthook

    def shown(kind, value, traceback):
        if value is error:
            traceback = _without_ours(traceback)
            value = value.with_traceback(traceback)
        hook(kind, value, traceback)

    sys.excepthook = shown


def _without_ours(traceback):
    """The rest of a traceback from the first frame after the last of this module."""
    rest = traceback
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == __file__:
            rest = traceback.tb_next
        traceback = traceback.tb_next
    return rest
