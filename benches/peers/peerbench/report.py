"""Tables in Markdown from the JSON of one or more runs."""

import statistics
from collections import Counter, defaultdict

from . import stats, workloads

COLUMNS_AT_MOST = 5
CONTROL = "control"
MARK = {"good": "✓", "fair": "~", "bad": "✗"}


def show(value, unit):
    if unit == "s":
        for scale, name in ((1, "s"), (1e-3, "ms"), (1e-6, "µs")):
            if value >= scale or name == "µs":
                return f"{_digits(value / scale)} {name}"
    if unit == "/s":
        return f"{_digits(value / 1000)} k/s" if value >= 1000 else f"{_digits(value)} /s"
    return f"{_digits(value)} {unit}"


def _digits(x):
    return f"{x:.0f}" if x >= 100 else f"{x:.1f}" if x >= 10 else f"{x:.2f}"


def show_figure(figure, unit, is_reference):
    text = show(figure.median, unit)
    if is_reference:
        return text + " · 1"
    if figure.ratio is None:
        return text
    return f"{text} · {show_ratios(figure.ratio, figure.low, figure.high)}"


def show_ratios(middle, low, high):
    return f"**{_ratio(middle)}** ({_ratio(low)}–{_ratio(high)})"


def _ratio(x):
    return f"{x:.3f}" if x < 0.1 else f"{x:.2f}" if x < 10 else f"{x:.1f}"


def table(header, rows):
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def is_peer(name, workload):
    """A contender that oxgang is to be compared with."""
    return not (name.startswith("oxgang") or name == CONTROL or name in workload.extra)


# -- timed workloads ---------------------------------------------------------


def timed_section(runs, workload):
    values = stats.values_of(runs, workload.name)
    names = _ordered({name for by_name in values.values() for name in by_name}, workload)
    if not names:
        return ""
    rounds = max(len(v) for by_name in values.values() for v in by_name.values())
    parts = [
        f"### {workload.name}: {workload.title}",
        f"Reference: {workload.reference}. Rounds: up to {rounds}. CPUs kept busy by "
        f"others meanwhile: {stats.foreign_load(runs, workload.name):.2f} (median).",
    ]
    metrics = [m for m in workload.metrics if m in values]
    for first in range(0, len(metrics), COLUMNS_AT_MOST):
        parts.append(_figures(values, workload, names, metrics[first : first + COLUMNS_AT_MOST]))
    if workload.efficiency:
        parts.append(_efficiency(values, names, workload.efficiency, workload, runs[0]["workers"]))
    parts.append(_best_round(values, workload, names, metrics))
    parts += filter(
        None,
        [
            _to_beat(values, workload, metrics),
            _one_for_one(values, workload, metrics),
            _troubles(runs, workload),
        ],
    )
    return "\n\n".join(parts)


def _ordered(names, workload):
    """Reference first, then control, then the rest as the registry lists them."""
    listed = [c.name for c in workload.entries()]
    rank = {name: i for i, name in enumerate([workload.reference, CONTROL, *listed])}
    return sorted(names, key=lambda n: rank.get(n, len(rank)))


def _figures(values, workload, names, metrics):
    rows = []
    for name in names:
        cells = []
        for metric in metrics:
            got = values[metric].get(name)
            if not got:
                cells.append("–")
                continue
            about = workload.metrics[metric]
            figure = stats.figure(
                got, values[metric].get(workload.reference, {}), about.bigger_is_better
            )
            cells.append(show_figure(figure, about.unit, name == workload.reference))
        if any(cell != "–" for cell in cells):
            rows.append([name + (" (reference again)" if name == CONTROL else ""), *cells])
    return table(["contender", *(workload.metrics[m].label for m in metrics)], rows)


def _efficiency(values, names, metrics, workload, workers):
    """serial time / (workers × time), per round, against the same list done serially."""
    rows = []
    for name in names:
        if name in workload.extra:
            continue
        cells = []
        for metric in metrics:
            serial, got = values[metric.rstrip("1")].get("serial", {}), values[metric].get(name, {})
            shares = [serial[k] / (workers * got[k]) for k in got if k in serial]
            cells.append(
                f"{statistics.median(shares):.2f} ({min(shares):.2f}–{max(shares):.2f})"
                if shares
                else "–"
            )
        rows.append([name, *cells])
    return "Parallel efficiency (1 = perfect):\n\n" + table(
        ["contender", *(workload.metrics[m].label for m in metrics)], rows
    )


def _best_round(values, workload, names, metrics):
    """The best value of any round: on a busy machine steadier than the median."""
    rows = []
    for name in names:
        cells = []
        for metric in metrics:
            about = workload.metrics[metric]
            got, reference = (values[metric].get(n, {}) for n in (name, workload.reference))
            if not got:
                cells.append("–")
                continue
            best = stats.best(got, about.bigger_is_better)
            text = show(best, about.unit)
            if reference:
                ratio = stats.ratio(
                    best, stats.best(reference, about.bigger_is_better), about.bigger_is_better
                )
                text += f" · {_ratio(ratio)}"
            cells.append(text)
        rows.append([name, *cells])
    return "Best round of each, and the ratio of the best rounds:\n\n" + table(
        ["contender", *(workload.metrics[m].label for m in metrics)], rows
    )


def _to_beat(values, workload, metrics):
    best = []
    for metric in metrics:
        about = workload.metrics[metric]
        peers = {
            n: statistics.median(v.values())
            for n, v in values[metric].items()
            if is_peer(n, workload)
        }
        if peers:
            pick = (max if about.bigger_is_better else min)(peers, key=peers.get)
            figure = stats.figure(
                values[metric][pick],
                values[metric].get(workload.reference, {}),
                about.bigger_is_better,
            )
            best.append(
                f"{about.label}: **{pick}** "
                f"({show_figure(figure, about.unit, pick == workload.reference)})"
            )
    return "To beat — " + "; ".join(best) + "." if best else ""


def _one_for_one(values, workload, metrics):
    """oxgang against the very stdlib class that it replaces."""
    twins = [(c.name, c.counterpart) for c in workload.entries() if c.counterpart]
    rows = []
    for name, twin in twins:
        cells = []
        for metric in metrics:
            got, ref = values[metric].get(name), values[metric].get(twin)
            against = (
                stats.ratios(got, ref, workload.metrics[metric].bigger_is_better)
                if got and ref
                else []
            )
            cells.append(
                show_ratios(statistics.median(against), min(against), max(against))
                if against
                else "–"
            )
        if any(cell != "–" for cell in cells):
            rows.append([f"{name} / {twin}", *cells])
    return (
        "One for one (ratio to the class it replaces):\n\n"
        + table(["pair", *(workload.metrics[m].label for m in metrics)], rows)
        if rows
        else ""
    )


def _troubles(runs, workload):
    seen = Counter()
    for run in runs:
        for r in run["records"]:
            if r["workload"] == workload.name:
                if r["status"] != "ok":
                    seen[f"{r['contender']}: {r['status']} ({r['detail']})"] += 1
                elif r["left"]:
                    kinds = ", ".join(sorted(set(r["left"])))
                    seen[f"{r['contender']}: processes left after exit ({kinds})"] += 1
                for name in ("none", "both"):
                    if name in r["notes"]:
                        seen[f"{r['contender']}: {r['notes'][name]}"] += 1
    return "Notes: " + "; ".join(f"{text} ×{n}" for text, n in sorted(seen.items())) if seen else ""


# -- faults -----------------------------------------------------------------


def faults_section(runs, workload):
    from .workloads.faults import CASES

    verdicts = defaultdict(lambda: defaultdict(list))  # case -> contender -> [(grade, text)]
    for run in runs:
        for r in run["records"]:
            if r["workload"] == workload.name:
                verdicts[r["case"]][r["contender"]].append((r["grade"], r["verdict"]))
    if not verdicts:
        return ""
    names = _ordered({n for by_name in verdicts.values() for n in by_name}, workload)
    cases = [c for c in CASES if c in verdicts]
    parts = [
        f"### {workload.name}: {workload.title}",
        "✓ clear answer and the user can go on; ~ clear answer at some cost; "
        "✗ hang, lost result or something left behind. More than one mark: "
        "it differed between rounds.",
        table(
            ["contender", *cases],
            [[name, *(_marks(verdicts[case].get(name, [])) for case in cases)] for name in names],
        ),
    ]
    for case in cases:
        rows = []
        for name in names:
            for (grade, text), times in Counter(verdicts[case].get(name, [])).items():
                rows.append(
                    [
                        name,
                        MARK[grade] + (f" ×{times}" if times > 1 else ""),
                        text.replace("|", "/"),
                    ]
                )
        parts.append(
            f"**{case}** — {CASES[case].title}\n\n" + table(["contender", "", "seen"], rows)
        )
    return "\n\n".join(parts)


def _marks(seen):
    return "".join(sorted({MARK[grade] for grade, _ in seen})) or "–"


# -- the whole ----------------------------------------------------------------


def machine_lines(runs):
    lines = []
    for run in runs:
        m = run["machine"]
        packages = ", ".join(f"{n} {v}" for n, v in m["packages"].items())
        lines.append(
            f"- {m['cores']} cores, {m['cpu']}, {m['memory']}, kernel {m['kernel']}, "
            f"{m['python']}, {m['libc']}; {run['workers']} workers; {packages}"
        )
    lines = list(dict.fromkeys(lines))
    skipped = defaultdict(set)
    for run in runs:
        for name, why in run["skipped"].items():
            skipped[why].add(name)
    lines += [
        f"- skipped, {why}: {len(names)} contenders ({', '.join(sorted(names)[:3])}…)"
        if len(names) > 3
        else f"- skipped, {why}: {', '.join(sorted(names))}"
        for why, names in sorted(skipped.items())
    ]
    return "\n".join(lines)


def render(runs):
    parts = [
        "## Machine",
        machine_lines(runs),
        "## Results",
        "Each figure: median over rounds · **ratio** to the reference, median of the "
        "per-round ratios (smallest–largest). Above 1 is better than the reference, "
        "for times, rates and memory alike.",
    ]
    for name in workloads.NAMES:
        workload = workloads.find(name)
        section = faults_section if workload.cases else timed_section
        parts.append(section(runs, workload))
    return "\n\n".join(filter(None, parts)) + "\n"
