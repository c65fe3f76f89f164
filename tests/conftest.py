"""What every Python test gets: a watchdog, and a look at what it left behind.

The watchdog: a test that takes longer than its limit fails with the stacks of all threads. The
first alarm interrupts the main thread, which fails that test alone; should the main thread
sit in a call that cannot be interrupted, faulthandler ends the run a little later. The limit
is generous, since it guards against hanging, not slowness; a test that needs another says
``@pytest.mark.watchdog(seconds)``.

Afterwards no child process that the test started may be left, not even a zombie.
"""

import faulthandler
import os
import signal
import sys
import time
from pathlib import Path

import pytest

LIMIT_S = 60
LAST_RESORT_S = 30
GONE_WITHIN_S = 20
# These are kept for the life of the interpreter: the standard library's, and ours.
HELPERS = (
    b"multiprocessing.resource_tracker",
    b"multiprocessing.forkserver",
    b"oxgang-template",
)
_stderr = 2

# a run that was started by nohup, or in the background of a script, ignores these, and so would
# every program of the tests
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)


def _reap_template():
    """A template that a test has killed is reaped when the next one is needed; so, here."""
    module = sys.modules.get("oxgang._template")
    template = module and module._template
    if template is not None and not template.alive():
        template.end()


class Hung(BaseException):
    """The watchdog's. Not an Exception, so that no test or tested code swallows it."""


def pytest_configure(config):
    global _stderr
    _stderr = os.dup(2)  # the real one: output is not captured yet
    config.addinivalue_line("markers", "watchdog(seconds): the limit for this test")


@pytest.fixture(autouse=True)
def watchdog(request):
    mark = request.node.get_closest_marker("watchdog")
    limit = mark.args[0] if mark else LIMIT_S

    def alarm(_signal, _frame):
        os.write(_stderr, f"\n{request.node.nodeid} hangs; all threads:\n".encode())
        faulthandler.dump_traceback(_stderr)
        raise Hung(f"not done after {limit} s; the stacks of all threads are on stderr")

    before = signal.signal(signal.SIGALRM, alarm)
    faulthandler.dump_traceback_later(limit + LAST_RESORT_S, exit=True, file=_stderr)
    signal.setitimer(signal.ITIMER_REAL, limit)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(autouse=True)
def no_child_left(watchdog):
    before = set(children())
    yield
    end = time.monotonic() + GONE_WITHIN_S
    while left := [pid for pid in children() if pid not in before]:
        _reap_template()
        if time.monotonic() > end:
            pytest.fail("left behind: " + ", ".join(describe(pid) for pid in left))
        time.sleep(0.01)  # shutdown(wait=False) may still be at it


def children():
    """Our child processes, but for the helpers that stay."""
    own = str(os.getpid())
    listed = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
    mine = [pid for pid in listed if status_of(pid)[1] == own]
    return [pid for pid in mine if not any(helper in command_of(pid) for helper in HELPERS)]


def status_of(pid):
    """(state, parent's pid), as /proc has them."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return "gone", ""
    state, parent = stat.rpartition(")")[2].split()[:2]
    return state, parent


def command_of(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def describe(pid):
    command = command_of(pid).replace(b"\0", b" ").decode(errors="replace").strip()
    return f"pid {pid} (state {status_of(pid)[0]}) {command}"
