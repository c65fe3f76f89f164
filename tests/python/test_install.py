"""`oxgang.install` and `uninstall`: who sees which modules. Each case is a program of its own."""

import subprocess
import sys
import textwrap

import pytest

LIMIT_S = 120


def run(text, tmp_path, *flags):
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(text))
    ran = subprocess.run(
        [sys.executable, *flags, path],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        cwd=tmp_path,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert not ran.stderr, ran.stderr
    return ran.stdout.splitlines()


def test_imports_give_ours_from_then_on(tmp_path):
    lines = run(
        """
        import sys
        import queue, concurrent.futures
        before = queue, concurrent.futures.Future
        import oxgang
        oxgang.install()
        import queue, multiprocessing.pool, importlib
        print(queue is before[0], queue is sys.modules["queue"], queue.__name__)
        print(concurrent.futures.__name__, concurrent.futures.thread.__name__)
        print(multiprocessing.pool.__name__, importlib.import_module("queue") is queue)
        one = before[0].Queue()          # what was imported before works beside it
        one.put(1)
        print(one.get(), queue.Empty is before[0].Empty)
        print(isinstance(before[1](), concurrent.futures.Future))
        from multiprocessing import *
        print(Pool.__module__.startswith("oxgang"), Process.__module__.startswith("oxgang"))
        oxgang.install()
        print(sys.modules["queue"] is queue)
        """,
        tmp_path,
    )
    assert lines == [
        "False True oxgang.queue",
        "oxgang.concurrent.futures oxgang.concurrent.futures.thread",
        "oxgang.multiprocessing.pool True",
        "1 True",
        "True",
        "True True",
        "True",
    ]


def test_our_own_code_and_the_standard_modules_see_the_standard_modules(tmp_path):
    lines = run(
        """
        import oxgang, sys
        oxgang.install()
        import threading, multiprocessing.managers, concurrent.futures.process
        from oxgang import _standard
        for name in ("threading", "multiprocessing.managers", "concurrent.futures.process"):
            standard = _standard.module(name)
            print(standard.__name__, standard.__spec__.name, standard is sys.modules[name])
        process = _standard.module("concurrent.futures.process")
        print(process.mp.__name__, process._base.__name__, process.queue.__name__)
        print(concurrent.futures.process.__dict__["threading"].__name__)
        print(_standard.module("multiprocessing").pool is _standard.module("multiprocessing.pool"))
        import logging, asyncio.base_events
        print(logging.threading is threading)
        """,
        tmp_path,
    )
    assert lines == [
        "threading threading False",
        "multiprocessing.managers multiprocessing.managers False",
        "concurrent.futures.process concurrent.futures.process False",
        "multiprocessing concurrent.futures._base queue",
        "threading",
        "True",
        "True",
    ]


def test_only(tmp_path):
    lines = run(
        """
        import oxgang, sys
        oxgang.install(only="queue")
        import queue, threading, multiprocessing.queues, concurrent.futures
        print(queue.__name__, threading.__name__, multiprocessing.queues.__name__)
        print(concurrent.futures.__name__)
        oxgang.install(["concurrent.futures", "queue"])
        import concurrent.futures
        print(concurrent.futures.__name__)
        for wrong in ("asyncio", [], "multiprocessing.pool"):
            try:
                oxgang.install(wrong)
            except ValueError as error:
                print("ValueError", "threading, queue" in str(error))
        """,
        tmp_path,
    )
    assert lines == [
        "oxgang.queue threading multiprocessing.queues",
        "concurrent.futures",
        "oxgang.concurrent.futures",
        *["ValueError True"] * 3,
    ]


def test_uninstall(tmp_path):
    lines = run(
        """
        import oxgang, sys, builtins, warnings
        plain, finders, known = builtins.__import__, list(sys.meta_path), set(sys.modules)
        import threading
        own = threading
        oxgang.install()
        import types
        holder = types.ModuleType("holder")
        sys.modules["holder"] = holder
        exec("import queue; from multiprocessing import Process", vars(holder))
        import threading
        print(threading is own)
        del threading
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            left = oxgang.uninstall()
        print(left, [warning.category.__name__ for warning in caught])
        import threading, queue, multiprocessing.pool, concurrent.futures, concurrent.futures.thread
        print(threading is own, queue.__name__, multiprocessing.pool.__name__)
        print(concurrent.futures.__name__, concurrent.futures.ThreadPoolExecutor.__module__)
        print(builtins.__import__ is plain, sys.meta_path == finders)
        print([name for name in sys.modules if name.startswith("oxgang._standard.")])
        one = holder.queue.Queue()       # what was imported meanwhile works
        one.put(1)
        print(one.get(), holder.queue is queue)
        print(oxgang.uninstall())
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            print(pool.submit(int, "7").result())
        oxgang.install()
        import queue
        print(queue.__name__)
        """,
        tmp_path,
    )
    assert lines == [
        "False",
        "['holder'] ['RuntimeWarning']",
        "True queue multiprocessing.pool",
        "concurrent.futures concurrent.futures.thread",
        "True True",
        "[]",
        "1 False",
        "[]",
        "7",
        "oxgang.queue",
    ]


WHO = """
import queue, multiprocessing, concurrent.futures
def who(*_):
    return queue.__name__, multiprocessing.__name__, concurrent.futures.__name__
"""
ALL_OURS = "('oxgang.queue', 'oxgang.multiprocessing', 'oxgang.concurrent.futures')"


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver", "template"])
@pytest.mark.parametrize("kind", ["Process", "Pool", "ProcessPoolExecutor"])
def test_processes_have_it_before_they_import_anything(tmp_path, method, kind):
    (tmp_path / "who_am_i.py").write_text(WHO)
    work = {
        "Process": """
            results = context.SimpleQueue()
            process = context.Process(target=tell, args=(results,))
            process.start()
            print(results.get())
            process.join()
        """,
        "Pool": """
            with context.Pool(1) as pool:
                print(pool.apply(ask))
        """,
        "ProcessPoolExecutor": """
            with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
                print(pool.submit(ask).result())
        """,
    }[kind]
    text = f"""
        import oxgang
        oxgang.install()
        import concurrent.futures, multiprocessing

        def ask():
            import who_am_i
            return who_am_i.who()

        def tell(results):
            results.put(ask())

        if __name__ == "__main__":
            context = multiprocessing.get_context({method!r})
            {textwrap.indent(textwrap.dedent(work), " " * 12).strip()}
    """
    assert run(text, tmp_path) == [ALL_OURS]


def test_a_fork_servers_own_imports_are_ours(tmp_path):
    (tmp_path / "who_am_i.py").write_text(WHO)
    text = """
        import oxgang
        oxgang.install()
        import multiprocessing

        def ask():
            import sys
            return "who_am_i" in sys.modules and sys.modules["who_am_i"].who()

        if __name__ == "__main__":
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload(["who_am_i"])
            with context.Pool(1) as pool:
                print(pool.apply(ask))
    """
    assert run(text, tmp_path) == [ALL_OURS]


def test_children_started_in_other_ways(tmp_path):
    lines = run(
        """
        import os, subprocess, sys
        import oxgang
        def child():
            code = "import queue; print(queue.__name__)"
            return subprocess.run([sys.executable, "-c", code], capture_output=True).stdout
        before = dict(os.environ)
        oxgang.install()
        print(child())
        oxgang.install(children=True)
        print(child())
        oxgang.uninstall()
        print(child(), dict(os.environ) == before)
        """,
        tmp_path,
    )
    assert lines == ["b'queue\\n'", "b'oxgang.queue\\n'", "b'queue\\n' True"]


def test_threads_that_import_at_the_same_time(tmp_path):
    lines = run(
        """
        import _thread, sys
        import oxgang
        sys.setswitchinterval(1e-6)
        oxgang.install()
        names = ["threading", "queue", "multiprocessing.pool", "multiprocessing.managers",
                 "concurrent.futures.process", "concurrent.futures.thread", "asyncio", "logging"]
        found, gate = [], _thread.allocate_lock()
        gate.acquire()

        def load(turn):
            for name in names[turn:] + names[:turn]:
                __import__(name)
                module = sys.modules[name]
                found.append((name, module.__name__, len(dir(module)) > 10))
            if len(found) == 8 * len(names):
                gate.release()

        for turn in range(8):
            _thread.start_new_thread(load, (turn,))
        gate.acquire()
        for line in sorted(set(found)):
            print(*line)
        """,
        tmp_path,
    )
    exchanged = {line.split()[0]: line.split()[1] for line in lines}
    assert len(lines) == len(exchanged) == 8
    assert all(line.endswith("True") for line in lines)
    assert exchanged["asyncio"] == "asyncio" and exchanged["queue"] == "oxgang.queue"


def test_errors_of_imports_have_no_lines_of_ours(tmp_path):
    lines = run(
        """
        import oxgang, traceback
        oxgang.install()
        for statement in ("import no_such_module", "from queue import no_such_name"):
            try:
                exec(statement, {"__name__": "user"})
            except ImportError as error:
                frames = traceback.extract_tb(error.__traceback__)
                print(len(frames), type(error).__name__)
        import threading
        try:
            threading.no_such_name
        except AttributeError as error:
            print(error)
        """,
        tmp_path,
    )
    assert lines == [
        "2 ModuleNotFoundError",
        "2 ImportError",
        "module 'threading' has no attribute 'no_such_name'",
    ]


def test_who_is_built_on_private_parts_sees_the_standard_modules(tmp_path):
    package = tmp_path / "loky"
    package.mkdir()
    (package / "__init__.py").write_text("from .backend import queues, concurrent\n")
    (package / "backend.py").write_text(
        "from multiprocessing import queues\nimport concurrent.futures\n"
    )
    lines = run(
        """
        import oxgang
        oxgang.install()
        import concurrent.futures, loky, multiprocessing.queues
        print(loky.queues.__name__, loky.concurrent.futures.__name__)
        print(concurrent.futures.__name__, loky.queues is multiprocessing.queues)
        """,
        tmp_path,
    )
    assert lines == [
        "multiprocessing.queues concurrent.futures",
        "oxgang.concurrent.futures False",
    ]


def test_what_ours_lack_is_the_standard_modules(tmp_path):
    lines = run(
        """
        import oxgang
        oxgang.install()
        import concurrent.futures.thread, multiprocessing.context, threading
        from multiprocessing import synchronize
        print(synchronize.SemLock.__module__, "fork" in multiprocessing.context._concrete_contexts)
        print(concurrent.futures.thread._threads_queues is not None, callable(threading._shutdown))
        """,
        tmp_path,
    )
    assert lines == ["multiprocessing.synchronize True", "True True"]
