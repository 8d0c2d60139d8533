"""history.csv, a row a validation, and a warning if the first epoch was the best."""

from __future__ import annotations

import csv
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from av1part.runs.schema import (
    BY_SIZE,
    HISTORY_COLUMNS,
    LOG_LOSS,
    f1_column,
    rate_column,
    size_column,
)
from av1part.stages.base import StageModule
from av1part.system.errors import ConfigError
from av1part.system.files import write_csv

log = logging.getLogger(__name__)


class History(Callback):
    """Writes history.csv: losses, metrics, F1 of each class and learning rates.

    A row is a validation, of which each epoch has one by default; its training loss is the mean
    since the row before. A resumed run keeps the rows that were there at its checkpoint.
    """

    def __init__(self, path: Path) -> None:
        """Write to `path`."""
        self.path = path
        self.rows: list[dict[str, Any]] = []
        self._rates: dict[str, float] = {}
        self._kept: int | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return the learning rates of the current epoch, and the number of rows."""
        return {"rates": dict(self._rates), "rows": len(self.rows)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the rates, and which rows stay."""
        self._rates = dict(state_dict["rates"])
        self._kept = state_dict.get("rows")

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Read the rows of what a resumed run does not repeat."""
        resumed = trainer.ckpt_path is not None and self.path.exists()
        rows = _read_rows(self.path) if resumed else []
        if self._kept is None:  # a checkpoint of av1part 0.1
            rows = [row for row in rows if row["epoch"] < trainer.current_epoch]
        self.rows = rows[: self._kept]

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Record the learning rates of this epoch; 0 for a layer that is still frozen."""
        assert isinstance(pl_module, StageModule)
        frozen = pl_module.classifier.frozen_at(trainer.current_epoch)
        self._rates = {
            rate_column(group["name"]): 0.0 if group["name"] in frozen else float(group["lr"])
            for optimizer in trainer.optimizers
            for group in optimizer.param_groups
        }

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the row of a validation.

        Args:
            trainer: With the mean losses.
            pl_module: The stage, with the validation's result.

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
                **dict(
                    zip(
                        HISTORY_COLUMNS,
                        (trainer.current_epoch, *losses, result["macro_f1"]),
                        strict=True,
                    )
                ),
                "accuracy": result["accuracy"],
                **{f1_column(n): result["per_class"][n]["f1"] for n in pl_module.class_names},
                **_log_losses(result),
                **self._rates,
            }
        )
        if trainer.is_global_zero:
            write_csv(self.path, self.rows)
            last = self.rows[-1]
            # The progress bar is for a terminal; a log file has a line a validation.
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


def _log_losses(result: Mapping[str, Any]) -> dict[str, float]:
    """Return the columns of a validation that has a log loss by node size."""
    if LOG_LOSS not in result:
        return {}
    sizes = result[BY_SIZE].items()
    return {LOG_LOSS: result[LOG_LOSS]} | {
        size_column(LOG_LOSS, size): scores[LOG_LOSS] for size, scores in sizes
    }


def _read_rows(path: Path) -> list[dict[str, Any]]:
    """Read history.csv; `epoch` as int, all else as float."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [{k: int(v) if k == "epoch" else float(v) for k, v in row.items()} for row in rows]


class BestEpochWarning(Callback):
    """Warns if the first epoch was the best: the training after it improved nothing."""

    def __init__(self, history: History) -> None:
        """Use the rows of `history`."""
        self.history = history

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Warn, and name the likely causes."""
        if not self.history.rows:
            return
        assert isinstance(pl_module, StageModule)
        column = pl_module.monitor.removeprefix("val/")
        choose = min if pl_module.mode == "min" else max
        best = choose(self.history.rows, key=lambda row: row[column])["epoch"]
        last = self.history.rows[-1]["epoch"]
        if last > 0 and best == 0:
            log.warning(
                "the best epoch is the first of %d: check (1) whether the start is already as "
                "good as this method gets (compare method=frozen), (2) whether the learning rate "
                "is too high (try a tenth), (3) whether the schedule fits the number of epochs",
                last + 1,
            )
