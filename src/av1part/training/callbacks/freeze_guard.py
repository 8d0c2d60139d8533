"""Checking that frozen tensors stay bit-identical."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from av1part.models.freeze import state_sha256, tensor_hashes
from av1part.stages.base import StageModule
from av1part.system.errors import FreezeError


class FreezeGuard(Callback):
    """Hashes every frozen tensor before training, at each checkpoint and at the end.

    A layer that the method's schedule thaws is checked until then.
    """

    def __init__(self) -> None:
        self._before: dict[str, str] = {}

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Hash the frozen tensors, which must be those that the run started from.

        Args:
            trainer: With the optimizer, which is checked too.
            pl_module: The stage, at its start or as resumed.

        Raises:
            FreezeError: if a resumed backbone is not the one the run started from, or the optimizer
                does not hold exactly the trainable parameters.
        """
        module = _stage(pl_module)
        self._before = tensor_hashes(module.classifier.frozen_state())
        start = module.hparams["start"] or {}
        if set(module.classifier.thaw.values()) == {None} and start.get("sha256"):
            now = state_sha256(module.classifier.backbone_state())
            if now != start["sha256"]:
                raise FreezeError(
                    "the frozen backbone is not the one this run started from: the checkpoint "
                    "that is resumed belongs to another start; begin a new run"
                )
        self._check_optimizer(trainer, module)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Refuse to save a model whose frozen part has moved."""
        self.check(_stage(pl_module))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuse to end a run whose frozen part has moved."""
        self.check(_stage(pl_module))

    def check(self, module: StageModule) -> None:
        """Compare with the hashes from before training.

        Args:
            module: The stage, at any time after the start of fit.

        Raises:
            FreezeError: naming the tensors that moved, or a frozen part in training mode.
        """
        moved = sorted(
            name
            for name, digest in tensor_hashes(module.classifier.frozen_state()).items()
            if self._before.get(name) != digest
        )
        if moved:
            raise FreezeError(
                f"{len(moved)} frozen tensors moved during training, the first being {moved[0]}: "
                "something trains or updates what method="
                f"{module.hparams['method']} declares frozen"
            )

    def _check_optimizer(self, trainer: pl.Trainer, module: StageModule) -> None:
        held = [
            id(parameter)
            for optimizer in trainer.optimizers
            for group in optimizer.param_groups
            for parameter in group["params"]
        ]
        groups = module.classifier.parameter_groups().values()
        wanted = [id(parameter) for group in groups for parameter in group]
        training = {id(p) for p in module.parameters() if p.requires_grad}
        if sorted(held) != sorted(wanted) or not training <= set(held):
            raise FreezeError(
                f"the optimizer holds {len(held)} parameters, {len(wanted)} are trainable: each "
                "must be in exactly one group, and no frozen one in any"
            )


def _stage(module: pl.LightningModule) -> StageModule:
    assert isinstance(module, StageModule)
    return module
