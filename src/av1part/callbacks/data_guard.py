"""A dataset that is written to while a run reads it ends the run, before its next checkpoint."""

from __future__ import annotations

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from av1part.data.datamodule import BlockDataModule


class DataGuard(Callback):
    """Looks after every epoch whether the files are those that were opened."""

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuse what was learnt from other pixels than the manifest's."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, BlockDataModule)
        data.store.check_unchanged()
