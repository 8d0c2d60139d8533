"""A dataset that is written to while a run reads it ends the run, before its next checkpoint."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from av1part.data.serve.datamodule import BlockDataModule


class DataGuard(Callback):
    """Looks after every epoch and before every checkpoint whether the files are still the same."""

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuse what was learnt from other pixels than the manifest's."""
        self._check(trainer)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """The same of what a run that is told to stop saves inside an epoch."""
        self._check(trainer)

    def _check(self, trainer: pl.Trainer) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, BlockDataModule)
        data.store.check_unchanged()
