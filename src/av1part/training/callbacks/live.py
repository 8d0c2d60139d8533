"""The live model's predictions for the first validation batches, to compare a checkpoint's with."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch.nn.functional import cross_entropy

from av1part.metrics.scores import from_predictions
from av1part.stages.base import StageModule


class LivePredictions(Callback):
    """Keeps the live model's predictions for the first validation batches.

    `current` is whether they are those of the present weights.
    """

    def __init__(self, batches: int | None) -> None:
        """Keep the first `batches` batches, or all of them if None."""
        self.batches = batches
        self.current = False
        self._kept: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._log_losses: list[torch.Tensor] = []

    @property
    def seen(self) -> int:
        """Batches that are kept: fewer than asked for where a validation has fewer."""
        return len(self._kept)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Note that the weights are about to change."""
        self.current = False

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note that the predictions are complete."""
        self.current = True

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Drop the predictions of the epoch before."""
        self._kept, self._log_losses = [], []

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep predictions and labels of a batch."""
        if self.batches is None or batch_idx < self.batches:
            logits, labels = outputs["logits"], outputs["labels"]
            self._kept.append((logits.argmax(1).cpu(), labels.cpu()))
            self._log_losses.append(cross_entropy(logits.float(), labels, reduction="none").cpu())

    def macro_f1(self, module: StageModule) -> float:
        """Return the live model's macro-F1 on the kept batches, as a fraction."""
        predictions, labels = (torch.cat(x).numpy() for x in zip(*self._kept, strict=True))
        return float(from_predictions(predictions, labels, module.class_names)["macro_f1"])

    def log_loss(self) -> float:
        """Return the live model's mean log loss on the kept batches, in nats."""
        return float(torch.cat(self._log_losses).double().mean())
