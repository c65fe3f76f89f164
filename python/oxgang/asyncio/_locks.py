"""Locks of threads and processes, held by tasks."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

_WAIT_S = 0.05


class held:
    """Holds a lock of any kind within ``async with``, without keeping the loop waiting for it.

    For locks and semaphores of `threading` and `multiprocessing`, the standard ones and oxgang's,
    that another thread than took them may release (not `RLock`, which belongs to its thread, nor
    `Condition`, which has one). A free lock is taken at once; for one that is not, a thread waits.
    A cancelled wait leaves the lock alone.

    >>> async with held(lock):
    ...     ...

    Raises:
        TypeError: it has no `acquire` and `release`, or is an RLock or a Condition.
        oxgang.errors.OwnerDied: of a lock that tells of deaths.
    """

    def __init__(self, lock):
        if not (hasattr(lock, "acquire") and hasattr(lock, "release")):
            raise TypeError(f"{type(lock).__name__} is no lock: it has no acquire() and release()")
        if (kind := _kind_of_a_threads(lock)) is not None:
            raise TypeError(
                f"{kind} belongs to a thread, which all tasks of a loop share; use a Lock"
            )
        self._lock = lock

    async def __aenter__(self):
        lock = self._lock
        if lock.acquire(False):
            return lock
        loop = asyncio.get_running_loop()
        # a thread of its own: waiters of other locks must not keep this one from its turn
        with ThreadPoolExecutor(1, thread_name_prefix="oxgang-held") as thread:
            abandoned = False

            def wait():
                while not abandoned:
                    if lock.acquire(timeout=_WAIT_S):
                        if not abandoned:
                            return True
                        lock.release()
                return False

            taken = loop.run_in_executor(thread, wait)
            try:
                await asyncio.shield(taken)
            except asyncio.CancelledError:
                abandoned = True
                if await _settled(taken):
                    lock.release()
                raise
        return lock

    async def __aexit__(self, *_exception):
        self._lock.release()


def _kind_of_a_threads(lock):
    """What it is, if only the thread that took it may release it."""
    if hasattr(lock, "notify"):
        return "a Condition"
    recursive = hasattr(lock, "_is_owned") or getattr(lock, "_recursive", False)
    return "an RLock" if recursive or type(lock).__name__ == "RLock" else None


async def _settled(taken):
    while not taken.done():
        try:
            return await asyncio.shield(taken)
        except asyncio.CancelledError:
            continue  # within a slice it is over
    return taken.result()
