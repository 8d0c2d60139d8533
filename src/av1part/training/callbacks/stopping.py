"""Early stopping that also holds for a resumed run."""

from __future__ import annotations

import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping


class ResumableEarlyStopping(EarlyStopping):
    """Stops at once if the run that is resumed had already run out of patience.

    Lightning checks patience only after another epoch, which an uninterrupted run would not have
    trained.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check the restored count."""
        if self.wait_count >= self.patience:
            trainer.should_stop = True
