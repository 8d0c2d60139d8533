"""Cores and memory that this process may use, of the machine and within its control groups."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_UNLIMITED = 1 << 60
"""Bytes; a version 1 control group without a limit gives a larger number."""


def affinity() -> int:
    """Return the number of cores that this process may be scheduled on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def core_quota(root: Path = Path("/")) -> float | None:
    """Read the CPU quota of this process' control groups.

    Args:
        root: Root of the file system.

    Returns:
        Cores, not necessarily a whole number; None without a limit.
    """
    quotas = []
    for folder in _groups("cpu", root):
        whole = _words(folder / "cpu.max")
        parts = whole or [
            word
            for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            for word in _words(folder / name)
        ]
        quota, period = (_number(word) for word in parts) if len(parts) == 2 else (None, None)
        if quota is not None and period and quota > 0:
            quotas.append(quota / period)
    return min(quotas, default=None)


def memory_limit(root: Path = Path("/")) -> int | None:
    """Return the memory limit of this process' control groups in bytes, None without one."""
    limits = []
    for folder in _groups("memory", root):
        for name in ("memory.max", "memory.limit_in_bytes"):
            limits += [n for word in _words(folder / name) if (n := _number(word)) is not None]
    return min((limit for limit in limits if limit < _UNLIMITED), default=None)


def memory(root: Path = Path("/")) -> tuple[int | None, int | None]:
    """Read the machine's memory.

    Args:
        root: Root of the file system.

    Returns:
        Total and available bytes; None for what the system does not report.
    """
    entries: dict[str, int] = {}
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        name, _, rest = line.partition(":")
        number = _number((rest.split() or [""])[0])
        if number is not None:
            entries[name] = number * 1024
    total = entries.get("MemTotal")
    if total is None and "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return total, entries.get("MemAvailable")


def _groups(controller: str, root: Path) -> Iterator[Path]:
    """Yield the folders of this process' control groups, of version 1 or 2, up to the root.

    In a container the path may be the host's, which does not exist inside: only the root remains.
    """
    base = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        top = base / controller if controllers else base
        folder = top / path.strip("/")
        yield from (path for path in (folder, *folder.parents) if path.is_relative_to(top))


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []


def _number(word: str) -> int | None:
    try:
        return int(word)
    except ValueError:
        return None
