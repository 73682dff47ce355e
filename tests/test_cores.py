from __future__ import annotations

from pathlib import Path

import pytest

from inkdigits import cores
from inkdigits.cores import available_cores


@pytest.fixture(autouse=True)
def sixteen_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores.os, "sched_getaffinity", lambda _: set(range(16)), raising=False)


def tree(root: Path, groups: str, files: dict[str, str]) -> Path:
    for name, content in {"proc/self/cgroup": groups, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")
    return root


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/", {"sys/fs/cgroup/cpu.max": "max 100000"}, 16),
        ("0::/", {"sys/fs/cgroup/cpu.max": "250000 100000"}, 2),
        ("0::/", {"sys/fs/cgroup/cpu.max": "50000 100000"}, 1),
        (
            "0::/pod/box",
            {
                "sys/fs/cgroup/pod/cpu.max": "300000 100000",
                "sys/fs/cgroup/pod/box/cpu.max": "max 100000",
            },
            3,
        ),
        ("0::/of/the/host", {"sys/fs/cgroup/cpu.max": "400000 100000"}, 4),
        (
            "5:memory:/box\n4:cpu,cpuacct:/box",
            {
                "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_quota_us": "200000",
                "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_period_us": "100000",
            },
            2,
        ),
        (
            "4:cpu,cpuacct:/docker/of/the/host",
            {
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "600000",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            6,
        ),
        (
            "4:cpu:/",
            {
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            16,
        ),
        ("0::/", {"sys/fs/cgroup/cpu.max": "nonsense"}, 16),
    ],
    ids=[
        *("no quota", "a quota", "less than a core", "of a parent", "of a container's root"),
        *("version 1", "version 1 in a container", "version 1 without", "unreadable"),
    ],
)
def test_quota_of_a_group_or_of_its_parent_limits_the_cores(
    tmp_path: Path, groups: str, files: dict[str, str], expected: int
) -> None:
    assert available_cores(tree(tmp_path, groups, files)) == expected


def test_system_without_groups_has_all_cores(tmp_path: Path) -> None:
    assert available_cores(tmp_path) == 16
