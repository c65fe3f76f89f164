"""Known answers for the harness itself: python -m unittest (about a minute, Linux)."""

import argparse
import os
import subprocess
import sys
import time
import unittest

from peerbench import contenders, procs, report, runner, stats, workloads
from peerbench.report_line import clean
from peerbench.timing import TimeIsUp, sample, time_limit
from peerbench.workloads import cpu
from peerbench.workloads.crew import run_together
from peerbench.workloads.faults import BAD, CASES, FAIR, GOOD


class Numbers(unittest.TestCase):
    def test_ratio_above_one_is_better_for_times_and_rates(self):
        self.assertEqual(stats.ratio(1.0, 2.0, bigger_is_better=False), 2.0)
        self.assertEqual(stats.ratio(200, 100, bigger_is_better=True), 2.0)

    def test_ratios_pair_the_same_round_of_the_same_run_only(self):
        mine = {(0, 1): 1.0, (0, 2): 4.0, (1, 1): 1.0}
        theirs = {(0, 1): 2.0, (0, 2): 2.0, (2, 1): 9.0}
        self.assertEqual(sorted(stats.ratios(mine, theirs, False)), [0.5, 2.0])

    def test_units(self):
        self.assertEqual(report.show(0.000123, "s"), "123 µs")
        self.assertEqual(report.show(1.5, "s"), "1.50 s")
        self.assertEqual(report.show(20_000, "/s"), "20.0 k/s")

    def test_messages_lose_paths_and_addresses(self):
        text = clean(
            'Traceback (most recent call last):\n File "/a/b.py"\n'
            "TypeError: no <x at 0x7f00aa> in /home/u/x"
        )
        self.assertEqual(text, "TypeError: no <x at 0x…> in <path>")

    def test_every_reference_exists_and_every_workload_has_metrics_or_cases(self):
        for name in workloads.NAMES:
            workload = workloads.find(name)
            workload.contender(workload.reference)
            self.assertTrue(workload.metrics or workload.cases)


class Work(unittest.TestCase):
    def test_primes_are_prime_and_pareto_keeps_its_total(self):
        for n in cpu.primes(3):
            self.assertTrue(all(n % d for d in range(2, 60_000)))
        sizes = cpu.pareto_steps(300, 1_000_000)
        self.assertAlmostEqual(sum(sizes), 1_000_000, delta=300)
        self.assertLess(max(sizes), 0.1 * sum(sizes))


class Clocks(unittest.TestCase):
    def test_time_limit(self):
        start = time.monotonic()
        with self.assertRaises(TimeIsUp), time_limit(0.2):
            time.sleep(5)
        self.assertLess(time.monotonic() - start, 1)

    def test_sample_stops_in_time(self):
        self.assertLess(len(sample(lambda i: time.sleep(0.05), 1000, at_most=0.3)), 10)

    def test_crew_is_timed_from_the_signal_to_the_last_member(self):
        import multiprocessing

        def member(seconds):
            def work(begin):
                time.sleep(0.3)  # slow to get ready: must not count
                begin()
                time.sleep(seconds)
                return seconds

            return work

        seconds, values = run_together(
            multiprocessing.get_context("fork").Process, [member(0.1), member(0.2)]
        )
        self.assertEqual(values, [0.1, 0.2])
        self.assertTrue(0.2 <= seconds < 0.3, seconds)


class Processes(unittest.TestCase):
    def test_descendants_and_cpu(self):
        cpu_before = procs.tree_cpu()
        child = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "import os, time\n"
                "if os.fork() == 0:\n"
                "    while time.process_time() < 0.5: pass\n"
                "time.sleep(60)",
            ]
        )
        try:
            used, deadline = 0, time.monotonic() + 20
            while used < 0.5 and time.monotonic() < deadline:
                time.sleep(0.1)
                used = procs.tree_cpu() - cpu_before
            below = {p.pid for p in procs.descendants(os.getpid())}
        finally:
            procs.end_all_below(os.getpid())
            child.wait()
        self.assertIn(child.pid, below)
        self.assertEqual(len(below), 2)
        self.assertTrue(0.5 <= used < 0.8, used)
        self.assertEqual(procs.descendants(os.getpid()), [])


class KnownFaults(unittest.TestCase):
    """The stdlib's behaviour is well known: the harness must see it."""

    @classmethod
    def setUpClass(cls):
        runner.prepare()
        cls.options = argparse.Namespace(
            quick=True, workers=2, keep_output=None, own_shm=runner.can_have_own_shm()
        )

    def verdict(self, case, name):
        record = runner.run_cell(
            workloads.find("faults"),
            name,
            contenders.find(name),
            self.options,
            1,
            case,
            CASES[case].watch,
        )
        self.assertEqual(procs.descendants(os.getpid()), [], "the runner must clean up")
        return CASES[case].judge(record)

    def test_a_killed_worker_breaks_the_executor(self):
        grade, text = self.verdict("worker-killed", "stdlib-ppe-fork")
        self.assertEqual(grade, FAIR)
        self.assertIn("BrokenProcessPool", text)

    def test_an_unloadable_exception_hangs_the_pool(self):
        grade, text = self.verdict("bad-exception", "stdlib-pool-fork")
        self.assertEqual(grade, BAD)
        self.assertIn("hang", text)

    def test_an_unpicklable_argument_is_reported(self):
        self.assertEqual(self.verdict("bad-argument", "stdlib-pool-fork")[0], GOOD)

    def test_busy_workers_outlive_a_killed_parent(self):
        grade, text = self.verdict("parent-killed", "stdlib-ppe-fork")
        self.assertEqual(grade, BAD)
        self.assertIn("2 workers", text)

    def test_executors_nest_and_pools_do_not(self):
        self.assertEqual(self.verdict("nested", "stdlib-ppe-fork")[0], GOOD)
        self.assertEqual(self.verdict("nested", "stdlib-pool-fork")[0], FAIR)


if __name__ == "__main__":
    unittest.main()
