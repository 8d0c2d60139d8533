"""Optimizer groups and schedules over the run's real length."""

from __future__ import annotations

from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from av1part.stages.optimisation import build_optimizer, build_scheduler
from av1part.system.errors import ConfigError


def optimizer() -> torch.optim.Optimizer:
    groups = {n: [torch.nn.Parameter(torch.ones(2))] for n in ("adapters", "head")}
    return build_optimizer(groups, lr={"adapters": 1e-4, "head": 5e-4, "backbone": 1.0})


def rates(kind: str, epochs: int, **options: Any) -> list[list[float]]:
    own = optimizer()
    trainer = pl.Trainer(max_epochs=epochs, logger=False, enable_checkpointing=False)
    made = build_scheduler(own, trainer, kind=kind, **options)
    seen = []
    for _ in range(epochs + 1):
        seen.append([group["lr"] for group in own.param_groups])
        own.step()
        if isinstance(made, dict):
            made["lr_scheduler"]["scheduler"].step()
    return seen


def test_groups_are_named_and_have_their_own_rates() -> None:
    groups = optimizer().param_groups
    assert [(g["name"], g["lr"]) for g in groups] == [("adapters", 1e-4), ("head", 5e-4)]


def test_cosine_ends_at_eta_min_after_the_last_epoch() -> None:
    seen = rates("cosine", 10, eta_min=1e-6)
    assert seen[0] == [1e-4, 5e-4]
    assert seen[5] == pytest.approx([(1e-4 + 1e-6) / 2, (5e-4 + 1e-6) / 2])
    assert seen[10] == pytest.approx([1e-6, 1e-6])


def test_constant_stays() -> None:
    assert rates("constant", 4)[-1] == [1e-4, 5e-4]


def test_refusals() -> None:
    with pytest.raises(ConfigError, match=r"optimizer\.lr lacks head"):
        build_optimizer({"head": [torch.nn.Parameter(torch.ones(1))]}, lr={})
    with pytest.raises(ConfigError, match="nothing is trainable"):
        build_optimizer({}, lr={})
    with pytest.raises(ConfigError, match="scheduler kind"):
        rates("spiral", 2)
