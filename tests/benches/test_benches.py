"""Every scenario runs, on the smallest scale, and the tables say what was measured."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benches import __main__ as runner  # noqa: E402  (the repository's folder, not the package)
from benches import numbers, work  # noqa: E402
from benches.scenarios import SCENARIOS  # noqa: E402

CELLS = [
    (name, contender)
    for name, scenario in SCENARIOS.items()
    for contender in scenario.contenders
    if contender not in ("control", "oxgang-parked")  # the same code once more
]


@pytest.mark.parametrize(("scenario", "contender"), CELLS)
def test_a_cell_has_figures(scenario, contender):
    done = subprocess.run(
        [sys.executable, "-m", "benches.cell", scenario, contender, "0.001"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures
    # what one more worker costs is a difference: noise may push it below zero
    assert all(value > 0 for name, value in figures.items() if name != "one more worker")


def test_ratios_pair_the_same_round_and_skip_failures():
    ours = [{"t": 1.0}, None, {"t": 2.0}, {"t": 4.0}]
    reference = [{"t": 2.0}, {"t": 9.0}, None, {"t": 40.0}]
    assert runner.ratios(ours, reference, "t") == [2.0, 10.0]


def test_the_table_gives_median_range_and_ratio():
    found = {name: [] for name in SCENARIOS["thread-many"].contenders}
    found["standard"] = [{"task": 2e-6}, {"task": 4e-6}, {"task": 9e-6}]
    found["oxgang"] = [{"task": 1e-6}, {"task": 2e-6}, {"task": 3e-6}]
    lines = list(runner.report(SCENARIOS["thread-many"], found))
    (line,) = [line for line in lines if line.split()[0] == "oxgang"]
    assert line.split() == ["oxgang", "2", "[1", "..", "3]", "2", "[2", "..", "3]"]


def test_primes_are_prime_and_pareto_is_uneven():
    assert all(work.is_prime(n) for n in numbers.primes(5))
    assert not work.is_prime(65_003**2)
    steps = numbers.pareto_steps(300, 1_000_000)
    assert max(steps) > 20 * sorted(steps)[150]
    shares = numbers.balanced(steps, steps, 2)
    assert sorted(shares[0] + shares[1]) == sorted(steps)
    assert abs(sum(shares[0]) - sum(shares[1])) <= min(steps)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--only", "nothing"], "no such scenario"),
        (["--rounds", "0"], "at least 1"),
        (["--json", "/nowhere/x.json"], "cannot be written"),
    ],
)
def test_bad_options_are_refused(words, message):
    command = [sys.executable, "-m", "benches", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert message in done.stderr
