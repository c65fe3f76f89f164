"""What the workers of the scenario `start` run. It imports what an interpreter has anyway: the
program's own imports are the same for everybody, and not what is measured.
"""

import os
import time

MEET_LIMIT_S = 60


def meet(folder, wanted):
    """Return once ``wanted`` different workers are here: proof that all of them are at work."""
    with open(os.path.join(folder, str(os.getpid())), "w"):
        deadline = time.monotonic() + MEET_LIMIT_S
    while len(os.listdir(folder)) < wanted:
        if time.monotonic() > deadline:
            raise TimeoutError(f"only {len(os.listdir(folder))} of {wanted} workers came to work")
        time.sleep(0.0002)
    return os.getpid()
