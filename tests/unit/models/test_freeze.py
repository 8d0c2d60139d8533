"""Frozen means frozen: gradients, BatchNorm statistics, dropout, optimizer."""

from __future__ import annotations

import pytest
import torch

from av1part.models.classifier import Classifier
from av1part.models.freeze import FROZEN_PARTS, moved_tensors, state_sha256

ADAPTER = {"layers": [1, 2, 3, 4], "bottleneck": 8, "dropout": 0.1, "init_std": 1e-3}


def build(method: str) -> Classifier:
    return Classifier(
        classes=3,
        bit_depth=8,
        backbone={"width": 8},
        head={"kind": "mlp"},
        adapter=ADAPTER if method == "adapter" else None,
        frozen=FROZEN_PARTS[method],
    )


def step(model: Classifier) -> None:
    model.train()
    blocks = torch.randint(0, 256, (8, 1, 16, 16)).to(torch.uint8)
    loss = model(blocks, torch.full((8,), 80)).square().sum()
    loss.backward()
    groups = [{"params": p} for p in model.parameter_groups().values()]
    torch.optim.AdamW(groups, lr=0.1).step()


@pytest.mark.parametrize("method", FROZEN_PARTS)
def test_a_step_moves_what_is_trainable_and_nothing_else(method: str) -> None:
    model = build(method)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    step(model)
    moved = set(moved_tensors(before, model.state_dict()))
    frozen = {name for name in before if name.split(".")[0] in FROZEN_PARTS[method]}
    assert frozen == set(model.frozen_state())
    assert not moved & frozen
    # The normalisation's peak and counters of batches aside, all else moved.
    still = {n for n in before if n not in frozen and n not in moved}
    assert still == {"normalise.peak"}


@pytest.mark.parametrize("method", FROZEN_PARTS)
def test_every_parameter_has_a_gradient_or_is_frozen(method: str) -> None:
    model = build(method)
    # With the initial weights near zero, gradients through the adapters would underflow to 0.
    for parameter in model.adapters.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    step(model)
    for name, parameter in model.named_parameters():
        frozen = name.split(".")[0] in FROZEN_PARTS[method]
        assert (parameter.grad is None) == frozen, name


@pytest.mark.parametrize("method", FROZEN_PARTS)
def test_groups_hold_each_trainable_parameter_once(method: str) -> None:
    model = build(method)
    held = [id(p) for group in model.parameter_groups().values() for p in group]
    assert sorted(held) == sorted(id(p) for p in model.parameters() if p.requires_grad)


def test_train_mode_does_not_reach_frozen_parts() -> None:
    model = build("adapter").train()
    assert model.head.training
    assert model.adapters.training
    assert not any(m.training for m in model.backbone.modules())
    model.train(False).train(True)
    assert not any(m.training for m in model.backbone.modules())


def test_frozen_features_do_not_depend_on_the_batch() -> None:
    """BatchNorm of a frozen part uses its statistics, not the batch's."""
    model = build("frozen").train()
    blocks = torch.randint(0, 256, (8, 1, 16, 16)).to(torch.uint8)
    torch.testing.assert_close(model.features(blocks)[:2], model.features(blocks[:2]))


def test_identity_sees_name_dtype_shape_and_bytes() -> None:
    state = {"a": torch.zeros(2, 3), "b": torch.ones(4)}
    same = {"b": torch.ones(4), "a": torch.zeros(2, 3)}
    assert state_sha256(state) == state_sha256(same)
    for other in (
        {"a": torch.zeros(3, 2), "b": torch.ones(4)},
        {"a": torch.zeros(2, 3), "c": torch.ones(4)},
        {"a": torch.zeros(2, 3, dtype=torch.int32), "b": torch.ones(4)},
        {"a": torch.tensor([[0.0, 0, 0], [0, 0, -0.0]]), "b": torch.ones(4)},
    ):
        assert state_sha256(state) != state_sha256(other)
    assert moved_tensors(state, {"a": state["a"], "b": torch.full((4,), 1 + 1e-7)}) == ["b"]
    assert moved_tensors(state, {"a": state["a"]}) == ["b"]
