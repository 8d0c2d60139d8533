"""Runs that are told to stop, and go on as if they had not been."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from torch.utils.data._utils import signal_handling

from av1part.checkpoints.load import read_checkpoint
from av1part.cli.main import main
from av1part.models.freeze import moved_tensors
from av1part.system.signals import SIGNALS
from av1part.training import trainer as trainer_module

from .conftest import Command

SCRIPT = Path(sys.executable).with_name("av1part")
RESULTS = ("metrics.json", "history.csv", "confusion.csv")


class Sender(Callback):
    """Sends this process a signal at one moment of the training."""

    def __init__(self, hook: str, epoch: int, batch: int | None, number: signal.Signals) -> None:
        self.epoch, self.batch, self.number = epoch, batch, number
        setattr(self, hook, self._send)

    def _send(self, trainer: pl.Trainer, *arguments: Any, **more: Any) -> None:
        batch = more.get("batch_idx", arguments[-1] if self.batch is not None else None)
        if trainer.current_epoch == self.epoch and batch == self.batch:
            # As SLURM does: to every process of a job, the workers first.
            others = [child.pid for child in multiprocessing.active_children()]
            code = f"import os; [os.kill(pid, {self.number:d}) for pid in {others}]"
            subprocess.run([sys.executable, "-S", "-c", code], check=True)
            time.sleep(0.2 if others else 0)  # for one that ends by it to be missed
            os.kill(os.getpid(), self.number)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Callable[[Sender | None], None]:
    """Have the next trainings be told to stop, or none."""
    build = trainer_module._trainer
    # Lightning takes torch's handler away when a run ends, and torch believes it is still there.
    monkeypatch.setattr(signal_handling, "_SIGCHLD_handler_set", False)

    def use(sender: Sender | None) -> None:
        def with_sender(settings: Any, folder: Path, callbacks: list[Callback]) -> pl.Trainer:
            return build(settings, folder, [*([sender] if sender else []), *callbacks])

        monkeypatch.setattr(trainer_module, "_trainer", with_sender)

    return use


MOMENTS = {
    "inside the first epoch": ("on_train_batch_start", 0, 2),
    "inside an epoch": ("on_train_batch_end", 1, 1),
    "last batch": ("on_train_batch_end", 1, -1),
    "validation": ("on_validation_batch_start", 1, 0),
    "epoch's end": ("on_train_epoch_end", 1, None),
    "last validation": ("on_validation_epoch_end", 2, None),
    "the end": ("on_train_end", 3, None),
}

KINDS = {
    "plain": ("stage=stage1", "data.augment=symmetries"),
    "workers": ("stage=stage1", "data.num_workers=1"),
    "onecycle": ("stage=stage1", "scheduler=onecycle"),
    "intervals": (
        *("stage=stage1", "trainer.val_check_interval=2", "trainer.accumulate_grad_batches=2"),
        *("data.mixup=0.3", "trainer.limit_train_batches=0.9", "trainer.limit_val_batches=0.5"),
        *("data.eval_batch_size=8", "data.batch_size=64"),
    ),
    "superblock": (
        *("stage=superblock", "backbone.width=2", "data.crop=64", "data.batch_size=16"),
        "callbacks.verify_batches=8",
    ),
    "steps": ("stage=stage1", "trainer.max_steps=8", "trainer.check_val_every_n_epoch=2"),
    "reptile": ("method.algorithm=reptile",),
    "fomaml": ("method.algorithm=fomaml", "scheduler=onecycle"),
}

FAST = {
    "plain": ("inside the first epoch", "validation", "epoch's end"),
    "intervals": ("inside an epoch",),
    "superblock": ("inside an epoch", "validation"),
    "steps": ("epoch's end",),
    "reptile": ("inside an epoch", "epoch's end"),
    "fomaml": ("inside an epoch", "validation"),
}


@pytest.fixture(scope="module")
def whole(
    kind: str,
    on_small: tuple[str, ...],
    meta_words: tuple[str, ...],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[tuple[str, ...], Path]:
    """The words of a training, and the folder of one that nothing has stopped."""
    folder = tmp_path_factory.mktemp("whole")
    shared = meta_words if kind in ("reptile", "fomaml") else on_small
    words = ("train", *shared, *KINDS[kind], "trainer.max_epochs=3")
    words += ("callbacks.patience=null", "callbacks.verify_every=epoch")
    with contextlib.chdir(folder):
        assert main([*words, "name=whole"]) == 0
    return words, folder / "runs" / "whole"


@pytest.mark.parametrize(
    ("kind", "moment"),
    [
        pytest.param(k, m, marks=[] if m in FAST.get(k, ()) else pytest.mark.slow)
        for k in KINDS
        for m in MOMENTS
    ],
    scope="module",
)
def test_a_run_told_to_stop_goes_on_to_the_same_result(
    av1part: Command,
    whole: tuple[tuple[str, ...], Path],
    told: Callable[[Sender | None], None],
    moment: str,
) -> None:
    words, uninterrupted = whole
    hook, epoch, batch = MOMENTS[moment]
    if batch == -1:
        ended = read_checkpoint(uninterrupted / "checkpoints" / "last.ckpt")
        batch = int(ended["global_step"]) // 3 - 1
    told(Sender(hook, epoch, batch, signal.SIGTERM))
    ran = av1part(*words, "name=stopped", "resume=true")
    assert ran.code == 75, ran.err
    assert "resume=true goes on from there" in Path("runs/stopped/train.log").read_text()
    last = Path("runs/stopped/checkpoints/last.ckpt")
    record = json.loads(last.with_name("last.verified.json").read_text())
    assert record["sha256"] == read_checkpoint(last)["av1part"]["state_sha256"]
    assert not list(Path("runs/stopped").rglob("*.part"))
    assert not Path("runs/stopped/metrics.json").exists()
    told(None)
    assert av1part(*words, "name=stopped", "resume=true").code == 0
    for name in RESULTS:
        assert Path("runs/stopped", name).read_text() == (uninterrupted / name).read_text(), name
    for kind in ("best", "last"):
        ours, theirs = (
            read_checkpoint(run / "checkpoints" / f"{kind}.ckpt")
            for run in (Path("runs/stopped"), uninterrupted)
        )
        assert moved_tensors(ours["state_dict"], theirs["state_dict"]) == []
        assert ours["global_step"] == theirs["global_step"]
    of_all, of_one = (
        json.loads((run / "timing.json").read_text())
        for run in (Path("runs/stopped"), uninterrupted)
    )
    assert of_all.keys() == of_one.keys()
    assert of_all["epoch_blocks"] == of_one["epoch_blocks"]
    assert len(of_all["epoch_seconds"]) == 3
    assert of_all["seconds"] > sum(of_all["epoch_seconds"]) + of_all["verification_seconds"]


def test_after_the_training_it_ends_at_once(
    av1part: Command, on_small: tuple[str, ...], told: Callable[[Sender | None], None]
) -> None:
    """Neither our handlers nor Lightning's are left to swallow a signal."""
    before = [signal.getsignal(number) for number in SIGNALS]
    told(None)
    assert av1part("train", "stage=stage1", *on_small, "trainer.max_epochs=1").code == 0
    assert [signal.getsignal(number) for number in SIGNALS] == before


@pytest.mark.slow
@pytest.mark.parametrize("how", ["scontrol requeue", "USR1"])
def test_a_job_of_slurm_is_requeued_and_goes_on(
    slurm: Any, av1part: Command, on_small: tuple[str, ...], tmp_path: Path, how: str
) -> None:
    words = ("train", "stage=stage1", *on_small, "trainer.max_epochs=40", "callbacks.patience=null")
    assert av1part(*words, "name=whole").code == 0
    command = shlex.join(["srun", str(SCRIPT), *map(str, words), "name=job", "resume=true"])
    out = tmp_path / "job.txt"
    script = ("--requeue", "--open-mode=append", f"--output={out}", f"--wrap={command}")
    job = slurm.run("sbatch", "--parsable", *script).stdout.strip()
    said, history = tmp_path / "runs/job/train.log", tmp_path / "runs/job/history.csv"
    until = time.monotonic() + 300
    while not (history.exists() and history.read_text().count("\n") > 5):
        assert time.monotonic() < until, out.read_text()
        time.sleep(0.1)
    if how == "USR1":
        slurm.run("scancel", "--signal=USR1", job)
    else:
        slurm.run("scontrol", "requeue", job)
    slurm.wait_until_empty(seconds=600)
    by = "SIGUSR1" if how == "USR1" else "SIGTERM"
    assert said.read_text().count(f"stopped by {by}") == 1, out.read_text()
    for name in RESULTS:
        ours, theirs = (tmp_path / "runs" / run / name for run in ("job", "whole"))
        assert ours.read_text() == theirs.read_text(), name
