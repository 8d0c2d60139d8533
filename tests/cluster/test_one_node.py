"""The cluster that the tests start does what a cluster does."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def eventually(condition: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.2)


@pytest.mark.slow
def test_a_job_is_signalled_requeued_and_cancelled(slurm: Any, tmp_path: Path) -> None:
    out = tmp_path / "out.txt"
    script = "trap 'echo asked; exit 0' USR1; echo begun; while true; do sleep 0.1; done"
    words = ("sbatch", "--parsable", "--requeue", "--open-mode=append", f"--output={out}")
    job = slurm.run(*words, f"--wrap={script}").stdout.strip()
    eventually(lambda: out.is_file() and out.read_text() == "begun\n")
    assert slurm.jobs() == {job: "RUNNING"}
    slurm.run("scontrol", "requeue", job)
    eventually(lambda: out.read_text().count("begun") == 2)
    slurm.run("scancel", "--batch", "--signal=USR1", job)
    slurm.wait_until_empty()
    assert out.read_text().endswith("asked\n")
    slurm.run("sbatch", "--wrap=sleep 600")
    slurm.clear()
    assert slurm.jobs() == {}


@pytest.mark.slow
def test_an_array_runs_side_by_side_as_far_as_it_may(slurm: Any, tmp_path: Path) -> None:
    words = ("--array=0-3%2", f"--output={tmp_path}/%a.txt", "--wrap=sleep 2; env")
    slurm.run("sbatch", "--gpus-per-node=0", *words)
    eventually(lambda: sorted(slurm.jobs().values()).count("RUNNING") == 2)
    assert list(slurm.jobs().values()).count("PENDING") == 2
    slurm.wait_until_empty()
    told = [(tmp_path / f"{i}.txt").read_text() for i in range(4)]
    assert all(f"SLURM_ARRAY_TASK_ID={i}\n" in text for i, text in enumerate(told))


def test_it_says_why_it_cannot_start(
    one_node: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(one_node.UnavailableError, match="needs root"), one_node.one_node():
        pass
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(one_node, "_path", lambda: str(tmp_path))
    with (
        pytest.raises(one_node.UnavailableError, match="apt install slurmctld"),
        one_node.one_node(),
    ):
        pass


@pytest.mark.slow
def test_it_leaves_nothing_behind(one_node: ModuleType, slurm: Any) -> None:
    with one_node.one_node() as other:
        other.run("sbatch", "--wrap=sleep 600")
        assert len(other.jobs()) == 1
        assert slurm.jobs() == {}
    assert not other.folder.exists()
    assert str(other.folder) not in slurm.run("ps", "axww").stdout
    with (
        pytest.raises(one_node.UnavailableError, match="NoSuchThing"),
        one_node.one_node(SelectType="select/NoSuchThing"),
    ):
        pass


@pytest.mark.slow
def test_it_may_have_more_nodes(one_node: ModuleType) -> None:
    with one_node.one_node(nodes=2, cpus=1, gpus=1) as cluster:
        said = cluster.run("srun", "--nodes=2", "--gpus-per-node=1", "printenv", "SLURMD_NODENAME")
        assert len(set(said.stdout.split())) == 2
