"""So many in so much time."""

import asyncio
from collections import deque


class RateLimit:
    """Lets through `times` entries in any `per` seconds; who comes too early waits, in line.

    >>> limit = RateLimit(10, per=1.0)
    >>> async with limit:
    ...     await fetch()

    Args:
        times: How many.
        per: Seconds.

    Raises:
        ValueError: `times` or `per` is not positive.
    """

    def __init__(self, times, per=1.0):
        if times < 1 or per <= 0:
            raise ValueError(f"a rate must be positive, not {times} in {per} s")
        self._per = per
        # when the last `times` entries were, or will be
        self._entries = deque([float("-inf")] * times)

    async def acquire(self):
        """Waits until it is one's turn."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        # taking the place before waiting keeps the line in order
        turn = max(now, self._entries.popleft() + self._per)
        self._entries.append(turn)
        if turn > now:
            try:
                await asyncio.sleep(turn - now)
            except BaseException:
                self._give_up(turn)
                raise

    def _give_up(self, turn):
        # whoever counted on it already waits for what is now a longer time; the next need not
        if turn in self._entries:
            self._entries.remove(turn)
            self._entries = deque(sorted([*self._entries, turn - self._per]))

    async def __aenter__(self):
        await self.acquire()

    async def __aexit__(self, *_exception):
        return None
