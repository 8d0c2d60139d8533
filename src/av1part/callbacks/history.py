"""The record of a training run: a row an epoch, speed, and a warning for a suspicious best."""

from __future__ import annotations

import csv
import logging
import math
import resource
import sys
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from av1part.callbacks.verified import VerifiedCheckpoint
from av1part.errors import ConfigError
from av1part.files import write_csv
from av1part.stages.base import StageModule

log = logging.getLogger(__name__)


class History(Callback):
    """Writes history.csv: losses, metrics, F1 of each class and learning rates, an epoch a row.

    A resumed run keeps the rows of the epochs before it.
    """

    def __init__(self, path: Path) -> None:
        """Write to `path`."""
        self.path = path
        self.rows: list[dict[str, Any]] = []
        self._rates: dict[str, float] = {}

    def state_dict(self) -> dict[str, Any]:
        """Return the rates of the epoch at hand, which a run resumed inside it does not start."""
        return {"rates": dict(self._rates)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the rates."""
        self._rates = dict(state_dict["rates"])

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take over the rows of the epochs that a resumed run does not repeat."""
        self.rows = read_history(self.path) if trainer.current_epoch and self.path.exists() else []
        self.rows = [row for row in self.rows if row["epoch"] < trainer.current_epoch]

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note the learning rates that this epoch trains with; 0 of a layer still frozen."""
        assert isinstance(pl_module, StageModule)
        frozen = pl_module.classifier.frozen_at(trainer.current_epoch)
        self._rates = {
            f"lr.{group['name']}": 0.0 if group["name"] in frozen else float(group["lr"])
            for optimizer in trainer.optimizers
            for group in optimizer.param_groups
        }

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the epoch's row.

        Args:
            trainer: Knows the epoch and its losses.
            pl_module: The stage, with the validation result of the epoch.

        Raises:
            ConfigError: if the run has diverged; no checkpoint of it is saved.
        """
        assert isinstance(pl_module, StageModule)
        result, metrics = pl_module.val_result, trainer.callback_metrics
        losses = [float(metrics[key]) for key in ("train/loss", "val/loss")]
        if not all(map(math.isfinite, losses)):
            raise ConfigError(
                f"the loss is not finite in epoch {trainer.current_epoch} (train {losses[0]}, val "
                f"{losses[1]}): lower optimizer.lr or set trainer.gradient_clip_val"
            )
        self.rows.append(
            {
                "epoch": trainer.current_epoch,
                "train_loss": losses[0],
                "val_loss": losses[1],
                "macro_f1": result["macro_f1"],
                "accuracy": result["accuracy"],
                **{f"f1.{n}": result[f"per_class.{n}.f1"] for n in pl_module.class_names},
                **self._rates,
            }
        )
        if trainer.is_global_zero:
            write_csv(self.path, self.rows)
            last = self.rows[-1]
            # The live bar is for a terminal; in a log file a line an epoch says it all.
            log.info(
                "epoch %d: train loss %.4f, val loss %.4f, macro-F1 %.2f %%, accuracy %.2f %%",
                last["epoch"],
                last["train_loss"],
                last["val_loss"],
                100 * last["macro_f1"],
                100 * last["accuracy"],
            )
        for logger in trainer.loggers:
            logger.log_metrics(self._rates, step=trainer.global_step)


def read_history(path: Path) -> list[dict[str, Any]]:
    """Read history.csv; `epoch` as int, all else as float."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [{k: int(v) if k == "epoch" else float(v) for k, v in row.items()} for row in rows]


class BestEpochWarning(Callback):
    """Warns when the first epoch was the best: training then made nothing better (lesson 3)."""

    def __init__(self, history: History) -> None:
        """Read the epochs from `history`."""
        self.history = history

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Warn, with what to check."""
        scores = [row["macro_f1"] for row in self.history.rows]
        if len(scores) > 1 and scores.index(max(scores)) == 0:
            log.warning(
                "the best epoch is the first of %d: check (1) whether the start is already as "
                "good as this method gets (compare method=frozen), (2) whether the learning rate "
                "is too high (try a tenth), (3) whether the schedule fits the number of epochs",
                len(scores),
            )


class Timing(Callback):
    """Measures where the seconds go, training blocks a second, and peak memory.

    `features_seconds` is to be set to what the features of a frozen trunk took before the fit.
    """

    def __init__(self) -> None:
        self.features_seconds = 0.0
        self._verification_seconds = 0.0
        self._validation_seconds = 0.0
        self._validation_start = 0.0
        self._start = 0.0
        self._epoch_start = 0.0
        self._epoch_seconds: list[float] = []
        self._blocks = 0
        self._epoch_blocks: list[int] = []

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._start = self._epoch_start = time.perf_counter()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start an epoch's clock."""
        self._epoch_start, self._blocks = time.perf_counter(), 0

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Count blocks."""
        self._blocks += len(batch["node"])

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop an epoch's clock before validation."""
        if self._blocks:
            self._epoch_seconds.append(time.perf_counter() - self._epoch_start)
            self._epoch_blocks.append(self._blocks)
            self._blocks = 0
        self._validation_start = time.perf_counter()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add up the validation of the live model."""
        self._validation_seconds += time.perf_counter() - self._validation_start

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Ask what reading back and validating the checkpoints took."""
        kinds = (c for c in trainer.callbacks if isinstance(c, VerifiedCheckpoint))  # type: ignore[attr-defined]
        self._verification_seconds = sum(c.seconds for c in kinds)

    def summary(self) -> dict[str, Any]:
        """Return what timing.json holds."""
        rates = [b / s for b, s in zip(self._epoch_blocks, self._epoch_seconds, strict=True)]
        unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
        peak = {"peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
        if torch.cuda.is_available():
            peak["peak_gpu_memory_bytes"] = torch.cuda.max_memory_allocated()
        return {
            "seconds": time.perf_counter() - self._start,
            "features_seconds": self.features_seconds,
            "validation_seconds": self._validation_seconds,
            "verification_seconds": self._verification_seconds,
            "epoch_seconds": self._epoch_seconds,
            "epoch_blocks": self._epoch_blocks,
            "blocks_per_second": sorted(rates)[len(rates) // 2] if rates else None,
            **peak,
        }
