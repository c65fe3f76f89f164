"""What dev.py is made of: counting, watching, finding interpreters, noticing changes."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tools import environment, interpreters, steps  # noqa: E402  (a folder, not a package)
from tools.shell import Stop  # noqa: E402

CARGO = """\
test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out
test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (CARGO, (15, 2)),
        ("===== 3 failed, 5 passed, 1 skipped, 2 errors in 1.20s =====\n", (5, 5)),
        ("71 passed, 1 warning in 3.96s\n", (71, 0)),
        ("\x1b[32m\x1b[1m7 passed\x1b[0m\x1b[32m in 61.02s (0:01:01)\x1b[0m\n", (7, 0)),
        ("suite: 3 of 4\n88 passed, 1 failed\n", (88, 1)),
        ("nothing to count\n", None),
    ],
    ids=["cargo", "pytest", "pytest-quiet", "pytest-colour", "plain", "none"],
)
def test_counts_are_read(text, expected):
    assert steps.counts(text) == expected


def step(code, **options):
    all_steps = steps.Steps()
    all_steps.run("step", [sys.executable, "-c", code], **options)
    return all_steps


@pytest.mark.parametrize(
    ("code", "passed", "failed"),
    [
        ("print('fine')", 1, 0),
        ("print('4 passed, 0 failed')", 4, 0),
        ("print('4 passed, 2 failed')", 4, 2),
        ("print('4 passed, 0 failed'); raise SystemExit(3)", 4, 1),
        ("import os; os.kill(os.getpid(), 9)", 0, 1),
    ],
)
def test_a_step_is_judged_by_counts_and_exit_code(code, passed, failed, capsys):
    done = step(code)
    assert done.finish() == (1 if failed else 0)
    assert capsys.readouterr().out.splitlines()[-1] == f"{passed} passed, {failed} failed"


def test_nothing_run_is_not_success(capsys):
    done = steps.Steps()
    done.skip("everything", "no time")
    assert done.finish() == 1


def test_a_missing_program_is_a_failure(capsys):
    done = steps.Steps()
    done.run("step", [ROOT / "no-such-program"])
    assert done.finish() == 1
    assert "cannot be started" in capsys.readouterr().out


def test_a_step_that_hangs_is_ended_with_its_children(capfd, tmp_path):
    # a pipe that the grandchild holds open: at its end we read the end of the file
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    child = f"import time; f = open({str(fifo)!r}, 'w'); f.write('x'); f.flush(); time.sleep(600)"
    hang = f"import subprocess as s, sys; s.run([sys.executable, '-c', {child!r}])"
    (result,) = step(hang, limit_s=3).results
    assert "watchdog" in result.note
    assert result.failed == 1
    os.set_blocking(reader, True)
    assert os.read(reader, 9) == b"x"
    assert os.read(reader, 9) == b""
    os.close(reader)


def test_side_by_side_they_print_one_after_the_other(capfd, tmp_path):
    """Each waits for the other, so they do run at once; the second one ends first."""
    for name in "ab":
        os.mkfifo(tmp_path / name)
    first = (
        f"open({str(tmp_path / 'a')!r}).read(); print('first begins', flush=True);"
        f"open({str(tmp_path / 'b')!r}).read(); print('1 passed, 0 failed')"
    )
    second = (
        f"open({str(tmp_path / 'a')!r}, 'w').close(); print('2 passed, 1 failed', flush=True);"
        f"open({str(tmp_path / 'b')!r}, 'w').close()"
    )
    done = steps.Steps()
    jobs = [
        (name, [sys.executable, "-c", code], None) for name, code in (("x", first), ("y", second))
    ]
    assert not done.run_side_by_side(jobs, 2)
    assert [result[:3] for result in done.results] == [("x", 1, 0), ("y", 2, 1)]
    printed = capfd.readouterr().out
    places = [printed.index(text) for text in ("== x", "first begins", "1 passed", "== y", "2 pa")]
    assert places == sorted(places)


def test_processes_left_behind_are_a_failure(capfd, monkeypatch):
    monkeypatch.setattr(steps, "LEFTOVER_GRACE_S", 0.5)
    code = (
        "import subprocess as s, sys; print('1 passed, 0 failed', flush=True);"
        "s.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])"
    )
    (result,) = step(code).results
    assert result.failed == 1
    assert "left processes behind" in result.note


def test_the_running_interpreter_is_the_default():
    (found,) = interpreters.choose([])
    assert found.version == tuple(sys.version_info[:3])
    assert interpreters.choose([found.path]) == [found]
    assert found in interpreters.choose(["all"])


@pytest.mark.parametrize("word", ["2.7", "3.99", "/no/such/python", "./dev.py"])
def test_an_unusable_python_is_one_clear_line(word):
    with pytest.raises(Stop) as caught:
        interpreters.choose([word])
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_digest_sees_content_names_and_absence(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    folder = tmp_path / "crates"
    (folder / "target").mkdir(parents=True)
    (folder / "a.rs").write_text("1")
    first = environment.digest([folder])
    (folder / "target" / "built").write_text("not a source")
    assert environment.digest([folder]) == first
    assert environment.digest([folder], "other compiler") != first
    (folder / "a.rs").write_text("2")
    second = environment.digest([folder])
    (folder / "a.rs").rename(folder / "b.rs")
    third = environment.digest([folder])
    (folder / "b.rs").unlink()
    assert len({first, second, third, environment.digest([folder])}) == 4


def test_a_missing_cargo_is_one_clear_line(tmp_path):
    env = {**os.environ, "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    env.pop("CARGO_HOME", None)
    if subprocess.run(["/bin/sh", "-c", "command -v cargo"], env=env, check=False).returncode == 0:
        pytest.skip("cargo is in /usr/bin here, so it cannot go missing")
    done = subprocess.run(
        [sys.executable, ROOT / "dev.py", "test"],
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout.splitlines()[-1].startswith("dev.py: cargo not found: install Rust")


def test_an_environment_without_venv_falls_back_to_a_folder(tmp_path, monkeypatch, capfd):
    """A Python whose venv module fails, as on distributions that split it off."""
    monkeypatch.setattr(environment, "DEV", tmp_path)
    fake = tmp_path / "python"
    fake.write_text(
        "#!/bin/sh\n"
        'if [ "$2" = venv ]; then echo "ensurepip is not available" >&2; exit 1; fi\n'
        f'if [ "$2" = pip ]; then echo "$@" >> {tmp_path}/pip.log; exit 0; fi\n'
        f'exec {sys.executable} "$@"\n'
    )
    fake.chmod(0o755)
    made = environment.Environment(interpreters.running()._replace(path=str(fake)))
    made.require("examples")
    assert not made.is_venv
    assert made.python == fake
    assert made.env == {"PYTHONPATH": str(made.target)}
    installs = [line for line in (tmp_path / "pip.log").read_text().splitlines() if "-r" in line]
    assert len(installs) == 1
    assert f"--target {made.target}" in installs[0]
    made.require("examples")  # nothing has changed: nothing is installed again
    assert (tmp_path / "pip.log").read_text().count("install") == 1
    stamp = json.loads((made.target / "oxgang-stamp.json").read_text())
    assert stamp["made from"]


def test_two_at_once_take_turns(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(environment, "DEV", tmp_path)
    order = []

    def second():
        with environment.set_up_lock():
            order.append("second")

    with environment.set_up_lock():
        other = threading.Thread(target=second)
        other.start()
        deadline = time.monotonic() + 60
        while "waiting" not in capfd.readouterr().out:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        order.append("first")
    other.join(60)
    assert order == ["first", "second"]
