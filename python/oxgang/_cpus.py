"""How many processors this process may really use.

`os.cpu_count()` tells what the machine has. A container with a quota of two processors on a
machine of sixty-four would start sixty-four workers and have them all throttled. So the
answer is the smallest of: what the scheduler allows (affinity; from Python 3.13 also
``PYTHON_CPU_COUNT``), and the processor quota of the control group and of every group
above it, rounded up. Never below one.

Both generations of control groups are read where the kernel says they are mounted. What is
missing or unreadable sets no limit: on another system, or in a sandbox without ``/proc``, the
affinity alone decides.
"""

import math
import os
from pathlib import Path, PurePosixPath


def usable_cpus(root: str | os.PathLike = "/") -> int:
    """The number of workers that can compute at the same time here (at least 1).

    `root` is where the file system begins, for tests with made-up trees.
    """
    quota = _cgroup_quota(Path(root))
    allowed = _affinity()
    if quota is not None:
        allowed = min(allowed, math.ceil(quota))
    return max(1, allowed)


def _affinity():
    if hasattr(os, "process_cpu_count"):  # Python 3.13; it honours PYTHON_CPU_COUNT too
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cgroup_quota(root):
    """The tightest quota on the way from our control group up, in processors, or None."""
    groups = _own_groups(root)
    quotas = []
    for kind, mount_root, mount_point in _mounts(root):
        if kind in groups:
            read = _quota_v2 if kind == "cgroup2" else _quota_v1
            top = root / mount_point.relative_to("/")
            for folder in _upwards(top, groups[kind], mount_root):
                quota = read(folder)
                if quota is not None:
                    quotas.append(quota)
    return min(quotas, default=None)


def _own_groups(root):
    """`{"cgroup2": path, "cgroup": path}` of this process, as far as they exist."""
    groups = {}
    for line in _lines(root / "proc/self/cgroup"):
        hierarchy, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if hierarchy == "0" and not controllers:
            groups["cgroup2"] = PurePosixPath(path)
        elif "cpu" in controllers.split(","):
            groups["cgroup"] = PurePosixPath(path)
    return groups


def _mounts(root):
    """Each mounted hierarchy that can hold a quota: (kind, root of the mount, mount point)."""
    for line in _lines(root / "proc/self/mountinfo"):
        before, dash, after = line.partition(" - ")
        fields, (kind, *rest) = before.split(), after.split() or [""]
        if not dash or len(fields) < 5:
            continue
        options = rest[-1].split(",") if rest else []
        if kind == "cgroup2" or (kind == "cgroup" and "cpu" in options):
            yield kind, PurePosixPath(_unescaped(fields[3])), PurePosixPath(_unescaped(fields[4]))


def _upwards(top, group, mount_root):
    """The folders from our group up to the top of the mount.

    Inside a container the mount often shows only a part of the hierarchy, while
    ``/proc/self/cgroup`` still gives the path from outside. A path that the mount does not
    show means that the top of the mount is the nearest group we can see.
    """
    try:
        below = group.relative_to(mount_root)
    except ValueError:
        below = PurePosixPath()
    if ".." in below.parts:
        below = PurePosixPath()
    folder = top / below
    while folder != top:
        yield folder
        folder = folder.parent
    yield top


def _quota_v2(folder):
    """`cpu.max` holds "quota period" in microseconds; "max" means no limit."""
    fields = " ".join(_lines(folder / "cpu.max")).split()
    if len(fields) == 2 and fields[0] != "max":
        return _ratio(*fields)
    return None


def _quota_v1(folder):
    """Two files; a quota of -1 means no limit."""
    quota = "".join(_lines(folder / "cpu.cfs_quota_us")).strip()
    period = "".join(_lines(folder / "cpu.cfs_period_us")).strip()
    return _ratio(quota, period)


def _ratio(quota, period):
    if quota.isdecimal() and period.isdecimal() and int(quota) > 0 and int(period) > 0:
        return int(quota) / int(period)
    return None


def _unescaped(field):
    """mountinfo writes a space, a tab, a newline and a backslash as octal escapes."""
    for code, char in (("040", " "), ("011", "\t"), ("012", "\n"), ("134", "\\")):
        field = field.replace("\\" + code, char)
    return field


def _lines(path):
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []  # not there, or not ours to read: it sets no limit
