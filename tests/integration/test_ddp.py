"""Several processes train and validate as one does; gloo on the CPU stands for nccl on GPUs."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from av1part import embedded
from av1part.data.serve.datamodule import BlockDataModule
from av1part.data.serve.superblocks import SuperblockDataModule

from .conftest import Command

TWO = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")
CHILD = Path(__file__).with_name("ddp_child.py")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def even_batches(count: int) -> int:
    """Find a batch size at which two processes' first batches are the first batch of one."""
    for batches in range(2, count):
        size = -(-count // batches)
        small, large = divmod(count, 2 * batches)
        if -(-count // size) == batches and (large == 0 or large > batches):
            assert 2 * (small + (large > 0)) == count // batches + (count % batches > 0)
            return size
    raise AssertionError(count)


@pytest.fixture(scope="module")
def alike(
    on_small: tuple[str, ...],
    small_store: Path,
    stage1: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Path]:
    """What one and two processes leave that train the same epoch at the same global batch."""
    data = BlockDataModule(small_store, stage="stage2", split_list=embedded.SPLIT_LIST)
    size = even_batches(len(data.reader("train")))
    words = ("train", "stage=stage2", "method=adapter", f"stage1={stage1}", *on_small)
    words += ("head.dropout=0", "adapter.dropout=0", "trainer.max_epochs=1")
    folders = []
    for name, more in (
        ("one", (f"data.batch_size={size}",)),
        ("two", (f"data.batch_size={-(-size // 2)}", *TWO)),
    ):
        out = tmp_path_factory.mktemp(name)
        command = [sys.executable, CHILD, out, *words, *more]
        ran = subprocess.run(
            command, cwd=out, env=ENVIRONMENT, capture_output=True, text=True, timeout=600
        )
        assert ran.returncode == 0, ran.stderr[-3000:]
        folders.append(out)
    return folders[0], folders[1]


def children(pid: int) -> list[int]:
    """Return the further processes of a run."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(each) for each in found if b"train" in Path(f"/proc/{each}/cmdline").read_bytes()]


def gone(pid: int) -> None:
    """Wait until a process has ended."""
    until = time.monotonic() + 60
    while Path(f"/proc/{pid}").exists() and time.monotonic() < until:
        if " Z " in Path(f"/proc/{pid}/stat").read_text():
            return
        time.sleep(0.1)
    assert not Path(f"/proc/{pid}").exists()


def load(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.mark.slow
def test_the_gradients_of_a_step_are_those_of_one_process(alike: tuple[Path, Path]) -> None:
    one, two = (torch.load(f / "gradients.pt", weights_only=True) for f in alike)
    assert one.keys() == two.keys()
    assert all(name.startswith(("classifier.adapters", "classifier.head")) for name in one)
    apart = {n: float((one[n] - two[n]).abs().max() / one[n].abs().max()) for n in one}
    print(f"largest difference, by the largest of its tensor: {max(apart.values()):.1e}")
    for name in one:
        assert torch.allclose(one[name], two[name], rtol=1e-5, atol=1e-5 * one[name].abs().max()), (
            name
        )
    assert max(float(g.abs().max()) for g in one.values()) > 1e-3


@pytest.mark.slow
def test_every_node_comes_once_an_epoch(alike: tuple[Path, Path]) -> None:
    one, two = (
        [f.read_text().split() for f in sorted(folder.glob("nodes-*.txt"))] for folder in alike
    )
    assert (len(one), len(two)) == (1, 2)
    assert len(one[0]) == len(set(one[0]))
    assert sorted(two[0] + two[1]) == sorted(one[0])


@pytest.mark.slow
def test_validation_is_that_of_one_process(alike: tuple[Path, Path], av1part: Command) -> None:
    folder = alike[1]
    best = next(folder.glob("runs/*/checkpoints/best.ckpt"))
    assert av1part("validate", best, "out=alone").code == 0
    alone, shared = load(Path("alone/metrics.json")), load(folder / "validation.json")
    assert shared["confusion_matrix"] == alone["confusion_matrix"]
    scores = ("macro_f1", "accuracy", "weighted_f1", "balanced_accuracy")
    apart = max(abs(shared[key] - alone[key]) for key in scores)
    print(f"largest difference of {len(scores)} scores: {apart:.1e}")
    assert apart <= 1e-6
    # One step after the other, the two trainings end where their rounding allows.
    losses = [load(each / "validation.json")["val_loss"] for each in alike]
    assert losses[0] == pytest.approx(losses[1], abs=1e-3)


@pytest.fixture
def long_run(on_small: tuple[str, ...], tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A run of two processes that has begun to train."""
    words = ("train", "stage=stage1", *on_small, *TWO, "trainer.max_epochs=1000", "name=two")
    words += ("callbacks.patience=null",)
    script = Path(sys.executable).with_name("av1part")
    scontrol = tmp_path / "bin" / "scontrol"  # a slow controller
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\nsleep 2\necho "$@" >> {tmp_path}/asked\n')
    scontrol.chmod(0o755)
    job = {"SLURM_JOB_ID": "7", "PATH": f"{scontrol.parent}{os.pathsep}{os.environ['PATH']}"}
    with subprocess.Popen(
        [script, *words],
        cwd=tmp_path,
        env={**ENVIRONMENT, **job},
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        begun, until = tmp_path / "runs/two/history.csv", time.monotonic() + 300
        while not begun.exists():
            assert run.poll() is None, run.stderr and run.stderr.read()
            assert time.monotonic() < until
            time.sleep(0.1)
        yield run
        if run.poll() is None:
            for each in (*children(run.pid), run.pid):
                os.kill(each, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("dies", ["first", "second"])
def test_a_dead_process_ends_the_run(long_run: subprocess.Popen[str], dies: str) -> None:
    second = children(long_run.pid)[0]
    os.kill(long_run.pid if dies == "first" else second, signal.SIGKILL)
    _, said = long_run.communicate(timeout=60)
    gone(second)
    if dies == "first":
        assert long_run.returncode == -signal.SIGKILL
    else:
        assert long_run.returncode == 1
        told = [line for line in said.splitlines() if "process 1 of the run" in line]
        assert len(told) == 1, said
        assert "ended by SIGKILL" in told[0]
        assert "train-rank1.log" in told[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("told", "number"), [("first", signal.SIGTERM), ("second", signal.SIGUSR1)]
)
def test_both_processes_stop_where_one_is_told_to(
    long_run: subprocess.Popen[str], tmp_path: Path, told: str, number: signal.Signals
) -> None:
    """And the job is put back into the queue where that was asked for, whichever was told."""
    second = children(long_run.pid)[0]
    os.kill(long_run.pid if told == "first" else second, number)
    _, said = long_run.communicate(timeout=60)
    assert long_run.returncode == 75, said
    gone(second)
    assert f"stopped by {number.name}" in said
    asked = tmp_path / "asked"
    assert (asked.read_text() if asked.exists() else "") == (
        "requeue 7\n" if number == signal.SIGUSR1 else ""
    )


@pytest.mark.slow
def test_two_processes_train_a_superblock_network(
    one_to_four_store: Path, tmp_path: Path, av1part: Command
) -> None:
    """Each crop comes once an epoch, and log loss and scores are those of one process."""
    words = ("train", "stage=superblock", "taxonomy=v6_1to4", f"data.path={one_to_four_store}")
    words += ("backbone.width=2", "data.crop=64", "data.batch_size=8", "logger=none")
    words += ("callbacks.plots=false", "trainer.max_epochs=1", "name=two", *TWO)
    script = Path(sys.executable).with_name("av1part")
    ran = subprocess.run(
        [script, *words],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    run = tmp_path / "runs/two"
    best = run / "checkpoints/best.ckpt"
    with (run / "history.csv").open() as file:
        logged = next(csv.DictReader(file))
    assert av1part("validate", best, "out=alone").code == 0
    alone = load(Path("alone/metrics.json"))
    assert float(logged["log_loss"]) == pytest.approx(alone["log_loss"], abs=1e-5)
    for size, scores in alone["by_size"].items():
        assert float(logged[f"log_loss.{size}"]) == pytest.approx(scores["log_loss"], abs=1e-5)
    assert float(logged["macro_f1"]) == pytest.approx(alone["macro_f1"], abs=1e-5)


def test_two_processes_share_the_crops_of_an_epoch() -> None:
    data = SuperblockDataModule(crop=64, batch_size=8)
    shares = [
        np.concatenate(list(data._loader("train", training=True, rank=rank, ranks=ranks).sampler))
        for rank, ranks in ((0, 1), (0, 2), (1, 2))
    ]
    whole, *parts = (list(map(tuple, share.tolist())) for share in shares)
    assert len(whole) == data.training_blocks
    assert sorted(parts[0] + parts[1]) == sorted(whole)
    assert abs(len(parts[0]) - len(parts[1])) <= 8


def test_a_sweep_refuses_several_processes(av1part: Command, on_small: tuple[str, ...]) -> None:
    ran = av1part("train", "-m", "stage=stage1", "seed=1,2", *on_small, *TWO)
    assert ran.code == 2
    assert len(ran.error_lines) == 1
    assert "trainer.devices=1" in ran.error_lines[0]
    assert not Path("runs").exists()
