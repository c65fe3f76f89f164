"""usable_cpus on made-up trees, one per way a kernel or a container presents its quotas."""

import math
import os

import pytest
from oxgang import _cpus
from oxgang._cpus import usable_cpus

V2_MOUNT = "30 23 0:26 {root} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n"
V1_MOUNT = "32 31 0:29 {root} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
V1_OTHER = "33 31 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Write a tree, given its files; sixteen processors are allowed by affinity."""
    monkeypatch.setattr(_cpus, "_affinity", lambda: 16)

    def write(files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


def v2(files, *, group="/", root="/"):
    return {
        "proc/self/cgroup": f"0::{group}\n",
        "proc/self/mountinfo": V2_MOUNT.format(root=root),
        **{f"sys/fs/cgroup/{name}": text for name, text in files.items()},
    }


def v1(files, *, group="/", root="/"):
    return {
        "proc/self/cgroup": f"4:memory:/elsewhere\n3:cpu,cpuacct:{group}\n",
        "proc/self/mountinfo": V1_OTHER + V1_MOUNT.format(root=root),
        **{f"sys/fs/cgroup/cpu,cpuacct/{name}": text for name, text in files.items()},
    }


def test_without_any_file_affinity_decides(tree):
    assert usable_cpus(tree({})) == 16


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("200000 100000\n", 2),
        ("250000 100000\n", 3),  # rounded up
        ("10000 100000\n", 1),  # a tenth of one is still a worker
        ("6400000 100000\n", 16),  # more than there are
        ("max 100000\n", 16),
        ("", 16),
        ("100000\n", 16),
        ("0 100000\n", 16),
        ("100000 0\n", 16),
        ("what is this\n", 16),
    ],
)
def test_v2_quota(tree, text, expected):
    assert usable_cpus(tree(v2({"cpu.max": text}))) == expected


def test_v2_takes_the_tightest_on_the_way_up(tree):
    files = {
        "cpu.max": "1200000 100000\n",
        "a/cpu.max": "300000 100000\n",
        "a/b/cpu.max": "max 100000\n",
        "a/b/c/cpu.max": "700000 100000\n",
        "other/cpu.max": "100000 100000\n",
    }
    assert usable_cpus(tree(v2(files, group="/a/b/c"))) == 3


def test_v2_the_top_of_the_mount_counts(tree):
    files = {"cpu.max": "200000 100000\n", "a/cpu.max": "max 100000\n"}
    assert usable_cpus(tree(v2(files, group="/a"))) == 2


def test_container_that_mounts_its_own_group(tree):
    files = {"cpu.max": "200000 100000\n"}
    inside = v2(files, group="/docker/12ab", root="/docker/12ab")
    assert usable_cpus(tree(inside)) == 2


def test_group_outside_of_what_is_mounted(tree):
    files = {"cpu.max": "200000 100000\n"}
    assert usable_cpus(tree(v2(files, group="/../other"))) == 2


@pytest.mark.parametrize(
    ("quota", "period", "expected"),
    [("150000\n", "100000\n", 2), ("-1\n", "100000\n", 16), ("50000\n", "", 16)],
)
def test_v1_quota(tree, quota, period, expected):
    files = {"cpu.cfs_quota_us": quota, "cpu.cfs_period_us": period}
    assert usable_cpus(tree(v1(files))) == expected


def test_v1_takes_the_tightest_on_the_way_up(tree):
    files = {
        "a/cpu.cfs_quota_us": "200000\n",
        "a/cpu.cfs_period_us": "50000\n",
        "a/b/cpu.cfs_quota_us": "-1\n",
        "a/b/cpu.cfs_period_us": "50000\n",
    }
    assert usable_cpus(tree(v1(files, group="/a/b"))) == 4


def test_both_generations_at_once(tree):
    both = v1({"cpu.cfs_quota_us": "500000\n", "cpu.cfs_period_us": "100000\n"})
    both["proc/self/cgroup"] += "0::/\n"
    both["proc/self/mountinfo"] += V2_MOUNT.format(root="/").replace(
        "/sys/fs/cgroup ", "/sys/fs/cgroup/unified "
    )
    assert usable_cpus(tree(both)) == 5


def test_mount_point_with_a_space(tree):
    files = {
        "proc/self/cgroup": "0::/\n",
        "proc/self/mountinfo": V2_MOUNT.format(root="/").replace("/sys/fs/", "/sys/odd\\040name/"),
        "sys/odd name/cgroup/cpu.max": "300000 100000\n",
    }
    assert usable_cpus(tree(files)) == 3


@pytest.mark.parametrize("text", ["", "\n", "garbage\n", "1 2 3 - \n", "1 2 3 4 5 6 -\n"])
def test_mountinfo_in_no_known_form_sets_no_limit(tree, text):
    files = v2({"cpu.max": "200000 100000\n"}) | {"proc/self/mountinfo": text}
    assert usable_cpus(tree(files)) == 16


def test_here():
    allowed = len(os.sched_getaffinity(0))
    assert 1 <= usable_cpus() <= allowed


def test_affinity_is_honoured():
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert usable_cpus() == 1
    finally:
        os.sched_setaffinity(0, before)


def test_rounding_is_up(tree):
    for quota in (100_000, 100_001, 199_999):
        files = v2({"cpu.max": f"{quota} 100000\n"})
        assert usable_cpus(tree(files)) == math.ceil(quota / 100_000)


def test_a_process_pool_follows_the_quota(monkeypatch):
    from oxgang.concurrent.futures import ProcessPoolExecutor

    monkeypatch.setattr(_cpus, "usable_cpus", lambda: 1)
    with ProcessPoolExecutor() as pool:
        assert pool._max_workers == 1
    with ProcessPoolExecutor(3) as pool:
        assert pool._max_workers == 3
