"""How many cores a process may use: its affinity, and the CPU quotas of its control groups."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def available_cores(root: Path = Path("/")) -> int:
    """Return how many cores this process may use.

    ``os.cpu_count()`` counts the host's cores: a container limited to two of 64 would start 64
    workers. The quota of every parent group holds too.

    >>> available_cores() >= 1
    True

    Args:
        root: of the file system, in which /proc and /sys are.

    Returns:
        At least 1; a quota is rounded down.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return max(1, min([cores, *map(int, _quotas(root))]))


def _quotas(root: Path) -> Iterator[float]:
    """Yield the quotas of this process's groups and of their parents, in cores."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        # "0::/path" for version 2, "4:cpu,cpuacct:/path" for a controller of version 1.
        _, controllers, path = line.split(":", 2)
        mounts = [""] if not controllers else [controllers, "cpu"]
        if controllers and "cpu" not in controllers.split(","):
            continue
        group = Path(path.lstrip("/"))
        for mount in mounts:
            # A container may see itself as the root of the tree, under a path that is the host's.
            for folder in (group, *group.parents, Path()):
                yield from _quota(root / "sys/fs/cgroup" / mount / folder)


def _quota(folder: Path) -> Iterator[float]:
    """Yield the quota of one group, if it has one."""
    try:
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text(encoding="ascii")
            period = (folder / "cpu.cfs_period_us").read_text(encoding="ascii")
        # Version 2 says "max" and version 1 says -1 where there is no limit.
        if quota != "max" and int(quota) > 0:
            yield int(quota) / int(period)
    except (OSError, ValueError):
        return
