"""Finding Python interpreters: the one in use, a named version or path, or all there are."""

import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

from tools.shell import Stop, capture

OLDEST = (3, 11)
NEWEST_LOOKED_FOR = 20
CI_VERSIONS = ("3.11", "3.13")

_QUESTION = (
    "import json,os,sys,sysconfig;"
    "print(json.dumps([list(sys.version_info[:3]),"
    "bool(sysconfig.get_config_var('Py_GIL_DISABLED')),"
    "os.path.realpath(sys.executable),sys.implementation.name]))"
)


class Interpreter(NamedTuple):
    path: str  # as it is to be called
    version: tuple
    tag: str  # "3.11"; "3.13t" for a build without the GIL
    real: str  # the file behind links and shims

    @property
    def release(self):
        return ".".join(map(str, self.version))


def probe(path):
    """Ask an interpreter what it is. None if it does not run, or is not a CPython >= 3.11."""
    answer = capture([path, "-I", "-c", _QUESTION])
    if answer is None:
        return None
    version, free_threaded, real, name = json.loads(answer)
    if tuple(version[:2]) < OLDEST or name != "cpython":
        return None
    tag = f"{version[0]}.{version[1]}{'t' if free_threaded else ''}"
    return Interpreter(str(path), tuple(version), tag, real)


def running():
    found = probe(sys.executable)
    if found is None:
        raise Stop(f"{sys.executable} is not a CPython 3.11 or later: start dev.py with one")
    return found


def _candidates():
    minors = range(OLDEST[1], NEWEST_LOOKED_FOR)
    for name in [f"python3.{minor}{kind}" for minor in minors for kind in ("", "t")] + ["python3"]:
        path = shutil.which(name)
        # a pyenv shim answers for whatever version is selected, or not at all: look behind it
        if path and "shims" not in Path(path).parts:
            yield path
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for python in sorted(versions.glob("3.*/bin/python")):
        if not _too_old(python.parent.parent.name):
            yield str(python)


def _too_old(name):
    match = re.match(r"(\d+)\.(\d+)", name)
    return bool(match) and (int(match[1]), int(match[2])) < OLDEST


def installed():
    """Every usable interpreter, the newest release of each kind, and the running one first."""
    mine = running()
    best = {}
    for path in _candidates():
        found = probe(path)
        if found and (found.tag not in best or best[found.tag].version < found.version):
            best[found.tag] = found
    best[mine.tag] = mine
    return sorted(best.values(), key=lambda found: (found.version[:2], found.tag))


def choose(words):
    """Turn the values of ``--python`` into interpreters; an unknown one is a clear line."""
    if not words:
        return [running()]
    chosen = {}
    for word in words:
        for found in _one(word):
            chosen.setdefault(found.tag, found)
    return list(chosen.values())


def _one(word):
    if word == "all":
        return installed()
    if word == "ci":
        known = installed()
        return [found for found in known if found.tag in CI_VERSIONS] or [running()]
    if os.sep in word:
        found = probe(word)
        if found is None:
            raise Stop(f"--python {word}: not a CPython 3.11 or later that can be run")
        return [found]
    known = installed()
    matching = [found for found in known if word in (found.tag, found.release)]
    if not matching:
        have = ", ".join(found.tag for found in known)
        raise Stop(f"--python {word}: not found. Here: {have}; or give the path of one")
    return matching
