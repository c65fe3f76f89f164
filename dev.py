"""The verbs of this repository: python3 dev.py demo | test | check | fix | bench | deep | programs.

Needs Rust, Python 3.11 or later and pip, nothing else: each verb does its own set-up under .dev/
and prints every command before running it. Exit code 0: all went well; 1: something failed;
2: something has to be put right first, and the last line says what.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036  (said clearly, before newer syntax is met)
    sys.exit("dev.py: Python 3.11 or later is needed; this one is " + sys.version.split()[0])

import argparse
import os

from tools import conformance
from tools import deep as deep_steps
from tools.environment import Environment, find_cargo
from tools.interpreters import choose, running
from tools.shell import DEV, ROOT, CommandFailed, Stop, run, say
from tools.steps import Steps


def demo(options):
    """Build, then run both examples on real input, with a worker killed on the way."""
    environment = _prepared(choose(options.python)[0], "examples")
    paths = [ROOT, ROOT / "examples", environment.env.get("PYTHONPATH")]
    path = os.pathsep.join(str(part) for part in paths if part)
    return run([environment.python, "-m", "tools.demo"], {"PYTHONPATH": path}, check=False)


def test(options):
    """Rust tests, loom models, Python tests and CPython's own, on each chosen interpreter."""
    interpreters = choose(options.python)
    find_cargo()
    steps = Steps()
    rust_env = {"PYO3_PYTHON": interpreters[0].path}
    steps.run("cargo test", ["cargo", "test", "--workspace"], rust_env)
    _loom(steps, options.fast)
    tests, suites = [], []
    for interpreter in interpreters:
        try:
            environment = _prepared(interpreter, "test")
        except CommandFailed as problem:
            steps.fail(f"build for {interpreter.tag}", str(problem))
            continue
        pytest = [environment.python, "-m", "pytest", "tests", "-q"]
        pytest += ["--color=yes"] if sys.stdout.isatty() else []
        pytest += ["-m", "not slow"] if options.fast else []
        tests.append((f"pytest on {interpreter.tag}", pytest, environment.env))
        suites += conformance.suites(steps, environment, options.fast)
    # they wait more than they compute
    at_once = min(2, os.cpu_count() or 1)
    steps.run_side_by_side(tests, at_once)
    steps.run_side_by_side(suites, at_once)
    return steps.finish()


def check(_options):
    """Formatting, lints and the rules of the tree; changes nothing."""
    find_cargo()
    environment = Environment(running())
    environment.require("dev")
    ruff = environment.program("ruff")
    clippy = ["cargo", "clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]
    steps = Steps()
    steps.run("cargo fmt", ["cargo", "fmt", "--all", "--check"])
    steps.run("clippy", clippy, {"PYO3_PYTHON": environment.interpreter.path})
    steps.run("ruff check", [ruff, "check", "."])
    steps.run("ruff format", [ruff, "format", "--check", "."])
    steps.run("tidy", [environment.python, ROOT / "tests" / "repo" / "tidy.py"])
    return steps.finish()


def fix(_options):
    """Format, and mend what the linters can mend on their own."""
    find_cargo()
    environment = Environment(running())
    environment.require("dev")
    ruff = environment.program("ruff")
    run(["cargo", "fmt", "--all"])
    run([ruff, "format", "."])
    return run([ruff, "check", "--fix", "."], check=False)


def bench(options):
    """Our scenarios against the standard library, in one run; benches/README.md defines them."""
    worst = 0
    interpreters = choose(options.python)
    if len(interpreters) > 1 and "--json" in options.rest:
        raise Stop("bench --json: one --python at a time, or each would overwrite the last")
    for interpreter in interpreters:
        environment = _prepared(interpreter, "test")
        command = [environment.python, "-m", "benches", *options.rest]
        worst = max(worst, run(command, environment.env, check=False))
    return worst


def deep(options):
    """What takes long: models, planted bugs, fuzzers, Miri, sanitizers, long storms."""
    interpreters = choose(options.python)
    find_cargo()
    steps = Steps()
    _loom(steps, fast=False)
    deep_steps.mutations(steps)
    deep_steps.fuzzers(steps)
    deep_steps.miri(steps)
    deep_steps.sanitizers(steps)
    for interpreter in interpreters:
        try:
            environment = _prepared(interpreter, "test")
        except CommandFailed as problem:
            steps.fail(f"build for {interpreter.tag}", str(problem))
            continue
        deep_steps.storms(steps, environment)
    return steps.finish()


def programs(options):
    """Real programs (a formatter, a linter, sphinx, pytest, scikit-learn) under oxgang run."""
    steps = Steps()
    for interpreter in choose(options.python):
        environment = _prepared(interpreter, "programs")
        folder = DEV / f"programs-{interpreter.tag}"
        command = [environment.python, "-m", "tools.programs", folder]
        steps.run(f"programs on {interpreter.tag}", command, environment.env)
    return steps.finish()


def _prepared(interpreter, *requirements):
    environment = Environment(interpreter)
    environment.require(*requirements)
    environment.install_oxgang()
    return environment


def _loom(steps, fast):
    if not (ROOT / "crates" / "oxgang-shm" / "tests" / "loom.rs").exists():
        return
    if fast:
        steps.skip("loom", "--fast")
        return
    # its own target folder: the cfg changes every crate below, and would rebuild them each way
    env = {"RUSTFLAGS": "--cfg loom", "CARGO_TARGET_DIR": ROOT / "target" / "loom"}
    steps.run("loom", ["cargo", "test", "-p", "oxgang-shm", "--test", "loom", "--release"], env)


def main(words):
    parser = argparse.ArgumentParser(prog="dev.py", description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb in (demo, test, check, fix, bench, deep, programs):
        sub = verbs.add_parser(verb.__name__, help=verb.__doc__, description=verb.__doc__)
        sub.set_defaults(verb=verb)
        if verb in (demo, test, bench, deep, programs):
            sub.add_argument(
                "--python",
                nargs="+",
                default=[],
                metavar="X",
                help="a version (3.12), the path of an interpreter, 'all' that are found, or 'ci' "
                "(3.11 and 3.13 where present); default: the one that runs dev.py",
            )
        if verb is test:
            sub.add_argument("--fast", action="store_true", help="leave out what takes minutes")
    options, rest = parser.parse_known_args(words)
    if rest and options.verb is not bench:
        parser.error(f"unknown: {' '.join(rest)}")
    options.rest = [word for word in rest if word != "--"]
    return options.verb(options)


if __name__ == "__main__":
    try:
        code = main(sys.argv[1:])
    except Stop as problem:
        say(f"dev.py: {problem}")
        code = 2
    except CommandFailed as problem:
        say(f"dev.py: {problem}; its output is above")
        code = 1
    except KeyboardInterrupt:
        say("dev.py: stopped")
        code = 130
    sys.exit(code)
