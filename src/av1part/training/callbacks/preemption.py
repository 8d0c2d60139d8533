"""Stopping on a signal: a run saves a verified `last.ckpt` from inside an epoch, and ends.

    signal -> end of the current batch -> last.ckpt, read back -> requeued or not -> exit code 75

`scancel`, `scontrol requeue` and a preempting cluster send SIGTERM, and decide what happens to the
job. SIGUSR1 and SIGUSR2 are warnings before the time limit, as `sbatch --signal` and submitit
request them; after one the job is put back into the queue.

Reference: man pages of sbatch (`--signal`, `--requeue`) and scontrol (`requeue`); exit code 75 is
EX_TEMPFAIL of sysexits.h.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
from types import FrameType
from typing import Any, NoReturn

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from av1part.system.signals import EXIT_CODE, SIGNALS, WARNINGS
from av1part.training.callbacks.stopping import ends_here
from av1part.training.callbacks.verified import VerifiedCheckpoint

log = logging.getLogger(__name__)

_SCONTROL = 60.0
"""Seconds to wait for SLURM's controller."""


def _may_stop(trainer: pl.Trainer) -> bool:
    """Return whether a checkpoint would hold all of the run's state, and the run goes on anyway.

    The gradients of batches that are still accumulated are in no checkpoint.
    """
    return not (trainer.fit_loop.epoch_loop._should_accumulate() or ends_here(trainer))


class Preempted(SystemExit):
    """A signal stopped the run, which has saved a checkpoint and can be resumed."""

    def __init__(self) -> None:
        """End with `EXIT_CODE`."""
        super().__init__(EXIT_CODE)


class Preemption(Callback):
    """Saves a checkpoint and ends the run at the next step after one of `SIGNALS`.

    Several processes all end at the same step, whichever got the signal; their validation is not
    interrupted, nor is the one with which steps or time end a run. The callback must come after
    all others that have a state of the epoch.
    """

    def __init__(self, last: VerifiedCheckpoint) -> None:
        """Save with `last`, the checkpoint that a run is resumed from."""
        self.last = last
        self._received: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Install the handlers; Lightning's own would lose the state of the epoch."""
        if threading.current_thread() is not threading.main_thread():
            return  # Python delivers signals to the main thread only
        for number in SIGNALS:
            self._previous[number] = signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._received = signal.Signals(number)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Stop inside an epoch; where validation follows, or the epoch ends, that stops the run."""
        loop = trainer.fit_loop.epoch_loop
        fetcher = trainer.fit_loop._data_fetcher
        assert fetcher is not None
        # Lightning would not catch up on a validation that was due.
        ends = loop.batch_progress.is_last_batch or loop._should_check_val_fx(fetcher)
        if not ends and _may_stop(trainer) and self._should_stop(trainer):
            self._stop(trainer, save=True)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop before validation."""
        if _may_stop(trainer) and self._should_stop(trainer):
            self._stop(trainer, save=True)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Stop inside validation, which a resumed run repeats."""
        # Several processes have different numbers of batches here, so that they cannot agree.
        if self._received is not None and trainer.world_size == 1 and _may_stop(trainer):
            self._stop(trainer, save=True)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop between epochs; the epoch before has saved its checkpoint."""
        if trainer.current_epoch > 0 and self._should_stop(trainer):
            self._stop(trainer, save=False)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop after training, before the result is written."""
        if self._received is not None:
            self._end(trainer)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Reset the progress of an interrupted validation, which Lightning would take as done."""
        if not trainer.validating:
            return
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
        reset = {"ready": 0, "started": 0, "processed": 0, "completed": 0}
        progress["current"] = dict(reset)
        progress["total"] = {**reset, "ready": 1, "started": 1}  # as inside a first batch
        progress["is_last_batch"] = False

    def _should_stop(self, trainer: pl.Trainer) -> bool:
        """Return whether this process or any other of the run has received a signal."""
        if trainer.world_size == 1:
            return self._received is not None
        # SIGTERM has the greatest number, and takes precedence.
        own = torch.tensor(self._received or 0, device=trainer.strategy.root_device)
        greatest = int(trainer.strategy.reduce(own, reduce_op="max"))
        if greatest:
            self._received = signal.Signals(greatest)
        return greatest > 0

    def _stop(self, trainer: pl.Trainer, *, save: bool) -> None:
        """End all processes of the run.

        Raises:
            Preempted: always, or another error of a handler that was installed before.
        """
        if save:
            self.last.save_now(trainer)
        try:
            self._end(trainer)
        finally:
            trainer.strategy.barrier()  # srun may end all processes as soon as one ends

    def _end(self, trainer: pl.Trainer) -> NoReturn:
        by = self._received
        assert by is not None
        where = f"{self.last.dirpath}/{self.last.name}.ckpt"
        log.warning("stopped by %s: %s is saved, resume=true goes on from there", by.name, where)
        if trainer.is_global_zero:
            self._requeue(by)
        raise Preempted

    def _requeue(self, by: signal.Signals) -> None:
        """Put the job back into SLURM's queue after a warning."""
        previous = self._previous.get(by)
        if by not in WARNINGS:
            return
        if callable(previous):  # submitit's, which requeues its job
            previous(by.value, None)
        elif job := os.environ.get("SLURM_JOB_ID"):
            array, task = (os.environ.get(f"SLURM_ARRAY_{x}") for x in ("JOB_ID", "TASK_ID"))
            job = f"{array}_{task}" if array else job
            command = ["scontrol", "requeue", job]
            try:
                done = subprocess.run(
                    command, capture_output=True, text=True, timeout=_SCONTROL, check=False
                )
                outcome = done.stderr.strip() or "done"
            except (OSError, subprocess.TimeoutExpired) as error:
                outcome = str(error)
            log.warning("scontrol requeue %s: %s", job, outcome)
