"""multiprocessing.pool.ThreadPool and multiprocessing.dummy."""

import multiprocessing.dummy
import multiprocessing.pool
import threading
from multiprocessing.pool import ThreadPool

with ThreadPool(3) as pool:
    print(pool.map(lambda n: n + 1, range(5)))
    print(sorted(pool.imap_unordered(str, range(4))), list(pool.imap(abs, [-1, -2])))
    print(pool.apply(divmod, (17, 5)), pool.starmap(max, [(1, 2), (4, 3)]))
    print(pool.apply_async(threading.active_count).get() > 1)

with multiprocessing.dummy.Pool(2) as pool:
    print(pool.map(len, ["a", "bc"]), isinstance(pool, multiprocessing.pool.ThreadPool))
queue = multiprocessing.dummy.Queue()
process = multiprocessing.dummy.Process(target=queue.put, args=("from a thread",))
process.start()
process.join()
print(queue.get(), process.exitcode)
