"""The list of workloads. Each module is imported only when it is asked for, so that a
cell that times imports starts with as little as possible already in memory."""

import importlib

HOMES = {  # workload name -> module, in the order of the report
    "latency": "latency",
    "latency-threads": "latency",
    "throughput": "throughput",
    "throughput-threads": "throughput",
    "cpu": "cpu",
    "data": "data",
    "queue": "queues",
    "queue-threads": "queues",
    "sync": "sync",
    "sync-threads": "sync",
    "startup": "startup",
    "process": "startup",
    "thread": "startup",
    "memory": "memory",
    "memory-shared": "memory",
    "faults": "faults",
}
NAMES = list(HOMES)


def find(name):
    module = importlib.import_module(f"{__name__}.{HOMES[name]}")
    return next(w for w in module.WORKLOADS if w.name == name)
