"""What the workers of the demo run; a module of its own, so that they import nothing more."""

import os
import select

import csv_stats

_KILL_LIMIT_S = 60


def nothing(value):
    return value


def summarise(path, victim=None, note=None):
    """Summarise a file; on the victim's first time, report our pid and wait to be killed."""
    if path == victim and _first_time(note):
        select.select([], [], [], _KILL_LIMIT_S)
        raise RuntimeError(f"nobody killed this worker within {_KILL_LIMIT_S} s")
    return csv_stats.stats(path)


class SummariseWithVictim:
    """``summarise`` as a function of one argument, picklable."""

    def __init__(self, victim, note):
        self.victim = victim
        self.note = note

    def __call__(self, path):
        return summarise(path, self.victim, self.note)


def _first_time(note):
    try:
        handle = os.open(note, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return False
    with open(handle, "w") as file:
        file.write(f"{os.getpid()}\n")
    return True
