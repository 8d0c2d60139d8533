"""Being told to stop: a run saves a verified `last.ckpt` from inside an epoch, and ends.

    signal -> end of the batch at hand -> last.ckpt, read back -> requeued or not -> exit code 75

SIGTERM is what `scancel`, `scontrol requeue` and a preempting cluster send, SIGUSR1 and SIGUSR2 are
the warnings that `sbatch --signal` and submitit ask for. Whoever sends SIGTERM decides what becomes
of the job; a warning is sent before the time is over, so that the job is put back into the queue.

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
from av1part.training.callbacks.verified import VerifiedCheckpoint

log = logging.getLogger(__name__)

_SCONTROL = 60.0
"""Seconds that SLURM's controller may take to answer."""


class Preempted(SystemExit):
    """The run was told to stop, has saved where it is, and goes on when it is started again."""

    def __init__(self) -> None:
        """End with `EXIT_CODE`."""
        super().__init__(EXIT_CODE)


class Preemption(Callback):
    """Ends a run that is sent one of `SIGNALS`, at the next batch, with a checkpoint.

    Of several processes all end at the same batch, whichever was told; their validation is not
    interrupted. The callback must stand after all others that keep a state of the epoch.
    """

    def __init__(self, last: VerifiedCheckpoint) -> None:
        """Save by `last`, the checkpoint that a run is resumed from."""
        self.last = last
        self._told: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the signals over; Lightning's own handlers would leave the epoch's state behind."""
        if threading.current_thread() is not threading.main_thread():
            return  # Python hands signals to the main thread alone
        for each in SIGNALS:
            self._before[each] = signal.signal(each, self._listen)

    def _listen(self, number: int, frame: FrameType | None) -> None:
        self._told = signal.Signals(number)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Stop inside an epoch; after its last batch, validation begins and stops at once."""
        if self._is_told(trainer) and not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self._stop(trainer, save=True)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop before validation."""
        if self._is_told(trainer):
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
        """Stop inside validation, which will begin again."""
        # Of several processes each has a number of batches of its own here: they cannot agree.
        if self._told is not None and trainer.world_size == 1:
            self._stop(trainer, save=True)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop between epochs, if the one before has left its checkpoint."""
        if trainer.current_epoch > 0 and self._is_told(trainer):
            self._stop(trainer, save=False)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop after training, before the result is written; Lightning has put handlers back."""
        if self._told is not None:
            self._end(trainer)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Have an interrupted validation begin again, where Lightning would believe it done."""
        if not trainer.validating:
            return
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
        nothing = {"ready": 0, "started": 0, "processed": 0, "completed": 0}
        progress["current"] = dict(nothing)
        progress["total"] = {**nothing, "ready": 1, "started": 1}  # as inside a first batch
        progress["is_last_batch"] = False

    def _is_told(self, trainer: pl.Trainer) -> bool:
        """Return whether this process or, of several, any was told to stop."""
        if trainer.world_size == 1:
            return self._told is not None
        # The greatest is SIGTERM: whoever sends that has decided what becomes of the job.
        own = torch.tensor(self._told or 0, device=trainer.strategy.root_device)
        told = int(trainer.strategy.reduce(own, reduce_op="max"))
        if told:
            self._told = signal.Signals(told)
        return told > 0

    def _stop(self, trainer: pl.Trainer, *, save: bool) -> None:
        """End all processes of the run.

        Raises:
            Preempted: always; or what the handler from before raises.
        """
        if save:
            self.last.save_now(trainer)
        try:
            self._end(trainer)
        finally:
            trainer.strategy.barrier()  # srun may end all as soon as one has ended

    def _end(self, trainer: pl.Trainer) -> NoReturn:
        by = self._told
        assert by is not None
        where = f"{self.last.dirpath}/{self.last.name}.ckpt"
        log.warning("stopped by %s: %s is saved, resume=true goes on from there", by.name, where)
        if trainer.is_global_zero:
            self._requeue(by)
        raise Preempted

    def _requeue(self, by: signal.Signals) -> None:
        """Put the job back into SLURM's queue, if a warning asks for that."""
        before = self._before.get(by)
        if by not in WARNINGS:
            return
        if callable(before):  # submitit's, which knows its job
            before(by.value, None)
        elif job := os.environ.get("SLURM_JOB_ID"):
            array, task = (os.environ.get(f"SLURM_ARRAY_{x}") for x in ("JOB_ID", "TASK_ID"))
            job = f"{array}_{task}" if array else job
            words = ["scontrol", "requeue", job]
            try:
                done = subprocess.run(
                    words, capture_output=True, text=True, timeout=_SCONTROL, check=False
                )
                said = done.stderr.strip() or "done"
            except (OSError, subprocess.TimeoutExpired) as error:
                said = str(error)
            log.warning("scontrol requeue %s: %s", job, said)
