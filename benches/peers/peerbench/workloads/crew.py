"""Two or more processes (or threads) that start on the same word and are timed together.

Only bare os.pipe ends are used for the signals, so that nothing of the measured
library takes part in the timing. A member is a function that gets `begin`: it calls
begin() when ready, which returns on the starting signal, then does its work and
returns a number.
"""

import os
import struct
import threading
import time

NUMBER = struct.Struct("d")


def run_together(Process, members):
    """(seconds from the signal until all are done, their return values in order)."""
    ready_r, ready_w = os.pipe()
    go_r, go_w = os.pipe()
    done = [os.pipe() for _ in members]

    def body(index, member):
        def begin():
            os.write(ready_w, b".")
            os.read(go_r, 1)

        value = member(begin)
        os.write(done[index][1], NUMBER.pack(float(value)))

    crew = [Process(target=body, args=(i, member)) for i, member in enumerate(members)]
    for one in crew:
        one.start()
    waiting = len(crew)
    while waiting:
        waiting -= len(os.read(ready_r, waiting))
    time.sleep(0.05)  # let them all block on the signal
    start = time.perf_counter()
    os.write(go_w, b"." * len(crew))
    values = [NUMBER.unpack(os.read(r, NUMBER.size))[0] for r, _ in done]
    seconds = time.perf_counter() - start
    for one in crew:
        one.join()
    for end in (ready_r, ready_w, go_r, go_w, *(e for pair in done for e in pair)):
        os.close(end)
    return seconds, values


def is_thread(Process):
    return issubclass(Process, threading.Thread)
