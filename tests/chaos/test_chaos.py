"""Many tasks, many faults, exact accounts: see storm.py.

Random, by a seed that is in the test's name; ``OXGANG_SEED=N pytest tests/chaos`` replays one (and
runs only that one). ``OXGANG_STORM_TASKS=N`` says how many tasks a storm has; the long ones are
`dev.py deep`, or ``python -m tests.chaos --minutes 30``.
"""

import os
import random
import resource

import pytest
from storm import Storm

TASKS = int(os.environ.get("OXGANG_STORM_TASKS", "10000"))
SEEDS = [int(os.environ["OXGANG_SEED"])] if "OXGANG_SEED" in os.environ else [1, 2, 3]
FRESH = [] if "OXGANG_SEED" in os.environ else [random.SystemRandom().randrange(10**6)]


@pytest.fixture
def no_core_files():
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, before[1]))  # many signals would write one
    yield
    resource.setrlimit(resource.RLIMIT_CORE, before)


@pytest.mark.watchdog(300 + TASKS // 100)
@pytest.mark.parametrize("seed", SEEDS + FRESH)
def test_exact_accounts(seed, tmp_path, no_core_files):
    storm = Storm(seed, tmp_path)
    storm.run(TASKS)
    print(storm)
    assert storm.tasks == TASKS
    # it was one: there were faults of all kinds, and they were met
    assert storm.outcomes["result"] > TASKS / 2
    assert min(storm.outcomes[kind] for kind in ("failure", "died", "lost")) > 0
    assert storm.harasser.counts["SIGKILL"] > 0
