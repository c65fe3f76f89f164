"""`oxgang run`: a program as `python` runs it, with this package's modules installed.

The program is not run from here. This process becomes ``python`` with the program's own command
line: the interpreter itself opens scripts, finds modules, reads standard input, makes
``__main__``, prints tracebacks, ends by signals, goes on interactively with ``-i``; there is no
frame of ours below the program's. What makes the difference is a folder in front of PYTHONPATH
with a `sitecustomize` module (``_site``), which calls `begin` before anything of the program's is
imported. `begin` takes folder and variables out again, so that neither the program nor the
processes that it starts see them; with ``--children`` they stay.

An interpreter that was told to ignore the environment or the `site` module (-E, -I, -S) takes no
notice of that folder: see `_inside`.

The variable OXGANG_RUN says: the process that is meant first of all, what is exchanged, and words
for `begin`, each after a colon.
"""

import os
import sys

_SITE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "_site")
_VARIABLE = "OXGANG_RUN"


def run(words):
    """`oxgang run` with these words; returns only if the command was wrong."""
    from oxgang._core import CliStop, run_options

    try:
        families, report, children, flags, program = run_options(words)
    except CliStop as stop:
        code, out, err = stop.args
        sys.stdout.write(out)
        sys.stderr.write(err)
        return code
    if not sys.executable:
        sys.stderr.write("oxgang run: this Python does not know its own program file\n")
        return 2
    flags = [*_own_flags(), *flags]
    told = [word for word, wanted in (("report", report), ("children", children)) if wanted]
    setting = ":".join((str(os.getpid()), ",".join(families), *told))
    if _ignores_site(flags):
        from oxgang._inside import command

        command_line = command(flags, setting, program)
    else:
        command_line = [*flags, *program]
        os.environ[_VARIABLE] = setting
        os.environ["PYTHONPATH"] = _with_site(os.environ.get("PYTHONPATH", ""))
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *command_line])


def _own_flags():
    """The interpreter's options that this process was started with."""
    given = len(sys.argv) - 1
    before = sys.orig_argv[1 : len(sys.orig_argv) - given]
    if before and before[-1] == "oxgang":
        del before[-2:]  # -m oxgang
    else:
        del before[-1:]  # the script `oxgang`
    return before


def _ignores_site(flags):
    """Whether an interpreter with these options runs no `sitecustomize` from PYTHONPATH."""
    values = iter(flags)
    for word in values:
        if word in ("-W", "-X", "--check-hash-based-pycs"):
            next(values, None)
        elif word[1:2] not in ("-", "W", "X") and any(letter in word for letter in "EIS"):
            return True
    return False


def _with_site(path):
    return os.pathsep.join([_SITE, path]) if path else _SITE


def _without_site(path):
    return os.pathsep.join(entry for entry in path.split(os.pathsep) if entry != _SITE)


def begin(setting, site=_SITE):
    """At the start of a process that is meant: installs what is wanted."""
    from oxgang import _install, _report

    pid, families, *told = setting.split(":")
    first = pid == str(os.getpid())
    if "children" in told:
        # for those that come after, wherever the folder is written the same way
        os.environ[_VARIABLE] = ":".join(("-", families, "children"))
    else:
        tell_no_children()
    if "report" in told and first:
        _report.begin(sys.orig_argv)
    _install._install(tuple(families.split(",")))


def tell_children(families):
    """Has Python processes that this one starts in any way install the same."""
    os.environ[_VARIABLE] = ":".join(("-", ",".join(families), "children"))
    os.environ["PYTHONPATH"] = _with_site(_without_site(os.environ.get("PYTHONPATH", "")))


def tell_no_children():
    """Takes back what children are told by the environment."""
    os.environ.pop(_VARIABLE, None)
    path = _without_site(os.environ.get("PYTHONPATH", ""))
    if path:
        os.environ["PYTHONPATH"] = path
    else:
        os.environ.pop("PYTHONPATH", None)
