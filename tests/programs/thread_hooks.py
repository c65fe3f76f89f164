"""excepthook, trace and profile functions, stack sizes."""

import sys
import threading

caught = []


def hook(args):
    caught.append((args.exc_type.__name__, str(args.exc_value), args.thread.name))


threading.excepthook = hook
thread = threading.Thread(target=lambda: 1 / 0, name="divider")
thread.start()
thread.join()
threading.excepthook = threading.__excepthook__
print(caught)

quiet = threading.Thread(target=sys.exit)
quiet.start()
quiet.join()

calls = set()


def trace(frame, event, _argument):
    if event == "call":
        calls.add(frame.f_code.co_name)
    return trace


def traced():
    return sum(range(3))


threading.settrace(trace)
print(threading.gettrace() is trace)
thread = threading.Thread(target=traced)
thread.start()
thread.join()
threading.settrace(None)
print("traced" in calls)

calls.clear()
threading.setprofile(lambda frame, event, _argument: calls.add(frame.f_code.co_name))
thread = threading.Thread(target=traced)
thread.start()
thread.join()
threading.setprofile(None)
print("traced" in calls, threading.getprofile())

before = threading.stack_size(256 * 1024)
thread = threading.Thread(target=traced)
thread.start()
thread.join()
print(before, threading.stack_size(0))
print(threading.TIMEOUT_MAX > 1e6, threading.ThreadError is RuntimeError)

thread = threading.Thread(target=lambda: [][0], name="indexer")
thread.start()
thread.join()
print("on stderr: a traceback that names the thread")
