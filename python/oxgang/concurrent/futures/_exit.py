"""The program's end, as the standard executors have it: what was submitted is still done, and
afterwards nothing new is taken.
"""

import os
import sys
import threading
import weakref

_pools = weakref.WeakKeyDictionary()  # thread that serves a pool -> the pool's handle or queue
shutting_down = False


def watch(thread, pool):
    """At exit, `pool.close(False)` is called, then `thread` is joined."""
    _pools[thread] = pool


def _at_exit():
    global shutting_down
    shutting_down = True
    pools = list(_pools.items())
    for _, pool in pools:
        pool.close(False)
    for thread, _ in pools:
        thread.join()
    template = sys.modules.get("oxgang._template")
    if template is not None:
        template.end()


def _after_fork_in_child():
    # the threads are not here, and the pools are the parent's
    _pools.clear()


# before the interpreter waits for other threads, so that these can end
threading._register_atexit(_at_exit)
os.register_at_fork(after_in_child=_after_fork_in_child)
