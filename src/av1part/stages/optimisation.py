"""Optimizer groups and learning-rate schedules: each trainable parameter in exactly one group."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
from torch import nn, optim

from av1part.options import OPTIMIZERS, SCHEDULES
from av1part.system.errors import ConfigError

_KERNEL = 4
"""Dimensions of the kernel of a convolution."""


def build_optimizer(
    groups: Mapping[str, Sequence[nn.Parameter]],
    *,
    lr: Mapping[str, float],
    weight_decay: float = 1e-4,
    kind: str = "adamw",
    momentum: float = 0.95,
    fused: bool = True,
) -> optim.Optimizer:
    """Build an optimizer with a named group for each part, or layer; with `muon` it may have two.

    Muon (Jordan 2024) makes the update of each kernel orthogonal, as a matrix of output channels by
    the rest; here that is of convolutions below the head, and all else is AdamW's. Updates are
    scaled as Liu 2025 (arXiv:2502.16982) does, so that one learning rate fits both. The AdamW
    beside it has betas of 0.9 and 0.95, and counts the steps of a group, not of a parameter: for
    what is thawed late the first steps are not corrected.

    Args:
        groups: Part or layer to its trainable parameters.
        lr: Part or layer to its learning rate; those without trainable parameters are ignored.
        weight_decay: Decoupled, for all groups.
        kind: `adamw` or `muon`.
        momentum: Muon's.
        fused: One pass of AdamW over the tensors: 16 instead of 105 ms a step for 11 M on a CPU.

    Returns:
        The optimizer, its groups in the order of the parts.

    Raises:
        ConfigError: if a part has no learning rate, nothing is trainable, or `kind` is unknown.
    """
    if not groups:
        raise ConfigError("nothing is trainable: choose another method")
    missing = sorted(groups.keys() - lr.keys())
    if missing:
        raise ConfigError(f"optimizer.lr lacks {', '.join(missing)}")
    parts = [{"name": name, "params": list(p), "lr": lr[name]} for name, p in groups.items()]
    if kind == "adamw":
        return optim.AdamW(parts, weight_decay=weight_decay, fused=fused)
    if kind == "muon":
        return _muon(parts, weight_decay, momentum)
    raise ConfigError(f"optimizer kind must be one of {OPTIMIZERS}, got {kind!r}")


def _muon(
    parts: Sequence[Mapping[str, Any]], weight_decay: float, momentum: float
) -> optim.Optimizer:
    """Build Muon for the kernels of convolutions below the head, AdamW for the rest."""
    from pytorch_optimizer import Muon  # a second, which only those who train with it should wait

    groups = []
    for part in parts:
        kernels = [p for p in part["params"] if p.ndim == _KERNEL and part["name"] != "head"]
        own = {id(p) for p in kernels}
        rest = [p for p in part["params"] if id(p) not in own]
        groups += [
            {**part, "params": params, "use_muon": used}
            for params, used in ((kernels, True), (rest, False))
            if params
        ]
    return Muon(
        groups,
        momentum=momentum,
        weight_decay=weight_decay,
        adamw_wd=weight_decay,
        use_adjusted_lr=True,
    )


def build_scheduler(
    optimizer: optim.Optimizer,
    trainer: pl.Trainer,
    *,
    kind: str,
    max_steps: int | None = None,
    eta_min: float = 0.0,
    pct_start: float = 0.3,
) -> Any:
    """Schedule the learning rates over the run's real length.

    Args:
        optimizer: The optimizer.
        trainer: With the numbers of epochs and steps.
        kind: `cosine` (CosineAnnealingLR over the epochs), `onecycle` (over the steps) or
            `constant`.
        max_steps: Steps that end the run, if they come before its epochs do.
        eta_min: Final learning rate of `cosine`.
        pct_start: Share of `onecycle` that warms up.

    Returns:
        The value that `configure_optimizers` returns.

    Raises:
        ConfigError: if `kind` is unknown, or the trainer has no number of epochs.
    """
    if kind == "constant":
        return optimizer
    if kind == "cosine":
        epochs = trainer.max_epochs
        if epochs is None or epochs < 1:
            raise ConfigError("scheduler=cosine needs trainer.max_epochs of at least 1")
        if max_steps is not None:
            epochs, _ = _length(trainer, max_steps)
        cosine = optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs, eta_min=eta_min)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cosine, "interval": "epoch"}}
    if kind == "onecycle":
        cycle = optim.lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=[group["lr"] for group in optimizer.param_groups],
            total_steps=_length(trainer, max_steps)[1],
            pct_start=pct_start,
            cycle_momentum=isinstance(optimizer, optim.AdamW),
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}
    raise ConfigError(f"scheduler kind must be one of {SCHEDULES}, got {kind!r}")


def _length(trainer: pl.Trainer, max_steps: int | None) -> tuple[int, int]:
    """Return the epochs, the last one perhaps in part, and the steps of a run."""
    steps = int(trainer.estimated_stepping_batches)  # first: it sets the number of batches
    steps = steps if max_steps is None else min(steps, max_steps)
    per_epoch = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
    return math.ceil(steps / per_epoch), steps
