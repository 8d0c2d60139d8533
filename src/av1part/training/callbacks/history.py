"""The record of a training run: a row an epoch, and a warning for a suspicious best."""

from __future__ import annotations

import csv
import logging
import math
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from av1part.stages.base import StageModule
from av1part.system.errors import ConfigError
from av1part.system.files import write_csv

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
                **{f"f1.{n}": result["per_class"][n]["f1"] for n in pl_module.class_names},
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
