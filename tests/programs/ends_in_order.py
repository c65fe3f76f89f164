"""What still happens when the main program is over, and in which order."""

import atexit
import concurrent.futures
import sys
import threading
import time

atexit.register(print, "last: what was registered first")
atexit.register(print, "then: what was registered second")


def late():
    time.sleep(0.05)
    print("a thread goes on", threading.main_thread().is_alive(), flush=True)


threading.Thread(target=late).start()
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
pool = concurrent.futures.ThreadPoolExecutor(1)
pool.submit(time.sleep, 0.1)
pool.submit(print, "submitted work is done")
print("the main program is over")
sys.stdout.flush()
