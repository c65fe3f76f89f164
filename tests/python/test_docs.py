"""Every program in docs/ runs, as a file of its own, and says nothing on stderr."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PROGRAM = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def programs():
    for page in sorted(DOCS.glob("*.md")):
        for number, program in enumerate(PROGRAM.findall(page.read_text()), 1):
            yield pytest.param(program, id=f"{page.stem}-{number}")


@pytest.mark.parametrize("program", list(programs()))
def test_program_runs(program, tmp_path):
    script = tmp_path / "program.py"
    script.write_text(program)
    command = [sys.executable, "-W", "ignore::DeprecationWarning", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout or "print(" not in program  # one may only define


def test_there_are_programs():
    assert len(list(programs())) >= 5
