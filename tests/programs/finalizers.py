"""Finalizers of processes, contexts of variables, what a fork is told."""

import atexit
import contextvars
import multiprocessing
import threading
from multiprocessing import util

word = contextvars.ContextVar("word", default="default")


class Resource:
    def close(self, where):
        print("closed", where, flush=True)


def child():
    util.Finalize(None, print, args=("finalizer of high priority",), exitpriority=10)
    util.Finalize(None, print, args=("finalizer of low priority",), exitpriority=1)
    print("in the child", flush=True)


def main():
    resource = Resource()
    finalizer = util.Finalize(resource, Resource.close, (resource, "by hand"))
    print(finalizer.still_active())
    finalizer()
    print(finalizer.still_active())
    process = multiprocessing.Process(target=child)
    process.start()
    process.join()
    print(process.exitcode)
    seen = []
    word.set("of the main thread")
    context = contextvars.copy_context()
    for run in (
        lambda: seen.append(word.get()),
        lambda: context.run(lambda: seen.append(word.get())),
    ):
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    print(seen[1])
    atexit.register(print, "the program's own atexit")


if __name__ == "__main__":
    main()
