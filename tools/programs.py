"""Real programs that use threads and processes in anger, under `python` and under `oxgang run`: the
same output, the same exit code, and nothing left behind.

``python -m tools.programs FOLDER`` runs them in FOLDER, which it fills first; the program names are
those of the modules, so the environment must have ``requirements/programs.txt``.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

LIMIT_S = 300
GONE_WITHIN_S = 20
MODULES = 12

# what differs from run to run: times, seeds, process ids, names of temporary folders
_CHANCE = re.compile(
    r"\d+\.\d+ ?s(?:ec(?:onds)?)?\b|in \d+[\d.]*s|pid[ =]\d+|\bgw\d\b|0x[0-9a-f]+|scratch-\w+"
)
_PROGRESS = re.compile(r"[.FEsx]+ +\[ *\d+%\]")  # in the order in which tests end

LEARN = """
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import GridSearchCV, cross_val_score

if __name__ == "__main__":
    X, y = make_classification(n_samples=300, n_features=8, random_state=1)
    forest = RandomForestClassifier(n_estimators=20, random_state=2, n_jobs=2)
    print(cross_val_score(forest, X, y, cv=3, n_jobs=2).round(6).tolist())
    depths = {"max_depth": [2, 4]}
    grid = GridSearchCV(RandomForestClassifier(random_state=3), depths, cv=3, n_jobs=2)
    print(grid.fit(X, y).best_params_, round(grid.best_score_, 6))
"""


class Program(NamedTuple):
    name: str
    words: tuple
    sorts: bool = False  # the order of its lines is chance
    changes: str = ""  # a folder that it writes, compared too


PROGRAMS = (
    Program("black", ("-m", "black", "--workers", "2", "package"), sorts=True, changes="package"),
    Program("black --check", ("-m", "black", "--check", "--workers", "2", "package"), sorts=True),
    Program("pylint -j2", ("-m", "pylint", "-j2", "--score=n", "package"), sorts=True),
    Program("sphinx -j2", ("-m", "sphinx", "-j2", "-q", "-E", "docs", "built"), changes="built"),
    Program(
        "pytest -n2", ("-m", "pytest", "-n2", "-q", "-p", "no:cacheprovider", "tests"), sorts=True
    ),
    Program("scikit-learn n_jobs=2", ("learn.py",)),
)


def fill(folder):
    """The inputs: a package that wants formatting, its documents, its tests."""
    package, docs, tests = folder / "package", folder / "docs", folder / "tests"
    for one in (package, docs, tests):
        one.mkdir(parents=True)
    (package / "__init__.py").write_text("'''A package.'''\n")
    pages = []
    for number in range(MODULES):
        (package / f"part_{number}.py").write_text(
            f"'''Part {number}.'''\nimport os,sys\ndef  add( a,b = {number} ) :\n"
            "    '''Adds.'''\n    unused = 1\n    return {'sum':a+b , 'path':sys.path}\n"
        )
        (tests / f"test_{number}.py").write_text(
            "import threading\n\ndef test_sum():\n    assert sum(range(4)) == 6\n\n"
            f"def test_fails():\n    assert {number} % 4 != 3, 'as intended'\n"
        )
        (docs / f"page_{number}.rst").write_text(
            f"Page {number}\n=======\n\nText, :ref:`search`.\n"
        )
        pages.append(f"   page_{number}")
    (docs / "conf.py").write_text("project = 'Pages'\nhtml_last_updated_fmt = None\n")
    index = ["Index", "=====", "", ".. toctree::", "", *pages, ""]
    (docs / "index.rst").write_text("\n".join(index))
    (folder / "learn.py").write_text(LEARN)


def run(program, home, ours):
    """(what is compared, what it left behind) of one run in a folder of its own."""
    folder = home / ("ours" if ours else "plain") / re.sub(r"\W+", "-", program.name)
    shutil.rmtree(folder, ignore_errors=True)
    fill(folder / "work")
    scratch = folder / "scratch"
    scratch.mkdir()
    prefix = ["-m", "oxgang", "run"] if ours else []
    shared = set(os.listdir("/dev/shm"))
    process = subprocess.Popen(
        [sys.executable, *prefix, *program.words],
        cwd=folder / "work",
        env={**os.environ, "TMPDIR": str(scratch), "PYTHONHASHSEED": "0", "COLUMNS": "100"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return ("hung", process.communicate()[0]), []
    lines = _CHANCE.sub("*", output.replace(str(folder), "")).splitlines()
    lines = ["".join(sorted(line)) if _PROGRESS.fullmatch(line) else line for line in lines]
    said = sorted(lines) if program.sorts else lines
    files = _files(folder / "work" / program.changes) if program.changes else {}
    return (process.returncode, said, files), _left(process.pid, scratch, shared)


def _files(folder):
    """Contents by name, but for what a tool keeps for itself."""
    own = {".doctrees", "__pycache__", ".buildinfo"}
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in paths
        if not own & set(path.relative_to(folder).parts)
    }


def _left(session, scratch, shared):
    """What should have gone with the program, and has not after a while."""
    end = time.monotonic() + GONE_WITHIN_S
    while True:
        left = [f"process {pid}" for pid in _members(session)]
        left += [str(path.name) for path in scratch.iterdir()]
        left += sorted(set(os.listdir("/dev/shm")) - shared)
        if not left or time.monotonic() > end:
            return left
        time.sleep(0.1)


def _members(session):
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            stat = Path("/proc", entry, "stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
        state, _parent, _group, of = stat.rpartition(")")[2].split()[:4]
        if int(of) == session and state not in "ZX":
            yield int(entry)


def difference(plain, ours):
    """The first thing that is not the same, in words."""
    if plain[0] != ours[0]:
        return f"exit code {ours[0]} instead of {plain[0]}: " + " | ".join(list(ours[1])[-3:])
    for mine, theirs in zip(ours[1], plain[1], strict=False):
        if mine != theirs:
            return f"says {mine!r} instead of {theirs!r}"
    if len(plain[1]) != len(ours[1]):
        return f"{len(ours[1])} lines instead of {len(plain[1])}"
    names = {name for name in {**plain[2], **ours[2]} if plain[2].get(name) != ours[2].get(name)}
    return f"other files: {', '.join(sorted(names)[:3])}"


def main():
    home = Path(sys.argv[1]).resolve()
    chosen = [one for one in PROGRAMS if not sys.argv[2:] or one.name.split()[0] in sys.argv[2:]]
    passed = failed = 0
    for program in chosen:
        plain, left_plain = run(program, home, ours=False)
        ours, left = run(program, home, ours=True)
        problems = []
        if plain != ours:
            problems.append(difference(plain, ours))
        # what plain python leaves behind is not ours
        if len(left) > len(left_plain):
            problems.append(f"left behind: {', '.join(left)}")
        failed += bool(problems)
        passed += not problems
        print(f"{program.name}: {'; '.join(problems) or 'the same'}", flush=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
