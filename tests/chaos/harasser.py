"""Signals for workers, at random moments: most of them end it, some stop it for a while, some
must not matter at all. Everything that was sent is on record.
"""

import os
import signal
import threading
import time
from collections import Counter

# the interpreter ignores the last two, the worker the first; the others mean nothing by default
HARMLESS = ("SIGINT", "SIGCHLD", "SIGCONT", "SIGURG", "SIGWINCH", "SIGPIPE", "SIGXFSZ")
STOPS = ("SIGSTOP", "SIGTSTP", "SIGTTIN", "SIGTTOU")
MEAN_INTERVAL_S = 0.01
LONGEST_STOP_S = 0.1


def fatal_signals():
    others = {getattr(signal, name) for name in HARMLESS + STOPS}
    # a forked worker handles what this program handles, the tests' watchdog for one
    others |= {number for number in signal.valid_signals() if callable(signal.getsignal(number))}
    return sorted(signal.valid_signals() - others)


class Harasser:
    """Signals workers of the pool that it is aimed at, from a thread of its own."""

    def __init__(self, dice, mean_interval_s=MEAN_INTERVAL_S):
        self.sent = set()  # (process number, signal) of all that may end one
        self.counts = Counter()
        self.templates_killed = 0
        self.failure = None
        self._dice = dice
        self._mean_s = mean_interval_s
        self.pool = None
        self._stopped = []  # (when to go on, process number)
        self._fatal = fatal_signals()
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="harasser", daemon=True)
        self._thread.start()

    def aim(self, pool, with_template=False):
        """At this pool's workers, from now on; None: at nobody. What is stopped goes on."""
        with self._lock:
            self.pool, self._with_template = pool, with_template
            self._continue(all_of_them=True)

    def end(self):
        self._over.set()
        self._thread.join()
        self.aim(None)
        if self.failure is not None:
            raise self.failure

    def _run(self):
        try:
            while not self._over.wait(self._dice.expovariate(1 / self._mean_s)):
                with self._lock:
                    self._continue()
                    if self.pool is not None:
                        self._strike()
        except BaseException as error:
            self.failure = error

    def _strike(self):
        # one that starts is left alone: three that fail in a row break a pool, and rightly so
        workers = self.pool.statistics()["workers"]
        ready = [one["pid"] for one in workers if one["ready"] and one["pid"]]
        if not ready:
            return
        victim, chance = self._dice.choice(ready), self._dice.random()
        if chance < 0.60:
            self._send(victim, signal.SIGKILL)
        elif chance < 0.85:
            self._send(victim, self._dice.choice(self._fatal))
        elif chance < 0.93:
            self._send(victim, getattr(signal, self._dice.choice(STOPS)))
            until = time.monotonic() + self._dice.random() * LONGEST_STOP_S
            self._stopped.append((until, victim))
            if self._dice.random() < 0.3:
                self._send(victim, signal.SIGKILL)
        elif chance < 0.995 or not self._with_template:
            self._send(victim, getattr(signal, self._dice.choice(HARMLESS)))
        else:
            self._kill_template()

    def _kill_template(self):
        from oxgang import _template

        template = _template._template
        if template is not None and template.alive():
            os.kill(template.pid, signal.SIGKILL)
            self.templates_killed += 1

    def _send(self, pid, number):
        # on record before it is sent: its effect may be looked at at once
        self.sent.add((pid, int(number)))
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return  # it was dead already, and has been reaped
        name = signal.Signals(number).name if number in set(signal.Signals) else "real-time"
        self.counts[name] += 1

    def _continue(self, all_of_them=False):
        now = time.monotonic()
        due = [pid for when, pid in self._stopped if all_of_them or when <= now]
        self._stopped = [one for one in self._stopped if one[1] not in due]
        for pid in due:
            try:
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                continue
