"""How a cell tells the runner what it found: one JSON line per fact, written at once.

Each fact survives whatever happens to the cell afterwards, which matters when the
cell is killed on purpose or hangs.
"""

import json
import os
import re
import time


def clean(text):
    """An error message without what belongs to this machine or run only.

    Of a remote traceback, the line that names the error is kept (the last one); of
    anything else, the first line.
    """
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)  # terminal colours
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()] or [""]
    named = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
    line = named[-1] if named else lines[-1 if "Traceback (most" in text else 0]
    line = re.sub(r"\S*/\S+/\S*", "<path>", line)
    line = re.sub(r"0x[0-9a-f]+", "0x…", line)
    line = re.sub(r"\b\d+\.\d+\.\d+\.\d+\b", "<address>", line)
    return re.sub(r"\b[0-9a-f]{16,}\b", "<id>", line)


class Report:
    def __init__(self, path):
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _write(self, **fact):
        fact["at"] = time.monotonic()
        os.write(self._fd, (json.dumps(fact) + "\n").encode())

    def metric(self, name, value):
        """A number, in the base unit of its metric."""
        self._write(metric=name, value=value)

    def note(self, name, value):
        """Something to be said in words."""
        self._write(note=name, value=value)

    def event(self, name, detail=""):
        """A point in time: 'ready' starts the watchdog, 'stage' names what comes next."""
        self._write(event=name, detail=detail)

    def stage(self, name):
        self.event("stage", name)
