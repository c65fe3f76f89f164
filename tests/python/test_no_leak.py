"""A hundred gigabytes through one pool: what it uses is what it used after the first few."""

import gc

import calls
import numpy
from oxgang.concurrent.futures import ProcessPoolExecutor

SIZE = 10_000_000
TASKS, WARM_UP, WORKERS, AT_ONCE = 10_000, 300, 2, 4

# How much more memory the end may show than the beginning. Which worker takes how many of the tasks
# at hand is chance, so each process may come to use up to `AT_ONCE` blocks more in its segment than
# it did while it warmed up; allocator and interpreter get a few MB. A leak of one task in a hundred
# would show a thousand MB.
SLACK = AT_ONCE * SIZE + 8_000_000


def footprints(pool):
    """Of this process and of each worker, by pid."""
    seen = {}
    while len(seen) < WORKERS:
        for one in pool.map(calls.footprint_after_a_nap, range(2 * WORKERS)):
            seen[one[0]] = one[1:]
    gc.collect()
    own = calls.footprint()
    return {"owner": own[1:], **dict(sorted(seen.items()))}


def run(pool, count, arrays):
    waiting = []
    for number in range(count):
        waiting.append((number, pool.submit(calls.turned, arrays[number % 2])))
        if len(waiting) == AT_ONCE:
            for sent, future in waiting:
                back = future.result()
                assert back[0] == back[-1] == (255, 254)[sent % 2]
            del back, future
            waiting.clear()


def test_ten_thousand_tasks_of_ten_megabytes_each_way():
    arrays = [numpy.full(SIZE, value, "u1") for value in (0, 1)]
    with ProcessPoolExecutor(WORKERS) as pool:
        run(pool, WARM_UP, arrays)
        before = footprints(pool)
        run(pool, TASKS, arrays)
        after = footprints(pool)
        assert pool.statistics()["held_bytes"] == 0
    assert before.keys() == after.keys()
    for who, (rss, pss, descriptors, memfds, mappings) in before.items():
        now = after[who]
        assert now[0] <= rss + SLACK and now[1] <= pss + SLACK, (who, before, after)
        assert now[2:4] == (descriptors, memfds), (who, before, after)
        # the allocator's arenas come and go; a view that is left is one mapping per task
        assert now[4] <= mappings + 20, (who, before, after)
