"""The function named on a command line: found here, and found again in every worker.

`package.module:function` is imported with the current directory importable, as
`python -m` would. `path/to/file.py:function` is imported under the file's stem, with its
directory importable, so that it may import its neighbours as a script may. Where that name
already belongs to something else (a file named `json.py`), the file gets a name of its own, and
its directory comes last in the search, so that whoever imports `json` goes on getting `json`.

Functions cross to workers by name, so a worker repeats the same two steps, `prepare_worker`,
before its first task; an initializer that has nothing left to do returns at once.

Bad targets raise `BadTarget`: one line that says what to do.
"""

import importlib
import os
import signal
import sys
from types import FunctionType, ModuleType
from typing import NamedTuple

from oxgang._kinds import gives_coroutines

FORMS = "TARGET must be module:function or path/to/file.py:function"


class BadTarget(Exception):
    """The target cannot be used; the message is for the user, on one line."""


class Home(NamedTuple):
    """How to import the target's module in another process."""

    folder: str
    module: str
    file: str | None  # set when the name is not the one its file would have
    owner: int  # the process of the command


def resolve(target):
    """Return the callable that `target` names, and its `Home`."""
    place, colon, name = target.rpartition(":")
    if not colon or not place or not name:
        raise BadTarget(f"{FORMS}, not {target!r}")
    home = _home_of_file(place) if place.endswith(".py") else _home_of_module(place)
    module = _imported(home, place)
    found = module
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise BadTarget(f"{place} has no function {name!r}{_near(found, part)}") from None
    if not callable(found):
        kind = type(found).__name__
        raise BadTarget(f"{target} is not callable (it is of type {kind}); name a function")
    return found, home


def check_model(function, target, model, memory_limit):
    """The model for a function, where "auto" leaves it open; refuse one that does not fit."""
    coroutines = gives_coroutines(function)
    if coroutines and model in ("process", "thread"):
        raise BadTarget(
            f"{target} is a coroutine function; leave --model out, or take --model coroutine"
        )
    if coroutines and memory_limit is not None:
        raise BadTarget(
            f"{target} is a coroutine function, and all of its calls share this process's memory; "
            "leave --memory-limit out"
        )
    if model == "coroutine" and isinstance(function, FunctionType) and not coroutines:
        raise BadTarget(
            f"{target} is no coroutine function; make it an async def, or take another --model"
        )
    return "coroutine" if coroutines else model


def check_call(function, target, call):
    """Refuse a function that cannot be called with the first input's arguments."""
    from inspect import signature

    try:
        parameters = signature(function)
    except (TypeError, ValueError):
        return  # a builtin without a signature: the call itself will tell
    try:
        parameters.bind(*call.args, **call.kwargs)
    except TypeError as error:
        if call.kwargs:
            given = "each input as keyword arguments " + ", ".join(call.kwargs)
        else:
            given = "each input as its one argument"
        raise BadTarget(
            f"{target}{parameters} does not take {given}: {error}; change its parameters"
        ) from None


def prepare_worker(home):
    """Make a new worker process able to find the function; leave Ctrl-C to the command."""
    if os.getpid() == home.owner:
        return  # a worker thread
    # A no-op instead of SIG_IGN: programs that the function starts do not inherit it.
    signal.signal(signal.SIGINT, _leave_it_to_the_command)
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_DFL)
    _import(home)


def _leave_it_to_the_command(signum, frame):
    """The command ends its workers itself, once it has heard of the signal."""


def _home_of_module(name):
    if os.sep in name or not all(name.split(".")):
        raise BadTarget(f"{FORMS}, not {name!r} before the colon")
    return Home(os.getcwd(), name, None, os.getpid())


def _home_of_file(path):
    full = os.path.realpath(path)
    if not os.path.isfile(full):
        what = "it is a directory" if os.path.isdir(full) else "no such file"
        raise BadTarget(f"cannot import {path}: {what}; check the path")
    folder, base = os.path.split(full)
    stem = base.removesuffix(".py")
    if _is_free(stem, folder, full):
        return Home(folder, stem, None, os.getpid())
    return Home(folder, f"_oxgang_target_{stem.replace('.', '_')}", full, os.getpid())


def _is_free(stem, folder, full):
    """Whether importing `stem` from `folder` gives the file `full`."""
    if "." in stem:
        return False
    if stem in sys.modules:
        return _is_at(getattr(sys.modules[stem], "__file__", None), full)
    from importlib.machinery import PathFinder

    if stem in sys.builtin_module_names:
        return False
    # A package of the same name in that folder would win over the file; an installed module
    # would lose to it, but other modules may mean that one.
    here = PathFinder.find_spec(stem, [folder])
    elsewhere = PathFinder.find_spec(stem, sys.path)
    return (
        here is not None
        and _is_at(here.origin, full)
        and (elsewhere is None or _is_at(elsewhere.origin, full))
    )


def _is_at(file, full):
    return file is not None and os.path.realpath(file) == full


def _imported(home, place):
    try:
        return _import(home)
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # a module may raise anything, SystemExit too
        raise BadTarget(f"cannot import {place}: {_described(error, home)}") from error


def _import(home) -> ModuleType:
    if home.folder not in sys.path:
        sys.path.insert(0 if home.file is None else len(sys.path), home.folder)
    if home.file is None:
        return importlib.import_module(home.module)
    if home.module in sys.modules:
        return sys.modules[home.module]
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location(home.module, home.file)
    module = sys.modules[home.module] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[home.module]
        raise
    return module


def _described(error, home):
    """The error on one line, with the line of the user's code that raised it."""
    if isinstance(error, ModuleNotFoundError) and error.name == home.module.partition(".")[0]:
        return f"no such module in {home.folder} or among the installed ones; check the name"
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, SyntaxError):
        return text
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    frames = "" if last is None else last.tb_frame.f_code.co_filename
    if not frames or frames.startswith("<frozen"):
        return text
    return f"{text} ({frames}, line {last.tb_lineno})"


def _near(holder, part):
    from difflib import get_close_matches

    names = [name for name in dir(holder) if not name.startswith("_")]
    near = get_close_matches(part, names, n=1)
    return f"; did you mean {near[0]!r}?" if near else "; check the name"
