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


def test_muon_makes_the_updates_of_kernels_orthogonal_and_leaves_the_rest_to_adamw() -> None:
    torch.manual_seed(0)
    parts = {"backbone": torch.nn.Conv2d(4, 8, 3), "head": torch.nn.Conv2d(8, 6, 1)}
    groups = {name: list(part.parameters()) for name, part in parts.items()}
    before = {name: [p.detach().clone() for p in own] for name, own in groups.items()}
    own = build_optimizer(groups, lr={"backbone": 0.01, "head": 0.02}, weight_decay=0, kind="muon")
    assert [(g["name"], g["lr"]) for g in own.param_groups] == [
        ("backbone", 0.01),
        ("backbone", 0.01),
        ("head", 0.02),
    ]
    for parameter in (p for params in groups.values() for p in params):
        parameter.grad = torch.randn_like(parameter)
    own.step()
    moved = {
        name: [p.detach() - old for p, old in zip(params, before[name], strict=True)]
        for name, params in groups.items()
    }
    kernel, bias = moved["backbone"]
    # An 8 x 36 matrix; five steps of its iteration leave singular values near 1.
    values = torch.linalg.svdvals(kernel.flatten(1)) / (0.01 * 0.2 * 36**0.5)
    assert values.min() > 0.6
    assert values.max() < 1.3
    torch.testing.assert_close(bias.abs(), torch.full_like(bias, 0.01), rtol=1e-3, atol=0)
    for change in moved["head"]:
        torch.testing.assert_close(change.abs(), torch.full_like(change, 0.02), rtol=1e-3, atol=0)


def test_refusals() -> None:
    with pytest.raises(ConfigError, match=r"optimizer\.lr lacks head"):
        build_optimizer({"head": [torch.nn.Parameter(torch.ones(1))]}, lr={})
    with pytest.raises(ConfigError, match="nothing is trainable"):
        build_optimizer({}, lr={})
    with pytest.raises(ConfigError, match="optimizer kind"):
        build_optimizer(
            {"head": [torch.nn.Parameter(torch.ones(1))]}, lr={"head": 1e-3}, kind="sgd"
        )
    with pytest.raises(ConfigError, match="scheduler kind"):
        rates("spiral", 2)
