"""Running other programs, with every command printed first so that it can be run by hand."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEV = ROOT / ".dev"  # everything that set-up makes lives here; removing it is always safe


class Stop(Exception):
    """Something the reader has to change; the message says what. dev.py exits with 2."""


class CommandFailed(Exception):
    """A command that had to work did not; its own output has been shown already."""


def say(text):
    print(text, flush=True)


def shown(path):
    """A path as a reader in the root folder would type it."""
    return re.sub(rf"{re.escape(str(ROOT))}(?=:|$)", ".", str(path).replace(f"{ROOT}{os.sep}", ""))


def announcement(argv, extra_env=None):
    """A command as it could be typed."""
    pairs = [f"{name}={shlex.quote(shown(value))}" for name, value in (extra_env or {}).items()]
    return "+ " + " ".join(pairs + [shlex.quote(shown(word)) for word in argv])


def full_env(extra_env=None):
    return {**os.environ, **{name: str(value) for name, value in (extra_env or {}).items()}}


def run(argv, extra_env=None, check=True):
    """Run with the terminal handed through; return the exit code."""
    argv = [str(word) for word in argv]
    say(announcement(argv, extra_env))
    code = subprocess.run(argv, cwd=ROOT, env=full_env(extra_env), check=False).returncode
    if code and check:
        raise CommandFailed(f"{shown(argv[0])} ended with {code}")
    return code


def capture(argv, extra_env=None):
    """Standard output of a command that is a mere question; None if it could not answer."""
    try:
        done = subprocess.run(
            [str(word) for word in argv],
            cwd=ROOT,
            env=full_env(extra_env),
            check=False,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=60,
        )
    except (OSError, subprocess.TimeoutExpired) as problem:
        print(f"(no answer from {shown(argv[0])}: {problem})", file=sys.stderr)
        return None
    return done.stdout if done.returncode == 0 else None
