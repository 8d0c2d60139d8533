"""Ending a run whose dataset is changed while it trains, before its next checkpoint."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from av1part.data.serve.datamodule import BlockDataModule


class DataGuard(Callback):
    """Checks after every epoch and before every checkpoint that the files are unchanged."""

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuse an epoch that was trained on other pixels than the manifest's."""
        self._check(trainer)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Refuse a checkpoint that is saved inside such an epoch."""
        self._check(trainer)

    def _check(self, trainer: pl.Trainer) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, BlockDataModule)
        data.store.check_unchanged()
