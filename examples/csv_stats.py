"""Rows, columns, and mean, max, min of the numeric columns of CSV files: one task per file.

    oxgang map examples/csv_stats.py:stats data/*.csv -o stats.jsonl
    python examples/csv_stats.py data/*.csv

A column is numeric if every value in it is a number or missing (empty, NA, N/A, NaN, null); the
others are listed by name. Rows with too few fields count as having missing values. What cannot be
read for certain (bytes in another encoding, too many fields, an unclosed quote, no header) is an
error of that file, with the place, and the other files go on.
"""

import argparse
import codecs
import csv
import io
import json
import os
import sys

import oxgang

MISSING = ["NA", "N/A", "NaN", "nan", "null", "NULL"]
SAMPLE_ROWS = 1000
_CHUNK = 1 << 20


def stats(path, encoding="utf-8", separator=","):
    """Summarise one file. Raises OSError, or ValueError with what is wrong and where."""
    # One thread each: the pool already gives every core a file. polars reads this when imported.
    os.environ.setdefault("POLARS_MAX_THREADS", "1")
    import polars as pl

    path = os.fspath(path)
    _refuse_unreadable(path, encoding)
    source = path if _is_utf8(encoding) else _recoded(path, encoding)
    try:
        # Nearly always the first rows tell what is a number; looking at all of them takes
        # longer than all the rest, so that is for files where the guess did not hold.
        summary = _summary(source, separator, SAMPLE_ROWS) or _summary(source, separator, None)
    except pl.exceptions.NoDataError:
        raise ValueError(f"{path}: empty, there is not even a header line") from None
    except pl.exceptions.PolarsError as problem:
        where = _first_long_row(path, encoding, separator)
        raise ValueError(f"{path}: {where or str(problem).splitlines()[0]}") from problem
    return {"file": path, **summary}


def _summary(source, separator, sample_rows):
    """The figures, or None if the columns are not what the sample made them look like."""
    import polars as pl

    table = pl.scan_csv(
        source, separator=separator, null_values=MISSING, infer_schema_length=sample_rows
    )
    schema = table.collect_schema()
    numeric = [name for name, kind in schema.items() if kind.is_numeric()]
    try:
        if sample_rows is not None and _has_empty_column(table.head(sample_rows), sample_rows):
            return None  # it may yet turn out to be numeric
        rows, *values = table.select(_figures(numeric)).collect(engine="streaming").row(0)
    except pl.exceptions.ComputeError:
        if sample_rows is None:
            raise
        return None
    columns = {}
    for place, name in enumerate(numeric):
        figures = values[4 * place : 4 * place + 4]
        columns[name] = dict(zip(("mean", "max", "min", "missing"), figures, strict=True))
    others = [name for name in schema if name not in columns]
    return {"rows": rows, "columns": len(schema), "numeric": columns, "other_columns": others}


def _has_empty_column(sample, sample_rows):
    import polars as pl

    counts = [pl.len().alias("rows"), pl.all().null_count().name.prefix("missing in ")]
    rows, *missing = sample.select(counts).collect().row(0)
    return rows == sample_rows and rows in missing


def _figures(names):
    import polars as pl

    yield pl.len().alias("rows")
    for place, name in enumerate(names):
        column = pl.col(name)
        figures = (column.mean(), column.max(), column.min(), column.null_count())
        yield from (figure.alias(f"{place}.{n}") for n, figure in enumerate(figures))


def _is_utf8(encoding):
    return codecs.lookup(encoding).name in ("utf-8", "utf-8-sig", "ascii")


def _refuse_unreadable(path, encoding):
    """Look at every byte once: a guess about an encoding or a quote would give wrong numbers."""
    decoder = codecs.getincrementaldecoder(encoding)()
    offset = quotes = 0
    with open(path, "rb") as file:
        while True:
            chunk = file.read(_CHUNK)
            pending = len(decoder.getstate()[0])
            try:
                text = decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as problem:
                place = offset - pending + problem.start
                raise ValueError(
                    f"{path}: byte {place} is not {encoding}; say which encoding it is "
                    "(encoding=, or --encoding latin-1), or convert the file"
                ) from None
            if "\0" in text:
                raise ValueError(
                    f"{path}: zero bytes in the text: not a CSV file, or one in UTF-16 "
                    "(try encoding=, or --encoding utf-16)"
                )
            quotes += text.count('"')
            offset += len(chunk)
            if not chunk:
                break
    if quotes % 2:
        raise ValueError(f'{path}: an opening " is never closed')


def _recoded(path, encoding):
    with open(path, encoding=encoding, newline="") as file:
        return io.BytesIO(file.read().encode())


def _first_long_row(path, encoding, separator):
    with open(path, encoding=encoding, newline="") as file:
        rows = csv.reader(file, delimiter=separator)
        width = len(next(rows, []))
        for row in rows:
            if len(row) > width:
                return f"line {rows.line_num} has {len(row)} fields, the header has {width}"
    return None


class Summary:
    """``stats`` with its options bound: one argument per task, and picklable."""

    def __init__(self, encoding, separator):
        self.encoding = encoding
        self.separator = separator

    def __call__(self, path):
        return stats(path, self.encoding, self.separator)


def table(results):
    """The summaries as lines of text, one per numeric column."""
    lines = [f"{'file':32} {'rows':>9} {'column':20} {'mean':>14} {'max':>14} {'min':>14}"]
    for summary in results:
        head = f"{os.path.basename(summary['file']):32} {summary['rows']:9}"
        for name, column in summary["numeric"].items():
            figures = " ".join(f"{_short(column[key]):>14}" for key in ("mean", "max", "min"))
            lines.append(f"{head} {name:20} {figures}")
        if not summary["numeric"]:
            lines.append(f"{head} (no numeric column among {summary['columns']})")
    return "\n".join(lines)


def _short(number):
    return "-" if number is None else f"{number:.6g}"


def main(words=None):
    parser = argparse.ArgumentParser(prog="csv_stats.py", description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", metavar="FILE")
    parser.add_argument("-j", "--workers", type=int, metavar="N", help="default: one per CPU")
    parser.add_argument("--encoding", default="utf-8")
    parser.add_argument("--separator", default=",", metavar="CHAR")
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    options = parser.parse_args(words)
    if options.workers is not None and options.workers < 1:
        parser.error("-j: at least 1 worker is needed")
    if len(options.separator.encode()) != 1:
        parser.error("--separator: one ASCII character, for instance ';'")
    try:
        codecs.lookup(options.encoding)
    except LookupError:
        parser.error(f"--encoding {options.encoding}: Python knows no such encoding")
    outcomes = oxgang.map(
        Summary(options.encoding, options.separator),
        options.files,
        model="process",
        max_workers=options.workers,
        return_exceptions=True,
        progress=sys.stderr.isatty(),
    )
    good, bad = [], []
    for path, outcome in zip(options.files, outcomes, strict=True):
        if isinstance(outcome, Exception):
            bad.append(f"{path}: {outcome}" if path not in str(outcome) else str(outcome))
        else:
            good.append(outcome)
    if options.json:
        for summary in good:
            print(json.dumps(summary))
    elif good:
        print(table(good))
    for line in bad:
        print(f"failed: {line}", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
