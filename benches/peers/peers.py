#!/usr/bin/env python3
"""Measure the ways to run Python work in parallel on one machine, side by side.

python peers.py --quick                          a first look, a few minutes
python peers.py --only latency,data --json out.json
python peers.py --contenders 'stdlib-*,oxgang-*,loky'
python peers.py --report a.json b.json           tables of earlier runs, merged
"""

import argparse
import fnmatch
import json
import sys
import time

from peerbench import contenders, machine, report, runner, workloads


def parse(arguments):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", metavar="NAMES", help="workloads, comma-separated")
    parser.add_argument(
        "--contenders",
        default="*",
        metavar="PATTERNS",
        help="shell patterns, comma-separated; the reference always runs",
    )
    parser.add_argument("--skip", default="", metavar="PATTERNS", help="contenders to leave out")
    parser.add_argument("--cases", default="", metavar="NAMES", help="fault cases")
    parser.add_argument("--rounds", type=int, help="instead of each workload's own number")
    parser.add_argument("--quick", action="store_true", help="2 rounds, small sizes")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--calm",
        type=float,
        metavar="CPUS",
        help="wait for, and repeat cells until, others use fewer CPUs than this "
        "(within limits; the calmest run of a cell counts)",
    )
    parser.add_argument("--seed", type=int, default=1, help="for the order within rounds")
    parser.add_argument(
        "--no-control", action="store_true", help="do not measure the reference a second time"
    )
    parser.add_argument("--json", metavar="OUT", help="raw records, rewritten after every workload")
    parser.add_argument("--markdown", metavar="OUT", help="tables (default: standard output)")
    parser.add_argument("--keep-output", metavar="DIR", help="what each cell printed")
    parser.add_argument("--report", nargs="+", metavar="JSON", help="only make tables of these")
    parser.add_argument("--list", action="store_true", help="workloads and their contenders")
    options = parser.parse_args(arguments)
    options.cases = [c for c in options.cases.split(",") if c]
    options.rounds_of = lambda workload: (
        options.rounds or (min(2, workload.rounds) if options.quick else workload.rounds)
    )
    return options


def matches(name, patterns):
    return any(fnmatch.fnmatch(name, p) for p in patterns.split(",") if p)


def field_of(workload, options, skipped):
    """(label, contender) pairs to measure; what is missing is noted in `skipped`."""
    entries = workload.entries()
    wanted = {
        c.name
        for c in entries
        if matches(c.name, options.contenders) and not matches(c.name, options.skip)
    }
    # always measured too: the reference, and what a wanted contender replaces
    wanted |= {workload.reference, *workload.extra}
    wanted |= {c.counterpart for c in entries if c.name in wanted and not c.missing()}
    field = []
    for contender in entries:
        if contender.name not in wanted:
            continue
        why = contender.missing()
        if why:
            skipped[contender.name] = why
            continue
        field.append((contender.name, contender))
        if contender.name == workload.reference and not (workload.cases or options.no_control):
            field.append((report.CONTROL, contender))
    return field


def say(record):
    value = record.get("verdict") or "  ".join(
        f"{name}={value:.4g}" for name, value in record["metrics"].items()
    )
    trouble = "" if record["status"] == "ok" else f"  [{record['status']}: {record['detail']}]"
    case = f" {record['case']}" if record["case"] else ""
    print(
        f"{record['workload']}{case} #{record['round']} {record['contender']} "
        f"({record['seconds']:.1f} s, others {record['foreign']:.2f}): {value}{trouble}",
        file=sys.stderr,
        flush=True,
    )


def warm_up(field, options):
    """One discarded start of every pool: compiled modules and libraries into the cache."""
    workload = workloads.find("startup")
    for _, contender in field:
        runner.run_cell(workload, "warm-up", contender, options, 0)


def measure(options):
    chosen = [n for n in options.only.split(",") if n] or workloads.NAMES
    chosen = [workloads.find(name) for name in chosen]
    result = {
        "machine": machine.describe(),
        "workers": options.workers,
        "quick": options.quick,
        "started": time.strftime("%Y-%m-%d %H:%M"),
        "own_shm": options.own_shm,
        "skipped": {},
        "records": [],
    }

    pools = {c.name for c in contenders.POOLS if c.kind != contenders.SERIAL}
    fields = {w.name: field_of(w, options, result["skipped"]) for w in chosen}
    for name, why in sorted(result["skipped"].items()):
        print(f"skipped: {name}: {why}", file=sys.stderr)
    if not options.quick:
        first = {name: c for field in fields.values() for name, c in field if name in pools}
        warm_up(first.items(), options)

    try:
        for workload in chosen:
            for record in runner.run_workload(workload, fields[workload.name], options, say):
                result["records"].append(record)
            save(result, options.json)
    except KeyboardInterrupt:
        print("interrupted: what was measured so far is kept", file=sys.stderr)
        save(result, options.json)
    return result


def save(result, path):
    if path:
        with open(path, "w") as f:
            json.dump(result, f, indent=1)


def main(arguments=None):
    options = parse(arguments)
    if options.list:
        for name in workloads.NAMES:
            workload = workloads.find(name)
            print(f"{name}: {workload.title}\n    " + ", ".join(c.name for c in workload.entries()))
        return
    if options.report:
        runs = []
        for path in options.report:
            with open(path) as f:
                runs.append(json.load(f))
    else:
        runner.prepare()
        options.own_shm = runner.can_have_own_shm()
        runs = [measure(options)]
    text = report.render(runs)
    if options.markdown:
        with open(options.markdown, "w") as f:
            f.write(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
