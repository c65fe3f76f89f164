"""The examples are programs, not a package: tests find them, and the file server, by path."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
for folder in (ROOT, EXAMPLES):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


@pytest.fixture
def server(tmp_path):
    from tools.file_server import serving

    folder = tmp_path / "served"
    folder.mkdir()
    with serving(folder) as running:
        yield running


@pytest.fixture
def run_example(tmp_path):
    """Run an example as a program; the watchdog only ends what hangs."""
    import subprocess

    def run(name, *words):
        return subprocess.run(
            [sys.executable, EXAMPLES / name, *map(str, words)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            stdin=subprocess.DEVNULL,
            check=False,
        )

    return run
