"""Made-up measurements as CSV files: the same bytes on every machine, made once."""

import os
import random

HEADER = "number,station,celsius,humidity,pascal,note\n"
NOTES = ("", "ok", "rain", "fog", "sensor cleaned", "battery low")


def csv_files(folder, count, bytes_each):
    """The paths of ``count`` files of at least ``bytes_each``; written only where missing."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"station-{number:02}.csv" for number in range(count)]
    for number, path in enumerate(paths):
        if not path.exists() or path.stat().st_size < bytes_each:
            half_written = path.with_suffix(".new")
            half_written.write_text(_measurements(number, bytes_each))
            os.replace(half_written, path)
    return [str(path) for path in paths]


def _measurements(number, bytes_wanted):
    chance = random.Random(number)
    lines, size = [HEADER], len(HEADER)
    row = 0
    while size < bytes_wanted:
        row += 1
        celsius = "" if chance.random() < 0.01 else f"{chance.gauss(11, 8):.2f}"
        line = (
            f"{row},S{number:02},{celsius},{chance.randint(20, 100)},"
            f"{chance.randint(97_000, 104_000)},{NOTES[chance.randrange(len(NOTES))]}\n"
        )
        lines.append(line)
        size += len(line)
    return "".join(lines)
