"""The rest of the names that the modules have."""

import concurrent.futures
import concurrent.futures.process
import concurrent.futures.thread
import importlib
import inspect
import multiprocessing
import multiprocessing.connection
import multiprocessing.context
import multiprocessing.managers
import multiprocessing.pool
import multiprocessing.process
import multiprocessing.queues
import multiprocessing.reduction
import multiprocessing.shared_memory
import multiprocessing.sharedctypes
import multiprocessing.spawn
import multiprocessing.synchronize
import multiprocessing.util
import pydoc
import queue
import sys
import threading
from unittest import mock

for module in (threading, queue, multiprocessing, concurrent.futures):
    missing = [name for name in module.__all__ if not hasattr(module, name)]
    print(missing, inspect.ismodule(module))
for name in ("multiprocessing.pool", "concurrent.futures.thread", "queue"):
    print(importlib.import_module(name) is sys.modules[name])
print(issubclass(multiprocessing.ProcessError, Exception))
print(issubclass(multiprocessing.TimeoutError, multiprocessing.ProcessError))
print(issubclass(multiprocessing.AuthenticationError, multiprocessing.ProcessError))
print(issubclass(concurrent.futures.thread.BrokenThreadPool, concurrent.futures.BrokenExecutor))
print(multiprocessing.cpu_count() >= 1, multiprocessing.get_start_method(allow_none=True) is None)
print(isinstance(multiprocessing.Process(), multiprocessing.process.BaseProcess))
print(isinstance(multiprocessing.Queue(), multiprocessing.queues.Queue))
print(isinstance(multiprocessing.Lock(), multiprocessing.synchronize.Lock))
print(isinstance(multiprocessing.get_context("spawn"), multiprocessing.context.BaseContext))
print(bool(pydoc.plain(pydoc.render_doc(queue.Queue))))
with mock.patch("threading.Thread") as fake:
    threading.Thread(target=print)
print(fake.call_count, isinstance(threading.Thread(), threading.Thread))
with mock.patch.object(multiprocessing, "cpu_count", return_value=64):
    print(multiprocessing.cpu_count())
signature = inspect.signature(concurrent.futures.ThreadPoolExecutor)
print(list(signature.parameters)[:4])
try:
    threading.no_such_thing
except AttributeError as error:
    print(error)
try:
    import multiprocessing.no_such_part
except ModuleNotFoundError as error:
    print(error)
