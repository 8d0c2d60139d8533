"""The study's thaw, given on purpose as `defects=[late_thaw]`.

    epochs 0 .. 7   backbone frozen, rates constant: the scheduler was not stepped
    epoch 8         backbone thawed; a new optimizer of backbone and head, without the adapters
    from there on   their rates by a cosine over the epochs that are left

Dropping the optimizer's state, the adapters' gradients and their rate has the same effect as the
study's new optimizer, and leaves one optimizer for checkpoints and resuming.
"""

from __future__ import annotations

import math

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from av1part.defects import THAW_EPOCH
from av1part.models.classifier import Classifier
from av1part.stages.base import StageModule

_LEAST_SHARE = 0.1
"""Of the backbone's rate: what all rates end at."""


class LateThaw(Callback):
    """Rates of every epoch, and what the new optimizer forgets; `Classifier` thaws the layers.

    It stands before all other callbacks, so that `history.csv` has these rates.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave the adapters untrained in an epoch that is resumed inside."""
        _train_adapters(_classifier(pl_module), trainer.current_epoch)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Set rates, whatever the scheduler made of them; at the thaw, forget the steps so far."""
        epoch, (optimizer,) = trainer.current_epoch, trainer.optimizers
        if epoch == THAW_EPOCH:
            optimizer.state.clear()
        _train_adapters(_classifier(pl_module), epoch)
        rates = pl_module.hparams["optimizer"]["lr"]
        assert trainer.max_epochs is not None
        for group in optimizer.param_groups:
            rate = late_rate(
                rates[group["name"]], _LEAST_SHARE * rates["backbone"], epoch, trainer.max_epochs
            )
            untrained = "adapters" if epoch >= THAW_EPOCH else "backbone"
            group["lr"] = 0.0 if group["name"] == untrained else rate


def late_rate(rate: float, least: float, epoch: int, epochs: int) -> float:
    """Return the rate of an epoch: constant until the thaw, then a cosine down to `least`.

    >>> [round(late_rate(1.0, 0.0, epoch, 12), 3) for epoch in (0, 7, 8, 10, 11)]
    [1.0, 1.0, 1.0, 0.5, 0.146]
    """
    if epoch < THAW_EPOCH:
        return rate
    turn = math.pi * (epoch - THAW_EPOCH) / (epochs - THAW_EPOCH)
    return least + (rate - least) * (1 + math.cos(turn)) / 2


def _classifier(module: pl.LightningModule) -> Classifier:
    assert isinstance(module, StageModule)
    assert isinstance(module.classifier, Classifier)
    return module.classifier


def _train_adapters(classifier: Classifier, epoch: int) -> None:
    classifier.adapters.requires_grad_(epoch < THAW_EPOCH)
