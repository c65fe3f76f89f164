"""The program's end, as the standard executors have it: what was submitted is still done, and
afterwards nothing new is taken. But Ctrl-C means now: whoever ends the program by it, or loses
patience while it waits here for what is left, does not wait for tasks in processes any more.
"""

import os
import sys
import threading
import weakref

_INTERRUPTED = "the process pool was ended by Ctrl-C; calls that were left are lost"

_pools = weakref.WeakKeyDictionary()  # thread that serves a pool -> the pool's handle or queue
shutting_down = False


class ServingThread(threading.Thread):
    """A thread that can be joined again after a join was interrupted: up to Python 3.12 an
    interrupted `Thread.join` takes the thread for ended."""

    def __init__(self, **options):
        super().__init__(**options)
        self._over = threading.Event()

    def run(self):
        try:
            super().run()
        finally:
            self._over.set()

    def join(self, timeout=None):
        elsewhere = self.is_alive() and threading.current_thread() is not self
        if not elsewhere or self._over.wait(timeout):
            super().join(timeout)


def closed_error():
    """Why a pool that is closed takes no more calls."""
    when = "interpreter shutdown" if shutting_down else "shutdown"
    return RuntimeError(f"cannot schedule new futures after {when}")


def watch(thread, pool):
    """At exit, `pool.close(False)` is called, then `thread` is joined."""
    _pools[thread] = pool


def _at_exit():
    global shutting_down
    shutting_down = True
    pools = list(_pools.items())
    at_once, insisted = _ended_by_ctrl_c(), False
    while True:
        try:
            _end(pools, at_once)
            break
        except KeyboardInterrupt:
            at_once = insisted = True
    template = sys.modules.get("oxgang._template")
    if template is not None:
        template.end()
    if insisted and any(thread.is_alive() and not thread.daemon for thread, _ in pools):
        raise KeyboardInterrupt  # or the interpreter waits for the threads that still run
    if at_once:
        _note_ctrl_c()


def _end(pools, at_once):
    """Work off what there is; `at_once`: only what cannot be ended, tasks that threads run."""
    served = []
    for thread, pool in pools:
        kill = getattr(pool, "kill", None)
        if not at_once:
            pool.close(False)
        elif kill is not None:
            kill(_INTERRUPTED)
        else:
            pool.close(True)
        if not at_once or kill is not None:
            served.append(thread)
    for thread in served:
        thread.join()


def _ended_by_ctrl_c():
    """Whether the program ends because nobody caught a KeyboardInterrupt. An interactive session
    notes such things down too, but does not end by them."""
    last = getattr(sys, "last_type", None)
    interrupted = isinstance(last, type) and issubclass(last, KeyboardInterrupt)
    return interrupted and not hasattr(sys, "ps1")


def _note_ctrl_c():
    """Lets the process end as one that Ctrl-C has ended, for the shell to see: the interpreter
    does so if the last source text that it ran was left by a KeyboardInterrupt."""
    try:
        exec("raise KeyboardInterrupt")
    except KeyboardInterrupt:
        return


def _after_fork_in_child():
    # the threads are not here, and the pools are the parent's
    _pools.clear()


# before the interpreter waits for other threads, so that these can end
threading._register_atexit(_at_exit)
os.register_at_fork(after_in_child=_after_fork_in_child)
