"""`oxgang run`: a program finds itself as under plain `python`, but for four modules."""

import os
import signal
import textwrap

import pytest

FACTS = """
import sys, os
facts = {name: value for name, value in globals().items() if name.startswith("__")}
facts["__builtins__"] = type(facts["__builtins__"]).__name__
facts["__loader__"] = getattr(facts["__loader__"], "__name__", type(facts["__loader__"]).__name__)
facts["__spec__"] = getattr(facts["__spec__"], "name", None)
print(sorted(facts.items(), key=str))
print(sys.argv, sys.path, sys.flags, sys.warnoptions, sys._xoptions)
print(sorted(name for name in os.environ if "PYTHON" in name or "OXGANG" in name))
print(sys.stdout.line_buffering, sys.stdout.write_through, __import__("site").ENABLE_USER_SITE)
"""
WHOSE = """
import threading, queue, multiprocessing, concurrent.futures, multiprocessing.pool
print([module.__name__ for module in
       (threading, queue, multiprocessing, concurrent.futures, multiprocessing.pool)])
"""
OURS = ["oxgang.concurrent.futures", "oxgang.multiprocessing"]


@pytest.fixture
def script(tmp_path):
    def write(text, name="script.py"):
        path = tmp_path / name
        path.write_text(textwrap.dedent(text))
        return path

    return write


@pytest.fixture
def same(python, oxgang):
    """Both run the same command; standard output, error and exit code must be the same."""

    def compare(*words, stdin="", errors=True):
        plain, ours = python(*words, stdin=stdin), oxgang("run", *words, stdin=stdin)
        assert ours.stdout == plain.stdout
        assert not errors or ours.stderr == plain.stderr
        assert ours.returncode == plain.returncode
        return plain

    return compare


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["-X", "dev"],
        ["-Wignore::DeprecationWarning", "-W", "error"],
        ["-OO"],
        ["-uB"],
        ["-s"],
        ["-P"],
        ["-X", "utf8", "-X", "own=value"],
        ["-E"],
        ["-I"],
        ["-S"],
        ["-Im"],
    ],
    ids=" ".join,
)
def test_a_program_finds_itself_as_ever(script, same, flags):
    script(FACTS, "facts.py")
    if flags == ["-Im"]:
        same("-I", "-m", "json.tool", stdin="[1]")
        return
    same(*flags, "facts.py", "a b", "--only", "-c")
    same(*flags, "-c", FACTS.replace("__loader__", "__doc__"), "-x", "y")
    if not {"-P", "-I"} & set(flags):
        same(*flags, "-m", "facts", "z")
    same(*flags, "-", "w", stdin=FACTS.replace("__loader__", "__doc__"))


def test_no_program_is_standard_input(same):
    same(stdin="import sys; print(sys.argv, __name__)")


def test_a_folder_and_an_archive_are_programs(script, same, tmp_path):
    import zipfile

    (tmp_path / "folder").mkdir()
    script(FACTS, "folder/__main__.py")
    same("folder", "x")
    with zipfile.ZipFile(tmp_path / "archive.pyz", "w") as archive:
        archive.write(tmp_path / "folder/__main__.py", "__main__.py")
    same("archive.pyz", "x")


ENDS = {
    "error": "def f():\n    return 1 / 0\n\nf()\n",
    "in a library": "import json\njson.loads('{')\n",
    "syntax": "if True print()\n",
    "import": "import no_such_module\n",
    "exit code": "import sys\nsys.exit(7)\n",
    "exit text": "import sys\nsys.exit('so long')\n",
    "exit none": "raise SystemExit\n",
    "interrupt": "raise KeyboardInterrupt\n",
    "interrupted": "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)\n",
    "terminated": "import os, signal, time\nos.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(60)\n",
    "killed": "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n",
    "left": "import os\nos._exit(9)\n",
    "warning": "import warnings\nwarnings.warn('look', stacklevel=2)\nprint('end')\n",
    "hook": "import sys\ndef hook(kind, value, tb):\n    print(kind, tb.tb_frame.f_code.co_name)\n"
    "sys.excepthook = hook\n1/0\n",
    "stack": "import sys, traceback\ntraceback.print_stack()\nprint(sys._getframe().f_back)\n",
    "group": "raise ExceptionGroup('two', [ValueError(1), KeyError(2)])\n",
    "cause": "try:\n    {}[1]\nexcept KeyError as e:\n    raise ValueError('outer') from e\n",
}


@pytest.mark.parametrize("text", ENDS.values(), ids=ENDS)
def test_it_ends_as_ever(script, same, text):
    same(script(text))
    same("-c", text)


@pytest.mark.parametrize("name", ["error", "syntax", "exit text", "interrupt", "hook", "cause"])
def test_it_ends_as_ever_without_an_environment(script, same, name):
    same("-I", script(ENDS[name]))


def test_what_is_not_there(same):
    same("no_such_file.py")
    same("-m", "no_such_module_at_all")
    same("-I", "no_such_file.py")


def test_going_on_interactively(script, same):
    path = script("word = 'ox'\ndef f():\n    return word * 2\n")
    same("-i", "-q", path, stdin="print(f())\nprint(__name__)\n")
    same("-i", "-c", "1/0", stdin="import sys; print(sys.last_value)\n")
    same("-q", "-i", stdin="import threading\nprint(threading.current_thread().name)\n")


def test_the_debugger(script, same):
    path = script("total = 0\nfor n in range(3):\n    total += n\nprint(total)\n")
    same("-m", "pdb", path, stdin="next\nnext\nprint(n)\nwhere\nbreak 4\ncontinue\np total\nquit\n")


def test_profilers(script, oxgang):
    path = script("import threading\ndef f(): return sum(range(9))\nprint(f())\n")
    for module in ("cProfile", "profile"):
        ran = oxgang("run", "-m", module, path)
        assert ran.returncode == 0, ran.stderr
        assert ran.stdout.startswith("36\n")
        assert "script.py:2(f)" in ran.stdout
    ran = oxgang("run", "-m", "trace", "--count", "--summary", "-C", "counts", path)
    assert "36" in ran.stdout, ran.stderr


def test_coverage_counts_the_same_lines(script, same):
    pytest.importorskip("coverage")
    path = script(
        """
        import threading
        from concurrent.futures import ThreadPoolExecutor

        def covered(n):
            if n > 5:
                return "never"
            return n

        with ThreadPoolExecutor(2) as pool:
            print(list(pool.map(covered, range(3))))
        thread = threading.Thread(target=covered, args=(1,))
        thread.start()
        thread.join()
        """
    )
    same("-m", "coverage", "run", path)
    same("-m", "coverage", "report", "-m")


def test_the_modules_are_ours(script, oxgang):
    ran = oxgang("run", script(WHOSE))
    names = eval(ran.stdout)
    assert set(OURS) < set(names), ran.stderr
    assert oxgang("run", "-c", WHOSE).stdout == ran.stdout
    assert oxgang("run", stdin=WHOSE).stdout == ran.stdout
    for flags in (["-I"], ["-E"], ["-X", "dev"]):
        assert oxgang("run", *flags, "script.py").stdout == ran.stdout


def test_only_what_is_named_is_exchanged(oxgang):
    ran = oxgang("run", "--only", "concurrent.futures,queue", "-c", WHOSE)
    names = eval(ran.stdout)
    assert names[2] == "multiprocessing" and names[4] == "multiprocessing.pool"
    assert names[3] == "oxgang.concurrent.futures"


def test_a_file_of_ones_own_by_such_a_name_wins(script, same):
    script("word = 'my own'\n", "queue.py")
    same(script("import queue\nprint(queue.word)\n"))
    same("-c", "import queue, threading\nprint(queue.word)\n")


CHILD = """
import subprocess, sys, os
print(subprocess.run([sys.executable, *sys.argv[1:], "-c", '''
import multiprocessing, os, sys
print(multiprocessing.__name__, sorted(n for n in os.environ if "OXGANG" in n), sys.path[0])
'''], capture_output=True, text=True).stdout)
"""


def test_other_python_processes_have_it_only_if_wanted(oxgang, same, monkeypatch):
    same("-c", CHILD)
    assert (
        "oxgang.multiprocessing ['OXGANG_RUN']" in oxgang("run", "--children", "-c", CHILD).stdout
    )
    # also those that start others, and not those that are told to mind no environment
    twice = oxgang("run", "--children", "-c", CHILD, "-c", CHILD)
    assert "oxgang.multiprocessing" in twice.stdout
    assert oxgang("run", "--children", "-c", CHILD, "-I").stdout.startswith("multiprocessing [")


def test_the_path_and_sitecustomize_of_ones_own(script, same, tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    script("import sys\nsys.mine = 'was here'\n", "mine/sitecustomize.py")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}/mine:/nowhere")
    code = "import sys, os, sitecustomize\nprint(sys.mine, sys.path, os.environ['PYTHONPATH'])\n"
    same("-c", code + "print(sitecustomize.__file__)\n")
    script("raise RuntimeError('mine')\n", "mine/sitecustomize.py")
    monkeypatch.setenv("PYTHONVERBOSE", "")
    same("-c", "print('goes on')", errors=False)


def test_options_of_the_interpreter_that_runs_the_command(tmp_path, python):
    for flags in (["-u"], ["-X", "dev", "-W", "ignore"], ["-I"]):
        code = "import sys; print(sys.flags, sys.warnoptions, sys.stdout.write_through)"
        plain = python(*flags, "-c", code)
        assert python(*flags, "-m", "oxgang", "run", "-c", code).stdout == plain.stdout


def test_a_wrong_command_is_one_line(oxgang):
    for words in (["--only", "asyncio", "x.py"], ["--reprot"], ["-m"]):
        ran = oxgang("run", *words)
        assert ran.returncode == 2 and ran.stdout == ""
        assert ran.stderr.startswith("oxgang run: ") and ran.stderr.count("\n") == 1
    assert "Usage: oxgang run" in oxgang("run", "--help").stdout
    assert "run" in oxgang("--help").stdout


def test_signals_reach_the_program(script, oxgang, until, tmp_path):
    path = script(
        """
        import signal, sys, threading
        asked = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: asked.set())
        open("ready", "w").close()
        asked.wait()
        sys.exit(5)
        """
    )
    process = oxgang.start("run", path)
    until((tmp_path / "ready").exists, process)
    process.send_signal(signal.SIGTERM)
    assert oxgang.end(process)[0] == 5


def test_ctrl_c_ends_it_by_the_signal(script, oxgang, until, tmp_path):
    path = script("import queue\nopen('ready', 'w').close()\nqueue.Queue().get()\n")
    process = oxgang.start("run", path)
    until((tmp_path / "ready").exists, process)
    process.send_signal(signal.SIGINT)
    code, _, err = oxgang.end(process)
    assert code == -signal.SIGINT
    assert err.rstrip().endswith("KeyboardInterrupt")


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="needs /proc")
def test_no_descriptor_is_added(same):
    same("-c", "import os, queue\nprint(sorted(os.listdir('/proc/self/fd')))")


REPORTED = """
import os
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool

def die():
    os._exit(1)

def inner(n):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(abs, -n).result()

if __name__ == "__main__":
    with ProcessPoolExecutor(2) as pool:
        print(sum(pool.map(inner, range(50))))
        print(len(pool.submit(bytes, 1 << 20).result()))
    with ProcessPoolExecutor(1) as pool:
        try:
            pool.submit(die).result()
        except BrokenProcessPool:
            print("lost")
    with ThreadPoolExecutor(2) as pool:
        print(sum(pool.map(abs, range(30))))
"""


def test_the_report_counts_what_was_done(script, oxgang):
    ran = oxgang("run", "--report", script(REPORTED))
    assert ran.stdout.split() == ["1225", str(1 << 20), "lost", "435"]
    assert ran.returncode == 0
    rows = dict(line.strip().split("  ", 1) for line in ran.stderr.splitlines()[1:])
    rows = {name: value.strip() for name, value in rows.items()}
    assert rows["exchanged, and used"].endswith("concurrent.futures")
    assert rows["process pools"].startswith("2, ")
    # 51 calls answered by processes, 30 taken by threads here and 50 there
    assert rows["tasks"].startswith("131, ")
    assert rows["thread pools"].startswith("51, ")
    assert rows["deaths survived"].startswith("1 worker died, 1 task was lost")
    assert "MiB" in rows["bytes moved"] or "MiB" in rows["bytes not copied"]
    assert "measured now" in rows["dispatch, process"]
    assert rows["hint"]


def test_a_report_of_a_program_that_fails_or_uses_nothing(script, oxgang):
    ran = oxgang("run", "--report", script("import sys\nprint('out')\nsys.exit(3)\n"))
    assert (ran.returncode, ran.stdout) == (3, "out\n")
    assert ran.stderr.startswith("oxgang run: ") and "none of the modules" in ran.stderr
