"""How long a program takes that does nothing: by `python` and by `oxgang run`."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 10
LIMIT_S = 60
SCRIPTS = {
    "empty script": "",
    "with imports": "import threading, queue, concurrent.futures\n",
}


def start(contender, _scale):
    """Seconds from start to end of the process, the best of some."""
    command = [sys.executable]
    if contender.name != "standard":
        command = [os.path.join(os.path.dirname(sys.executable), "oxgang"), "run"]
        if not os.path.exists(command[0]):
            command = [sys.executable, "-m", "oxgang", "run"]
    seconds = {}
    with tempfile.TemporaryDirectory(prefix="oxgang-bench-") as folder:
        for name, text in SCRIPTS.items():
            script = Path(folder, "script.py")
            script.write_text(text)
            seconds[name] = min(_once([*command, script]) for _ in range(ROUNDS))
    return seconds


def _once(command):
    began = time.perf_counter()
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=LIMIT_S)
    return time.perf_counter() - began
