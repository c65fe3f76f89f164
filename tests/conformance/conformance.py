#!/usr/bin/env python3
"""Run CPython's own test suites against drop-in replacements of its modules.

    python conformance.py --replace threading=oxgang.threading --suite test_threading
    python conformance.py --suite test_queue            (no --replace: the stdlib itself)
    python conformance.py --diff before.json after.json

The tests are the ones of the `test` package of the interpreter this file runs
under; nothing is copied from it.  See README.md for what is redirected and how,
and for what the classes public / internal / platform mean.

Python 3.8 and later, POSIX (made for Linux).  Standard library only.
"""

import argparse
import fnmatch
import json
import os
import signal
import sys

from _conformance import CLASSES, DEFAULT_SUITES
from _controller import (
    Environment,
    SuiteRun,
    become_subreaper,
    belongs,
    class_lists,
    die,
    first_line,
    list_ids,
    read_ids,
)


def run_all(opts):
    replace = {}
    for item in opts.replace:
        std, eq, repl = item.partition("=")
        if not eq or not std or not repl:
            die("--replace wants STDLIB=REPLACEMENT, not %r" % item)
        replace[std] = repl
    for a in replace:
        for b in replace:
            if a != b and a.startswith(b + "."):
                die("%s is inside %s: replace the outer one only" % (a, b))
    lists, listed = class_lists(
        opts.lists or os.path.join(os.path.dirname(os.path.abspath(__file__)), "lists")
    )
    baseline = {}
    if opts.baseline:
        with open(opts.baseline) as f:
            for name, s in json.load(f)["suites"].items():
                baseline.update({i: t["outcome"] for i, t in s["tests"].items()})
    wanted_classes = [c for arg in (opts.classes or ["public,internal"]) for c in arg.split(",")]
    if "all" in wanted_classes:
        wanted_classes = list(CLASSES) + ["unlisted"]
    elif wanted_classes == ["public", "internal"]:
        wanted_classes.append("unlisted")
    for c in wanted_classes:
        if c not in CLASSES + ("unlisted",):
            die("no class %r" % c)

    differs = read_ids(opts.differs) if opts.differs else {}
    become_subreaper()
    # so that the worker and the temporary directory do not outlive us
    for sig in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(sig) != signal.SIG_IGN:
            signal.signal(sig, lambda signum, frame: sys.exit(128 + signum))
    env = Environment(replace, opts.alias_mode, not opts.no_adapt, opts.strict_names)
    log_path = opts.log or os.path.join(env.dir, "log")
    report = {
        "python": sys.version.split()[0],
        "platform": sys.platform,
        "replace": replace,
        "alias_mode": opts.alias_mode,
        "suites": {},
    }
    total = {"passed": 0, "failed": 0}
    ran = hung_at_exit = 0
    proof_failed = None
    shown_proof = False
    print(
        "Python %s, %s; %s"
        % (
            report["python"],
            sys.platform,
            ", ".join("%s replaced by %s" % kv for kv in sorted(replace.items()))
            or "nothing replaced",
        ),
        flush=True,
    )
    try:
        with open(log_path, "ab", buffering=0) as log:
            for suite in opts.suite or DEFAULT_SUITES:

                def say(ident, r):
                    if opts.verbose:
                        print("  %-8s %6.2fs %s" % (r["outcome"], r["seconds"], ident), flush=True)

                known, errors = list_ids(env, suite, log, opts.timeout)
                if not known:
                    print(
                        "suite %s: ABSENT, this interpreter cannot load it: %s"
                        % (suite, (errors or ["no tests"])[0].strip().splitlines()[-1])
                    )
                    report["suites"][suite] = {"absent": True, "tests": {}}
                    continue
                ran += len(known)
                cls_of = {i: listed.get(i, "unlisted") for i in known}
                wanted = [i for i in known if cls_of[i] in wanted_classes and i not in differs]
                if opts.match:
                    wanted = [
                        i
                        for i in wanted
                        if any(fnmatch.fnmatchcase(i, "*" + m + "*") for m in opts.match)
                    ]
                if not wanted:
                    print("suite %s: nothing selected" % suite)
                    report["suites"][suite] = {"tests": {}}
                    continue
                run = SuiteRun(env, suite, wanted, opts, log, say).run()
                flaky = []
                if run.proof and run.proof.get("error"):
                    proof_failed = run.proof["error"]
                for _ in range(opts.retry):
                    again = [
                        i
                        for i in wanted
                        if run.results.get(i, {}).get("outcome")
                        in ("failed", "error", "hang", "crash")
                    ]
                    if not again or proof_failed:
                        break
                    second = SuiteRun(env, suite, again, opts, log, say).run()
                    for i in again:
                        if second.results.get(i, {}).get("outcome") == "passed":
                            flaky.append(i)
                            run.results[i] = dict(second.results[i], flaky=True)
                    run.wall += second.wall
                for i in wanted:
                    run.results.setdefault(
                        i,
                        {
                            "outcome": "notrun",
                            "seconds": 0,
                            "message": "did not run (see the suite's notes)",
                        },
                    )
                # the report
                counts = {
                    c: {"passed": 0, "failed": 0, "skipped": 0, "excluded": 0}
                    for c in CLASSES + ("unlisted",)
                }
                bad = []
                for i in wanted:
                    r = run.results[i]
                    c = r["class"] = cls_of[i]
                    out = r["outcome"]
                    n = counts[c]
                    if baseline and baseline.get(i) not in ("passed", "xfailed"):
                        n["excluded"] += 1
                    elif out in ("passed", "xfailed"):
                        n["passed"] += 1
                    elif out == "skipped" and (c == "platform" or opts.allow_skips or not replace):
                        n["skipped"] += 1
                    elif out == "skipped" and c != "public":
                        n["skipped"] += 1
                    else:
                        n["failed"] += 1
                        bad.append((c, i, r))
                missing = [i for i in lists["public"] if belongs(i, suite) and i not in cls_of]
                if run.proof and not shown_proof:
                    shown_proof = True
                    for root, p in sorted(run.proof.get("modules", {}).items()):
                        print(
                            "%s -> %s (in a child: %s); of its %d public names %d are its own, "
                            "%d the stdlib's objects, %d missing%s"
                            % (
                                root,
                                p["name"],
                                p.get("child_name", "?"),
                                len(p["own"]) + len(p["stdlib_objects"]) + len(p["missing"]),
                                len(p["own"]),
                                len(p["stdlib_objects"]),
                                len(p["missing"]),
                                (": " + ", ".join(p["missing"])) if p["missing"] else "",
                            )
                        )
                    report["proof"] = run.proof
                if run.info.get("leaks"):
                    proof_failed = proof_failed or (
                        "test modules hold the stdlib's module: "
                        + ", ".join(run.info["leaks"][:10])
                    )

                def part(c):
                    n = counts[c]
                    text = "%s %d/%d" % (c, n["passed"], n["passed"] + n["failed"])
                    if n["skipped"]:
                        text += " (+%d skipped)" % n["skipped"]
                    if n["excluded"]:
                        text += " (+%d not judged: not passing in the baseline)" % n["excluded"]
                    return text

                shown = [
                    c
                    for c in CLASSES + ("unlisted",)
                    if c in ("public", "internal") or any(counts[c].values())
                ]
                print("suite %s: %s; %.0f s" % (suite, ", ".join(part(c) for c in shown), run.wall))
                for i in known:
                    if i in differs:
                        print("  not run, differs on purpose: %s: %s" % (i, differs[i]))
                notrun = {}
                bad.sort(key=lambda b: (CLASSES + ("unlisted",)).index(b[0]))
                for c, i, r in bad:
                    word = "FAIL" if c == "public" else "fail (%s)" % c
                    if r["outcome"] == "notrun":
                        notrun.setdefault(word, []).append(i)
                        continue
                    print(
                        "  %s %s: %s: %s" % (word, i, r["outcome"], first_line(r["message"])[:200])
                    )
                for word, ids in notrun.items():
                    for i in ids[:10]:
                        print("  %s %s: did not run" % (word, i))
                    if len(ids) > 10:
                        print(
                            "  %s ... and %d more that did not run (--json has the ids)"
                            % (word, len(ids) - 10)
                        )
                for i in flaky:
                    print("  flaky, passed when run again: %s" % i)
                for f in run.fixtures:
                    print("  fixture %s: %s" % (f["where"], first_line(f["message"])[:200]))
                for n in run.notes:
                    print("  note: %s" % first_line(n)[:300])
                if run.strays:
                    print(
                        "  note: %d process(es) left running and killed: %s"
                        % (len(run.strays), "; ".join(sorted(set(run.strays))[:5])[:300])
                    )
                if missing:
                    print(
                        "  note: %d public id(s) of the list are not in this Python's test package"
                        % len(missing)
                    )
                if replace and run.info:
                    if run.info["stdlib_submodules"]:
                        print(
                            "  served by the stdlib, no counterpart in the replacement: %s"
                            % ", ".join(run.info["stdlib_submodules"])
                        )
                    if run.info["loans"]:
                        print(
                            "  private names lent from the stdlib: %s"
                            % ", ".join(sorted(run.info["loans"]))
                        )
                    if opts.verbose:
                        for a in run.info["adaptations"]:
                            print("  adapted: %s" % a)
                sys.stdout.flush()
                hung_at_exit += any(n.startswith("HANG AT EXIT") for n in run.notes)
                total["passed"] += counts["public"]["passed"]
                total["failed"] += counts["public"]["failed"]
                report["suites"][suite] = {
                    "wall": round(run.wall, 1),
                    "counts": counts,
                    "fixtures": run.fixtures,
                    "notes": run.notes,
                    "strays": run.strays,
                    "flaky": flaky,
                    "absent_ids": missing,
                    "info": run.info,
                    "tests": {i: run.results[i] for i in wanted},
                }
                if proof_failed:
                    break
            if replace:
                started, used = env.children()
                report["children"] = {"started": len(started), "used": len(used)}
                print(
                    "%d interpreters were started with the hook; %d processes (forks included) "
                    "imported a replacement" % (len(started), len(used))
                )
                if not used and not proof_failed:
                    proof_failed = "no process ever imported a replacement"
    finally:
        env.close()
    if proof_failed:
        print("PROOF FAILED, the replacement was not what ran: %s" % proof_failed)
        total["failed"] += total["passed"]
        total["passed"] = 0
    report["totals"] = total
    report["proof_failed"] = proof_failed
    if opts.json:
        with open(opts.json, "w") as f:
            json.dump(report, f, indent=1, sort_keys=True)
            f.write("\n")
    print("%d passed, %d failed" % (total["passed"], total["failed"]))
    return 2 if proof_failed or not ran else 1 if total["failed"] or hung_at_exit else 0


def diff(old_path, new_path):
    runs = []
    for path in (old_path, new_path):
        with open(path) as f:
            data = json.load(f)
        runs.append(
            {
                i: (t.get("class"), t["outcome"])
                for s in data["suites"].values()
                for i, t in s["tests"].items()
            }
        )
    old, new = runs
    good = ("passed", "xfailed")
    worse = [i for i in new if i in old and old[i][1] in good and new[i][1] not in good]
    better = [i for i in new if i in old and old[i][1] not in good and new[i][1] in good]
    for title, ids in (
        ("no longer passing", worse),
        ("now passing", better),
        ("only in the first", [i for i in old if i not in new]),
        ("only in the second", [i for i in new if i not in old]),
    ):
        print("%s: %d" % (title, len(ids)))
        for i in sorted(ids):
            was, now = old.get(i, ("", "-")), new.get(i, ("", "-"))
            print("  [%s] %s: %s -> %s" % (now[0] or was[0], i, was[1], now[1]))
    return 1 if any(new[i][0] == "public" for i in worse) else 0


def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    p.add_argument("--replace", action="append", default=[], metavar="STDLIB=REPLACEMENT")
    p.add_argument(
        "--suite",
        action="append",
        default=[],
        metavar="NAME",
        help="a module or package of `test`, without the prefix; default: %s"
        % ", ".join(DEFAULT_SUITES),
    )
    p.add_argument(
        "--class",
        action="append",
        dest="classes",
        metavar="CLASS",
        help="public, internal, platform, unlisted or all (default: public,internal)",
    )
    p.add_argument("--match", action="append", metavar="TEXT", help="only ids that contain this")
    p.add_argument("--json", metavar="OUT")
    p.add_argument(
        "--timeout", type=float, default=1800, metavar="S", help="per suite (default 1800)"
    )
    p.add_argument(
        "--test-timeout", type=float, default=150, metavar="S", help="per test (default 150)"
    )
    p.add_argument("--retry", type=int, default=0, metavar="N", help="run failing tests again")
    p.add_argument(
        "--baseline",
        metavar="JSON",
        help="a run of the stdlib on this machine: judge only what passed in it",
    )
    p.add_argument(
        "--allow-skips",
        action="store_true",
        help="do not count a public test that is skipped as failed",
    )
    p.add_argument(
        "--alias-mode",
        choices=("importer", "sysmodules"),
        default="importer",
        help="redirect what the tests import (default), or put the replacement "
        "into sys.modules under the stdlib's names as well",
    )
    p.add_argument(
        "--no-adapt", action="store_true", help="leave the test files' scaffolding alone"
    )
    p.add_argument("--strict-names", action="store_true", help="lend no private names")
    p.add_argument(
        "--lists", metavar="DIR", help="where the id lists are (default: those beside this file)"
    )
    p.add_argument(
        "--differs",
        metavar="FILE",
        help="ids that are not run, as the replacement differs on purpose",
    )
    p.add_argument("--log", metavar="FILE", help="keep the tests' own output")
    p.add_argument("-v", "--verbose", action="store_true", help="a line per test")
    p.add_argument("--diff", nargs=2, metavar=("OLD", "NEW"), help="compare two --json files")
    opts = p.parse_args(argv)
    if opts.diff:
        return diff(*opts.diff)
    return run_all(opts)


if __name__ == "__main__":
    sys.exit(main())
