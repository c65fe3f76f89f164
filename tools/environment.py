"""One prepared folder per interpreter: requirements in, the wheel built and installed.

A virtual environment where the interpreter can make one; otherwise a folder filled with
``pip install --target`` and put on PYTHONPATH. Each part is redone only when what it was made
from has changed: a stamp in the folder keeps the digests.
"""

import fcntl
import hashlib
import json
import os
import shutil
import tomllib
from contextlib import contextmanager
from pathlib import Path

from tools.shell import DEV, ROOT, Stop, capture, run, say

_WHEEL_SOURCES = ("Cargo.toml", "Cargo.lock", "pyproject.toml", "README.md", "crates", "python")
_NOT_SOURCES = {"__pycache__", "target", ".so", ".pyc"}
_STAMP = "oxgang-stamp.json"


def find_cargo():
    """Make sure that cargo can be called, adding rustup's usual folder to PATH if need be."""
    if not shutil.which("cargo"):
        usual = Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo")) / "bin"
        if not (usual / "cargo").exists():
            raise Stop("cargo not found: install Rust (https://rustup.rs), then run this again")
        os.environ["PATH"] = f"{usual}{os.pathsep}{os.environ['PATH']}"
    wanted = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]
    answer = (capture(["cargo", "--version"]) or "").split()
    if len(answer) < 2:
        raise Stop("cargo does not run: `cargo --version` gave nothing; repair Rust first")
    if _numbers(answer[1]) < _numbers(wanted["rust-version"]):
        raise Stop(f"Rust {answer[1]} is too old: {wanted['rust-version']} or later is needed")


def _numbers(version):
    return tuple(int(part) for part in version.split("-")[0].split(".")[:2])


def digest(paths, salt=""):
    """One hash over names and contents of files and whole folders."""
    total = hashlib.sha256(salt.encode())
    for path in paths:
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            name = file.relative_to(ROOT)
            if not file.is_file() or _NOT_SOURCES & {*name.parts, file.suffix}:
                continue
            total.update(f"{name}\0{file.stat().st_size}\0".encode())
            total.update(file.read_bytes())
    return total.hexdigest()


@contextmanager
def set_up_lock():
    """Two dev.py at once would write the same folders: the second waits for the first."""
    DEV.mkdir(exist_ok=True)
    with open(DEV / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("(another dev.py is setting up in .dev; waiting for it. Ctrl-C stops)")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class Environment:
    """The prepared folder of one interpreter. ``python`` and ``env`` are how to use it."""

    def __init__(self, interpreter):
        self.interpreter = interpreter
        self.tag = interpreter.tag
        self.venv = DEV / f"venv-{self.tag}"
        self.target = DEV / f"target-{self.tag}"

    @property
    def is_venv(self):
        return self._python_of_venv().exists()

    @property
    def python(self):
        return self._python_of_venv() if self.is_venv else Path(self.interpreter.path)

    @property
    def env(self):
        """Variables that a program in this environment needs."""
        return {} if self.is_venv else {"PYTHONPATH": str(self.target)}

    def program(self, name):
        """The path of an installed command."""
        return (self.venv if self.is_venv else self.target) / "bin" / name

    def require(self, *names):
        """Make the environment if need be, and install ``requirements/<name>.txt`` of each."""
        with set_up_lock():
            self._create()
            files = [ROOT / "requirements" / f"{name}.txt" for name in names]
            # examples.txt is included by test.txt: any change of the folder counts
            every = sorted((ROOT / "requirements").glob("*.txt"))
            key = "requirements " + " ".join(names)
            current = digest(every)
            if self._stamp().get(key) != current:
                self._pip(*[word for file in files for word in ("-r", file)])
                self._remember(key, current)

    def install_oxgang(self):
        """Build the wheel for this interpreter and install it, unless that is already so."""
        find_cargo()
        self.require("dev")
        with set_up_lock():
            compiler = capture(["rustc", "--version"]) or ""
            salt = f"{self.interpreter.real} {self.interpreter.release} {compiler}"
            current = digest([ROOT / name for name in _WHEEL_SOURCES], salt)
            if self._stamp().get("wheel") == current:
                return
            wheels = DEV / "wheels" / self.tag
            shutil.rmtree(wheels, ignore_errors=True)
            maturin = [self.program("maturin"), "build", "--release"]
            run([*maturin, "--interpreter", self.python, "--out", wheels])
            (wheel,) = wheels.glob("oxgang-*.whl")
            self._pip(*_runtime_requirements())
            self._pip("--force-reinstall", "--no-deps", wheel)
            self._remember("wheel", current)

    def _python_of_venv(self):
        return self.venv / "bin" / "python"

    def _create(self):
        made_from = f"{self.interpreter.real} {self.interpreter.release}"
        if self._stamp().get("made from") == made_from:
            return
        for folder in (self.venv, self.target):
            shutil.rmtree(folder, ignore_errors=True)
        # Some distributions ship a venv module that cannot bring its own pip.
        if run([self.interpreter.path, "-m", "venv", self.venv], check=False):
            shutil.rmtree(self.venv, ignore_errors=True)
            if capture([self.interpreter.path, "-m", "pip", "--version"]) is None:
                raise Stop(
                    f"{self.interpreter.path} can neither make a virtual environment nor run pip: "
                    "install its pip (often a package named python3-pip), then run this again"
                )
            say(f"(no virtual environments here: installing into .dev/{self.target.name} instead)")
            self.target.mkdir(parents=True)
        self._remember("made from", made_from)

    def _pip(self, *words):
        where = [] if self.is_venv else ["--target", self.target, "--upgrade"]
        pip = [self.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        run([*pip, *where, *words])

    def _stamp_file(self):
        return (self.venv if self.is_venv else self.target) / _STAMP

    def _stamp(self):
        try:
            return json.loads(self._stamp_file().read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return {}

    def _remember(self, key, value):
        stamp = {**self._stamp(), key: value}
        self._stamp_file().write_text(json.dumps(stamp, indent=1))


def _runtime_requirements():
    """What the wheel needs, its extras included: the wheel itself goes in without looking."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project.get("optional-dependencies", {})
    return [*project["dependencies"], *[line for lines in extras.values() for line in lines]]
