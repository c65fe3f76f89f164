"""The steps of ``dev.py deep``: what takes many minutes, or a toolchain that not everybody has.

What cannot run here is skipped with a sentence that says why, and what to install.
"""

import os
import random
import sys
from pathlib import Path

from tools.shell import ROOT, capture

SEEDS = (1, 2, 3)
STORM_TASKS = 200_000
FUZZ_S = 60
FUZZ_TARGETS = sorted(path.stem for path in (ROOT / "fuzz" / "fuzz_targets").glob("*.rs"))
MUTATIONS_LIMIT_S = 2 * 3600
CRATES = ("-p", "oxgang-shm", "-p", "oxgang-os", "-p", "oxgang")


def mutations(steps):
    command = [sys.executable, "-m", "tools.mutations"]
    steps.run("planted bugs", command, limit_s=MUTATIONS_LIMIT_S)


def fuzzers(steps):
    """Each target for a while, from nothing."""
    if capture(["cargo", "+nightly", "fuzz", "--version"]) is None:
        why = "needs a nightly Rust and cargo-fuzz (cargo install cargo-fuzz); "
        steps.skip("fuzzers", why + "the same functions ran as property tests in dev.py test")
        return
    for target in FUZZ_TARGETS:
        limit = ["--", f"-max_total_time={FUZZ_S}", "-timeout=10"]
        steps.run(f"fuzz {target}", ["cargo", "+nightly", "fuzz", "run", target, *limit])


def miri(steps):
    """The crate without system calls, where no test forks or maps."""
    if capture(["cargo", "+nightly", "miri", "--version"]) is None:
        steps.skip("miri", "needs a nightly Rust with miri (rustup +nightly component add miri)")
        return
    # proptest's thousands of cases would take hours; they are the same code with other numbers
    words = ["miri", "test", "-p", "oxgang-shm", "--lib", "--test", "crash_points", "--"]
    env = {"CARGO_TARGET_DIR": ROOT / "target" / "miri", "MIRIFLAGS": "-Zmiri-disable-isolation"}
    steps.run("miri", ["cargo", "+nightly", *words, "--skip", "blocks_never_overlap"], env)


def sanitizers(steps):
    """Address and thread sanitizer, for the crates that work without Python."""
    version = capture(["rustc", "+nightly", "--version", "--verbose"])
    if version is None:
        for name in ("address sanitizer", "thread sanitizer"):
            steps.skip(name, "needs a nightly Rust (rustup toolchain install nightly)")
        return
    target = next(line.split()[1] for line in version.splitlines() if line.startswith("host:"))
    sysroot = Path((capture(["rustc", "+nightly", "--print", "sysroot"]) or "").strip())
    test = ["cargo", "+nightly", "test", "--target", target, *CRATES]
    env = {"RUSTFLAGS": "-Zsanitizer=address", "CARGO_TARGET_DIR": ROOT / "target" / "asan"}
    steps.run("address sanitizer", test, env)
    if not (sysroot / "lib" / "rustlib" / "src" / "rust" / "library").exists():
        why = "needs the standard library's source, to be built with it too"
        steps.skip("thread sanitizer", f"{why} (rustup +nightly component add rust-src)")
        return
    env = {"RUSTFLAGS": "-Zsanitizer=thread", "CARGO_TARGET_DIR": ROOT / "target" / "tsan"}
    steps.run("thread sanitizer", [*test, "-Zbuild-std"], env)


def storms(steps, environment):
    """The long ones: fixed seeds, and one that nobody has seen."""
    for seed in (*SEEDS, random.SystemRandom().randrange(10**6)):
        command = [environment.python, "-m", "tests.chaos"]
        command += ["--tasks", str(STORM_TASKS), "--seed", str(seed)]
        path = os.pathsep.join(
            str(part) for part in (ROOT, environment.env.get("PYTHONPATH")) if part
        )
        steps.run(f"storm {seed} on {environment.tag}", command, {"PYTHONPATH": path})
