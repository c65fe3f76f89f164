"""Processes of `multiprocessing`: one body, on the standard library's and on ours."""

import functools
import multiprocessing as standard
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import connection

import oxgang.multiprocessing as ours
import processing
import pytest
from oxgang.multiprocessing import process
from programs import HERE, Program, gone

METHODS = ("fork", "spawn", "forkserver", "template")
OWN = [f"oxgang-{method}" for method in METHODS]
CONTEXTS = {
    **{f"standard-{method}": standard.get_context(method) for method in METHODS[:3]},
    **{name: ours.get_context(method) for name, method in zip(OWN, METHODS, strict=True)},
}


@pytest.fixture(params=CONTEXTS)
def context(request):
    return CONTEXTS[request.param]


only_ours = pytest.mark.parametrize("context", OWN, indirect=True)


@pytest.fixture
def answers(context):
    """A pipe for what the child has to say: the end to read, the end to write."""
    reading, writing = context.Pipe(duplex=False)
    yield reading, writing
    reading.close()
    writing.close()


def run(made):
    made.start()
    made.join()
    return made.exitcode


def test_a_life(context, answers):
    reading, writing = answers
    gate = context.Event()
    arguments = {"args": (gate, writing, 1), "kwargs": {"two": 2}}
    made = context.Process(target=processing.tell_at, name="x", **arguments)
    assert (made.pid, made.exitcode, made.is_alive(), made.name) == (None, None, False, "x")
    with pytest.raises(AssertionError, match="started"):
        made.join()
    with pytest.raises(ValueError, match="not started"):
        made.sentinel  # noqa: B018
    made.start()
    assert made in ours.active_children() and made in standard.active_children()
    gate.set()
    args, kwargs, facts = reading.recv()
    made.join()
    assert (args, kwargs, made.exitcode, made.is_alive()) == ((1,), {"two": 2}, 0, False)
    assert facts["pid"] == made.pid == made.ident != os.getpid()
    assert (facts["name"], facts["parent"], facts["daemon"]) == ("x", os.getpid(), False)
    assert facts["method"] == context.get_start_method()
    with pytest.raises(AssertionError, match="twice"):
        made.start()
    made.close()
    made.close()
    with pytest.raises(ValueError, match="closed"):
        made.is_alive()


@pytest.mark.parametrize("code", [0, 7])
def test_exit_codes(context, code):
    assert run(context.Process(target=sys.exit, args=(code,))) == code
    assert run(context.Process(target=os._exit, args=(code,))) == code


def test_an_error_is_told_and_gives_exit_code_1(context):
    module = type(context).__module__.rpartition(".")[0]
    text = (
        f"import processing\nfrom {module} import get_context\n"
        f"context = get_context({context.get_start_method()!r})\n"
        "process = context.Process(target=processing.fail, args=('why',), name='failing')\n"
        "process.start(); process.join(); print(process.exitcode)\n"
    )
    command = [sys.executable, "-c", text]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)
    assert done.stdout == "1\n"
    assert "Process failing:" in done.stderr and "LookupError: why" in done.stderr


def test_waiting_and_ending(context, answers):
    reading, writing = answers
    for end, number in (("terminate", signal.SIGTERM), ("kill", signal.SIGKILL)):
        made = context.Process(target=processing.sleep, args=(writing,))
        made.start()
        reading.recv()
        made.join(0.01)
        assert made.is_alive() and made.exitcode is None
        assert connection.wait([made.sentinel], 0) == []
        with pytest.raises(ValueError, match="still running"):
            made.close()
        getattr(made, end)()
        assert connection.wait([made.sentinel], 60) == [made.sentinel]
        made.join()
        assert made.exitcode == -number
        getattr(made, end)()
        made.close()


def test_a_subclass(context, answers):
    reading, writing = answers

    class Made(processing.Told, context.Process):
        pass

    processing.Made = Made
    Made.__module__, Made.__qualname__ = "processing", "Made"
    if context.get_start_method() != "fork":
        Made = functools.partial(processing.subclass_of, context.Process)
    made = Made(writing, 5)
    made.start()
    assert reading.recv() == 5
    made.join()
    assert made.exitcode == 0


def test_a_daemon_ends_with_its_parent(context):
    made = context.Process(target=time.sleep, args=(600,), daemon=True)
    made.start()
    assert made.daemon
    with pytest.raises(AssertionError, match="started"):
        made.daemon = False
    made.terminate()
    made.join()


def test_the_end_of_the_parent_can_be_waited_for(context, answers):
    reading, writing = answers
    if context is CONTEXTS["standard-forkserver"]:
        pytest.skip("it cannot be used in a fork of a process that has used it")
    between = CONTEXTS["standard-fork"].Process(
        target=processing.leave_behind,
        args=(type(context).__module__.startswith("oxgang"), context.get_start_method(), writing),
    )
    between.start()
    assert reading.recv() == "waits"
    between.kill()
    between.join()
    assert reading.recv() == "the parent has ended"


def test_many_at_once(context):
    made = [context.Process(target=sys.exit, args=(number,)) for number in range(8)]
    for one in made:
        one.start()
    for one in made:
        one.join()
    assert [one.exitcode for one in made] == list(range(8))


def test_locks_and_queues_arrive(context):
    items, lock, event = context.Queue(), context.Lock(), context.Event()
    made = context.Process(target=processing.put_under_lock, args=(items, lock, event))
    with lock:
        made.start()
        event.wait()
        with pytest.raises(queue.Empty):
            items.get(timeout=0.05)
    assert items.get() == "under the lock"
    made.join()
    items.close()
    items.join_thread()


# -- what the standard processes cannot ---------------------------------------------------------


@only_ours
def test_lambdas_closures_and_local_classes(context):
    number = 3

    class Local:
        value = 4

    assert run(context.Process(target=lambda: sys.exit(number + Local.value))) == 7


@only_ours
def test_what_is_by_value_comes_with_pipes_and_shared_numbers(context, answers):
    reading, writing = answers
    number = context.Value("i", 3, lock=False)

    def target(writing, number):
        writing.send(number.value)
        number.value = 4

    assert run(context.Process(target=target, args=(writing, number))) == 0
    assert (reading.recv(), number.value) == (3, 4)


@only_ours
def test_a_daemon_may_have_children(context, answers):
    reading, writing = answers
    method = context.get_start_method()
    made = context.Process(target=processing.parent, args=(method, writing), daemon=True)
    made.start()
    assert reading.recv() == "from the child"
    made.join()
    assert made.exitcode == 0


@only_ours
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_children_of_a_daemon_that_is_killed_end_with_it(context, answers, number):
    reading, writing = answers
    method = context.get_start_method()
    made = context.Process(target=processing.parent_of_sleeper, args=(method, writing), daemon=True)
    made.start()
    grandchild = reading.recv()
    os.kill(made.pid, number)
    made.join()
    while not gone(grandchild):
        time.sleep(0.005)


@only_ours
def test_any_number_of_threads_may_wait(context):
    made = context.Process(target=time.sleep, args=(0.2,))
    made.start()
    found = []
    threads = [
        threading.Thread(target=lambda: (made._popen.wait(), found.append(made.exitcode)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    made.join()
    assert found == [0] * 4


@only_ours
def test_a_child_that_outlives_its_child_does_not_hold_up_who_waits(context, answers):
    """The sentinel is the process itself, not a pipe that its children inherit."""
    if context.get_start_method() == "forkserver":
        pytest.skip("the standard fork server's sentinels are pipes")
    reading, writing = answers
    made = context.Process(target=processing.leave_sleeper, args=(writing,))
    made.start()
    left = reading.recv()
    try:
        made.join(60)
        assert made.exitcode == 0 and not gone(left)
    finally:
        os.kill(left, signal.SIGKILL)


@only_ours
def test_an_end_that_somebody_else_has_taken_is_255(context):
    if context.get_start_method() != "fork":
        pytest.skip("nobody else can")
    made = context.Process(target=sys.exit, args=(3,))
    made.start()
    os.waitpid(made.pid, 0)
    made.join()
    assert made.exitcode == 255


def test_a_template_that_ends_takes_none_with_it_and_is_replaced():
    from oxgang import _template

    context = CONTEXTS["oxgang-template"]
    reading, writing = context.Pipe(duplex=False)
    made = context.Process(target=processing.tell_when_told, args=(writing,))
    made.start()
    reading.recv()
    os.kill(_template._template.pid, signal.SIGKILL)
    made.terminate()
    made.join()
    assert made.exitcode == 255  # who could have told is gone
    assert run(context.Process(target=sys.exit, args=(3,))) == 3
    reading.close()
    writing.close()


class Ending:
    """A template whose link has closed, and that has not ended yet."""

    def __init__(self, template):
        self._template = template
        self.alive, self.end, self.prepare = template.alive, template.end, template.prepare

    def fork(self, fds):
        for fd in fds:
            os.close(fd)
        raise BrokenPipeError


def test_a_template_that_is_about_to_end_is_replaced():
    from oxgang import _template

    ending = _template._template = Ending(_template.get())
    assert run(CONTEXTS["oxgang-template"].Process(target=sys.exit, args=(3,))) == 3
    assert not ending.alive() and _template.get().alive()


def test_what_a_process_needs_is_imported_by_the_template(tmp_path, monkeypatch):
    """Once for all: each process would pay for it anew."""
    source = """
import os
IMPORTED_BY = os.getpid()
class Argument: pass
def tell(writing, _argument): writing.send((IMPORTED_BY, os.getpid()))
"""
    (tmp_path / "needed.py").write_text(source)
    (tmp_path / "needed_too.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    import needed
    import needed_too

    context, seen = CONTEXTS["oxgang-template"], []
    reading, writing = context.Pipe(duplex=False)
    for target in (needed.tell, needed.tell, needed_too.tell):
        assert run(context.Process(target=target, args=(writing, needed.Argument()))) == 0
        seen.append(reading.recv())
    importers, children = ({pid for pid, _ in seen}, {pid for _, pid in seen})
    assert len(children) == 3 and len(importers) == 1 and not importers & children
    reading.close()
    writing.close()


def test_what_was_given_up_while_it_started_does_not_run(tmp_path, monkeypatch):
    """Ctrl-C between the fork and the answer: the child is told nothing, and ends."""
    from oxgang.multiprocessing import _parcel

    def interrupted(_fd, _data):
        raise KeyboardInterrupt

    made = CONTEXTS["oxgang-template"].Process(target=processing.touch, args=(tmp_path / "ran",))
    monkeypatch.setattr(_parcel, "deliver", interrupted)
    with pytest.raises(KeyboardInterrupt):
        made.start()
    monkeypatch.undo()
    assert run(CONTEXTS["oxgang-template"].Process(target=sys.exit)) == 0
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("method", METHODS)
def test_a_program_without_a_guard(method, tmp_path):
    program = Program(tmp_path, HERE / "program_without_guard.py", method)
    program.wait_for_line("[0, 1, 4] 3 by value")
    assert program.end() == (0, "")
    program.assert_nothing_left(fork_server=True)


@pytest.mark.parametrize("method", METHODS[1:])
def test_a_missing_guard_that_matters_is_one_clear_error(method, tmp_path):
    program = Program(tmp_path, HERE / "program_without_guard.py", method, "by name")
    program.wait_for_line("exit code 1")
    code, errors = program.end()
    assert code == 0
    assert errors.count('if __name__ == "__main__":') == 1, errors
    program.assert_nothing_left(fork_server=True)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("how", ["-c", "-"])
def test_programs_without_a_file(method, how):
    text = (
        "import oxgang.multiprocessing as m\n"
        "def f(x): return x + 1\n"
        f"c = m.get_context({method!r})\n"
        "p = c.Process(target=lambda: print(f(1), flush=True)); p.start(); p.join()\n"
        "with c.Pool(1) as pool: print(pool.map(f, [2]), p.exitcode)\n"
    )
    words = [sys.executable, how, *([text] if how == "-c" else [])]
    given = None if how == "-c" else text
    done = subprocess.run(words, input=given, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("2\n[3] 0\n", "")


# -- seams --------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [standard.process, process])
def test_bootstrap_can_be_replaced(context, module, monkeypatch, tmp_path):
    """As coverage tools do, which send themselves to the child by the preparation data."""
    if context.get_start_method() != "fork":
        pytest.skip("the child of another start method has its own module")
    if module is process and type(context).__module__.startswith("multiprocessing"):
        pytest.skip("it is not ours")
    original = module.BaseProcess._bootstrap

    def bootstrap(self, *args, **options):
        processing.touch(tmp_path / "seen")
        return original(self, *args, **options)

    monkeypatch.setattr(module.BaseProcess, "_bootstrap", bootstrap)
    assert run(context.Process(target=sys.exit)) == 0
    assert (tmp_path / "seen").exists()


def test_what_is_added_to_the_preparation_arrives(context, monkeypatch, tmp_path):
    if context.get_start_method() == "fork":
        pytest.skip("nothing is sent")
    original = standard.spawn.get_preparation_data

    def with_stowaway(name):
        return original(name) | {"stowaway": processing.Stowaway(str(tmp_path / "seen"))}

    monkeypatch.setattr(standard.spawn, "get_preparation_data", with_stowaway)
    assert run(context.Process(target=sys.exit)) == 0
    assert (tmp_path / "seen").exists()
