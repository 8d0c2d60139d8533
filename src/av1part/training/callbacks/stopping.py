"""How a run ends: early stopping that holds for a resumed run, and a validation of the end."""

from __future__ import annotations

import logging
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, EarlyStopping

log = logging.getLogger(__name__)


class ResumableEarlyStopping(EarlyStopping):
    """Stops at once if the run that is resumed had already run out of patience.

    Lightning checks patience only after another epoch, which an uninterrupted run would not have
    trained.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check the restored count."""
        if self.wait_count >= self.patience:
            trainer.should_stop = True


class FinalValidation(Callback):
    """Ends a run after a number of steps, and has the last weights of any run validated.

    Lightning validates only where an interval ends, so that a run that steps or time end before
    would have no score and no best checkpoint; and it does not resume a run with `max_steps` at
    the end of an epoch. Must come after what may end the run, such as a Timer.
    """

    def __init__(self, max_steps: int | None) -> None:
        """End after `max_steps` steps of the optimizer, if given."""
        self.max_steps = max_steps

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Train no further if the run that is resumed had all its steps."""
        if self._has_all_steps(trainer):
            self._end(trainer)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Ask for a validation after the last batch of the run."""
        loop, epochs = trainer.fit_loop, trainer.current_epoch + 1
        epoch_ends = loop.epoch_loop.batch_progress.is_last_batch
        by_steps, by_epochs = self._has_all_steps(trainer), epochs == trainer.max_epochs
        # Lightning counts an epoch for min_epochs only after the hooks of its last batch.
        asked = trainer.should_stop and epochs >= (loop.min_epochs or 0)
        asked = asked and trainer.global_step >= (loop.min_steps or 0)
        if by_steps or ends_here(trainer) or (epoch_ends and (by_epochs or asked)):
            if not (epoch_ends and by_epochs):
                limit = f"trainer.max_steps={self.max_steps}" if by_steps else "time or patience"
                log.info("%s ends the training in epoch %d", limit, trainer.current_epoch)
            self._end(trainer)

    def _has_all_steps(self, trainer: pl.Trainer) -> bool:
        return self.max_steps is not None and trainer.global_step >= self.max_steps

    def _end(self, trainer: pl.Trainer) -> None:
        trainer.should_stop = True
        trainer.check_val_every_n_epoch = 1
        # They no longer matter, and Lightning would not validate before they are met.
        trainer.fit_loop.min_epochs = trainer.fit_loop.epoch_loop.min_steps = None


def ends_here(trainer: pl.Trainer) -> bool:
    """Return whether a run ends with the current batch and the validation that follows."""
    return trainer.should_stop and trainer.fit_loop._can_stop_early
