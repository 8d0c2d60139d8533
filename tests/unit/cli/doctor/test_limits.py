"""What control groups and /proc say of cores and memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from av1part.cli.doctor.limits import affinity, core_quota, memory, memory_limit

NONE = "9223372036854771712\n"


def system(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "cores", "size"),
    [
        ({}, None, None),
        # Version 2: the tightest of the group and those around it.
        (
            {
                "proc/self/cgroup": "0::/jobs/one\n",
                "sys/fs/cgroup/jobs/one/cpu.max": "200000 100000\n",
                "sys/fs/cgroup/cpu.max": "max 100000\n",
                "sys/fs/cgroup/jobs/cpu.max": "150000 100000\n",
                "sys/fs/cgroup/jobs/one/memory.max": "4000\n",
                "sys/fs/cgroup/jobs/memory.max": "max\n",
                "sys/fs/cgroup/memory.max": "5000\n",
            },
            1.5,
            4000,
        ),
        # Version 1, in a container: the host's path is not there, the root is the container's.
        (
            {
                "proc/self/cgroup": "5:cpuset:/x\n4:memory:/host/x\n3:cpu,cpuacct:/host/x\n0::/\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "7000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            2.0,
            7000,
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/\n3:cpu:/\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": NONE,
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            None,
            None,
        ),
        ({"proc/self/cgroup": "nonsense", "sys/fs/cgroup/cpu.max": "a b c"}, None, None),
    ],
)
def test_control_groups(
    tmp_path: Path, files: dict[str, str], cores: float | None, size: int | None
) -> None:
    root = system(tmp_path, files)
    assert core_quota(root) == cores
    assert memory_limit(root) == size


def test_memory(tmp_path: Path) -> None:
    text = "MemTotal:  2000 kB\nMemFree: 1 kB\nMemAvailable:  500 kB\nHugePages_Total: 0\n"
    assert memory(system(tmp_path, {"proc/meminfo": text})) == (2000 * 1024, 500 * 1024)


def test_memory_of_a_system_without_proc(tmp_path: Path) -> None:
    total, available = memory(tmp_path)
    assert total is not None
    assert total > 2**28
    assert available is None


def test_this_machine() -> None:
    assert affinity() >= 1
    total, _ = memory()
    assert total is not None
