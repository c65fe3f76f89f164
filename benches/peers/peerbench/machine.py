"""What the numbers were measured on."""

import importlib.metadata
import os
import platform

PACKAGES = (
    "oxgang",
    "numpy",
    "loky",
    "joblib",
    "mpire",
    "pebble",
    "multiprocess",
    "dill",
    "billiard",
    "aiomultiprocess",
    "ray",
    "distributed",
    "faster-fifo",
    "cloudpickle",
)


def describe():
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": _after_colon("/proc/cpuinfo", "model name"),
        "memory": f"{int(_after_colon('/proc/meminfo', 'MemTotal').split()[0]) / 1e6:.0f} GB",
        "kernel": platform.release(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "libc": " ".join(platform.libc_ver()),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
    }


def _after_colon(path, key):
    try:
        with open(path) as f:
            for line in f:
                if line.startswith(key):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return "0 unknown"


def _version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
