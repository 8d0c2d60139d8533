"""Frozen means frozen: gradients, BatchNorm statistics, dropout, optimizer."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from av1part.models.backbone import layer_of
from av1part.models.classifier import Classifier
from av1part.models.freeze import (
    METHODS,
    frozen_text,
    layer_rates,
    moved_tensors,
    state_sha256,
    thaw_epochs,
)
from av1part.models.layers import LAYERS
from av1part.options import WITH_ADAPTERS

ADAPTER = {"layers": [1, 2, 3, 4], "bottleneck": 8, "dropout": 0.1, "init_std": 1e-3}
OPTIONS: dict[str, dict[str, Any]] = {
    "partial": {"layers": ["stem", "layer3"]},
    "ulmfit": {"unfreeze": {"layer4": 0, "layer3": 1, "layer2": 2, "stem": 3}, "lr_decay": 2.6},
    "meta": {"algorithm": "fomaml", "inner_steps": 5},
}
# Typed, not derived: the layers that each method freezes in epoch 1.
FROZEN = {
    "scratch": [],
    "finetune": [],
    "partial": ["layer1", "layer2", "layer4"],
    "ulmfit": ["stem", "layer1", "layer2"],
    "frozen": list(LAYERS),
    "adapter": list(LAYERS),
    "meta": list(LAYERS),
}


def build(method: str, epoch: int = 1) -> Classifier:
    model = Classifier(
        classes=3,
        bit_depth=8,
        backbone={"width": 8},
        head={"kind": "mlp"},
        adapter=ADAPTER if method in WITH_ADAPTERS else None,
        thaw=thaw_epochs(method, OPTIONS.get(method, {})),
    )
    model.set_epoch(epoch)
    return model


def is_frozen(method: str, name: str) -> bool:
    part, _, rest = name.partition(".")
    return part == "backbone" and layer_of(rest) in FROZEN[method]


def step(model: Classifier) -> None:
    model.train()
    blocks = torch.randint(0, 256, (8, 1, 16, 16)).to(torch.uint8)
    loss = model(blocks, torch.full((8,), 80)).square().sum()
    loss.backward()
    groups = [{"params": p} for p in model.parameter_groups().values()]
    torch.optim.AdamW(groups, lr=0.1, fused=True).step()


@pytest.mark.parametrize("method", METHODS)
def test_a_step_moves_what_is_trainable_and_nothing_else(method: str) -> None:
    model = build(method)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    step(model)
    moved = set(moved_tensors(before, model.state_dict()))
    frozen = {name for name in before if is_frozen(method, name)}
    assert frozen == set(model.frozen_state())
    assert not moved & frozen
    # The normalisation's peak and counters of batches aside, all else moved.
    still = {n for n in before if n not in frozen and n not in moved}
    assert still == {"normalise.peak"}


@pytest.mark.parametrize("method", METHODS)
def test_every_parameter_has_a_gradient_or_is_frozen(method: str) -> None:
    model = build(method)
    # With the initial weights near zero, gradients through the adapters would underflow to 0.
    for parameter in model.adapters.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    step(model)
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == is_frozen(method, name), name


@pytest.mark.parametrize("by_layer", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_groups_hold_what_is_ever_trained_once(method: str, by_layer: bool) -> None:
    model = build(method, epoch=99)
    held = [id(p) for group in model.parameter_groups(by_layer=by_layer).values() for p in group]
    assert sorted(held) == sorted(id(p) for p in model.parameters() if p.requires_grad)


def test_train_mode_does_not_reach_frozen_parts() -> None:
    model = build("adapter").train()
    assert model.head.training
    assert model.adapters.training
    assert not any(m.training for m in model.backbone.children())
    model.train(False).train(True)
    assert not any(m.training for m in model.backbone.modules() if m is not model.backbone)


def test_layers_thaw_in_their_epochs_and_stay_so() -> None:
    model = build("ulmfit", epoch=0).train()
    assert model.frozen == ("stem", "layer1", "layer2", "layer3")
    model.set_epoch(2)
    assert model.frozen == ("stem", "layer1")
    trained = {m: m.training for m in (model.backbone.layer2, model.backbone.layer1)}
    assert list(trained.values()) == [True, False]
    model.eval().set_epoch(3)
    assert model.frozen == ("layer1",)
    assert not any(m.training for m in model.modules())
    assert all(p.requires_grad for p in model.backbone.conv1.parameters())


def test_every_tensor_of_the_backbone_belongs_to_a_layer() -> None:
    names = build("scratch").backbone.state_dict()
    assert {layer_of(name) for name in names} == set(LAYERS)


def test_discriminative_rates_fall_towards_the_input() -> None:
    rates = layer_rates(1e-3, 2.0)
    assert [rates[layer] for layer in reversed(LAYERS)] == pytest.approx(
        [1e-3, 5e-4, 2.5e-4, 1.25e-4, 6.25e-5]
    )


def test_text_of_what_is_frozen() -> None:
    assert frozen_text(thaw_epochs("frozen", {})) == "backbone"
    assert frozen_text(thaw_epochs("finetune", {})) == "nothing"
    said = frozen_text(thaw_epochs("ulmfit", OPTIONS["ulmfit"]))
    assert said == "stem until epoch 3, layer1, layer2 until epoch 2, layer3 until epoch 1"


@pytest.mark.parametrize(
    ("method", "options", "said"),
    [
        ("melt", {}, "method must be one of"),
        ("partial", {"layers": ["layer5"]}, "method.layers takes"),
        ("partial", {"layers": ["stem", "stem"]}, "at most once"),
        ("partial", {"layers": []}, "method=frozen"),
        ("ulmfit", {"unfreeze": {"head": 0}}, "method.unfreeze takes"),
        ("ulmfit", {"unfreeze": {"layer4": 1.5}}, "method.unfreeze.layer4"),
        ("ulmfit", {"unfreeze": {"layer4": -1}}, "method.unfreeze.layer4"),
        ("ulmfit", {"unfreeze": {"layer4": None}}, "method=frozen"),
        ("ulmfit", {"unfreeze": {"layer4": 1}, "lr_decay": 0.5}, "lr_decay"),
        ("frozen", {"layers": ["layer4"]}, "method frozen"),
        ("ulmfit", {}, "method ulmfit"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    method: str, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        thaw_epochs(method, options)


def test_frozen_features_do_not_depend_on_the_batch() -> None:
    """BatchNorm of a frozen part uses its statistics, not the batch's."""
    model = build("frozen").train()
    blocks = torch.randint(0, 256, (8, 1, 16, 16)).to(torch.uint8)
    qindex = torch.full((8,), 80)
    whole = model.features(blocks, qindex)
    torch.testing.assert_close(whole[:2], model.features(blocks[:2], qindex[:2]))


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
