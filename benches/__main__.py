"""Runs the scenarios in interleaved rounds and prints medians and ratios."""

import argparse
import fnmatch
import json
import os
import platform
import random
import signal
import statistics
import subprocess
import sys

from benches.contenders import CONTENDERS, WORKERS
from benches.scenarios import SCENARIOS, SERIAL_SHARE

CELL_LIMIT_S = 300  # a watchdog: a cell that hangs is ended and has no figure
SCALES = {"s": 1, "ms": 1e3, "µs": 1e6}


def measure(scenario, contender, scale):
    """({figure: seconds}, "") of one cell, or (None, what went wrong)."""
    command = [sys.executable, "-m", "benches.cell", scenario.name, contender, str(scale)]
    process = subprocess.Popen(
        command,
        env={**os.environ, **CONTENDERS[contender].env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=CELL_LIMIT_S)
    except BaseException as problem:  # Ctrl-C too: the cell is a session of its own
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if isinstance(problem, subprocess.TimeoutExpired):
            return None, f"no end within {CELL_LIMIT_S} s"
        raise
    if process.returncode:
        return None, (errors.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
    return json.loads(output.splitlines()[-1]), ""


def run_rounds(scenarios, rounds, scale, seed):
    """{scenario: {contender: [figures of each round, None where it failed]}}, in mixed order."""
    found = {one.name: {name: [] for name in one.contenders} for one in scenarios}
    order = random.Random(seed)
    for number in range(1, rounds + 1):
        cells = [(one, name) for one in scenarios for name in one.contenders]
        order.shuffle(cells)
        for place, (scenario, contender) in enumerate(cells, 1):
            label = f"{scenario.name} {contender}"
            _note(f"round {number}/{rounds}, {place}/{len(cells)}: {label}")
            figures, problem = measure(scenario, contender, scale)
            if problem:
                _note("")
                print(f"failed: {label}: {problem}", flush=True)
            found[scenario.name][contender].append(figures)
    _note("")
    return found


def _note(text):
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


def values(rounds, figure):
    return [one[figure] for one in rounds if one and figure in one]


def ratios(ours, reference, figure):
    """Reference over contender in the same round: above 1, the contender is faster."""
    pairs = zip(ours, reference, strict=True)
    return [b[figure] / a[figure] for a, b in pairs if a and b and figure in a and figure in b]


def spread(numbers, form):
    if not numbers:
        return "-"
    low, high = min(numbers), max(numbers)
    return f"{statistics.median(numbers):{form}} [{low:{form}} .. {high:{form}}]"


def report(scenario, found):
    """The table of one scenario, as lines."""
    yield f"\n{scenario.name}: {scenario.meaning} ({scenario.unit})"
    measured = [one for rounds in found.values() for one in rounds if one]
    shown = [name for one in measured for name in one if not name.startswith(".")]
    with_serial = any(SERIAL_SHARE in one for one in measured)
    for figure in dict.fromkeys(shown):
        head = [figure, "median [range]", *(f"x {name}" for name in scenario.references)]
        head += ["% of serial x workers"] if with_serial else []
        rows = [head]
        for name, rounds in found.items():
            scaled = [value * SCALES[scenario.unit] for value in values(rounds, figure)]
            if not scaled:
                continue
            cells = [
                "" if reference == name else spread(ratios(rounds, found[reference], figure), ".3g")
                for reference in scenario.references
            ]
            if with_serial:
                parts = [100 * one[SERIAL_SHARE] / one[figure] for one in rounds if one]
                cells.append(spread(parts, ".1f"))
            rows.append([name, spread(scaled, ".4g"), *cells])
        widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
        for row in rows:
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
            yield "  " + "  ".join(cells).rstrip()


def main():
    parser = argparse.ArgumentParser(prog="dev.py bench", description=__doc__)
    parser.add_argument("--only", metavar="A,B", help="scenarios; * is allowed")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument("--quick", action="store_true", help="2 rounds at a tenth of the size")
    parser.add_argument("--scale", type=float, metavar="F", help="size of the work, default 1")
    parser.add_argument("--seed", type=int, default=0, help="order of the cells")
    parser.add_argument("--json", metavar="FILE", help="every figure of every round")
    parser.add_argument("--list", action="store_true", help="the scenarios, and who takes part")
    options = parser.parse_args()
    patterns = options.only.split(",") if options.only else ["*"]
    chosen = [one for one in SCENARIOS.values() if _matches(one.name, patterns)]
    if not chosen:
        parser.error(f"--only {options.only}: no such scenario; --list shows them")
    if options.rounds < 1:
        parser.error("--rounds: at least 1")
    if options.list:
        for one in chosen:
            print(f"{one.name}: {one.meaning}\n    {', '.join(one.contenders)}")
        return 0
    if options.json:
        _must_be_writable(parser, options.json)
    rounds = 2 if options.quick else options.rounds
    scale = options.scale or (0.1 if options.quick else 1.0)
    machine = {
        "python": platform.python_version(),
        "cpus": len(os.sched_getaffinity(0)),
        "workers": WORKERS,
        "load before": os.getloadavg()[0],
        "rounds": rounds,
        "scale": scale,
    }
    print(", ".join(f"{key} {value}" for key, value in machine.items()), flush=True)
    found = run_rounds(chosen, rounds, scale, options.seed)
    for one in chosen:
        print("\n".join(report(one, found[one.name])))
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"machine": machine, "seconds": found}, file, indent=1)
    failed = sum(one is None for table in found.values() for row in table.values() for one in row)
    return 1 if failed else 0


def _must_be_writable(parser, path):
    """Said now, not after ten minutes of measuring."""
    try:
        with open(path, "a"):
            return
    except OSError as problem:
        parser.error(f"--json {path}: cannot be written ({problem.strerror}); name another file")


def _matches(name, patterns):
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


if __name__ == "__main__":
    sys.exit(main())
