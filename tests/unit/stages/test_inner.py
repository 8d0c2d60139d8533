"""Inner steps: against hand-computed ones, against torch's own SGD, and what they leave alone."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from av1part.data.serve.blocks import Batch
from av1part.models.freeze import moved_tensors, tensor_hashes
from av1part.partition import Partition
from av1part.stages.blocks import BlockStage, Stage2
from av1part.stages.inner import (
    adapt,
    adaptable,
    descend,
    logits_with,
    trunk_features,
)
from av1part.system.errors import ConfigError

LAYERS = {"layers": [2, 4], "bottleneck": 8, "dropout": 0.5, "init_std": 0.3}
ADAPTERS = {
    "bottleneck": {"kind": "bottleneck", **LAYERS},
    "conv": {"kind": "conv", **LAYERS},
    "lora": {"kind": "lora", "layers": [1, 3], "rank": 2, "alpha": 1.0, "dropout": 0.5},
    "ssf": {"kind": "ssf", "layers": [3, 4]},
}
TYPES = (Partition.SPLIT, Partition.HORZ, Partition.VERT, Partition.HORZ_A, Partition.VERT_B)


def stage(adapter: dict[str, Any] | None = None, **changed: Any) -> BlockStage:
    torch.manual_seed(3)
    method = "frozen" if adapter is None else "adapter"
    options: dict[str, Any] = {
        "taxonomy": "v6",
        "method": method,
        "backbone": {"width": 8},
        "head": {"kind": "mlp", "hidden": [8]},
        "loss": {"kind": "cb_focal"},
        "optimizer": {},
        "scheduler": {"kind": "constant"},
        "data": {"size": 16, "context": 0, "bit_depth": 8, "class_counts": [5, 20, 9]},
        "adapter": adapter,
        "conditioning": "qindex",
    }
    module = Stage2(**(options | changed))
    for part in (module.classifier.adapters, module.classifier.conditioning):
        for parameter in part.parameters() if part is not None else ():
            torch.nn.init.normal_(parameter, std=0.2)
    for norm in module.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(norm.running_var, 0.5, 2)
    return module


def blocks(count: int = 40, seed: int = 1) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    types = torch.tensor(TYPES)
    return {
        "block": torch.randint(0, 256, (count, 1, 16, 16), generator=generator).to(torch.uint8),
        "qindex": torch.randint(0, 256, (count,), generator=generator),
        "partition": types[torch.randint(0, len(types), (count,), generator=generator)],
        "node": torch.arange(count),
    }


def test_steps_on_a_quadratic_are_the_hand_computed_ones() -> None:
    """Of a (w - c)^2 / 2 a step is w - lr a (w - c)."""
    found = descend(
        {"w": torch.tensor([3.0, -1.0])},
        lambda own, step: (torch.tensor([2.0, 4.0]) * (own["w"] - 1).square()).sum() / 2,
        steps=2,
        lr=0.1,
    )
    # 3 - 0.2 (3 - 1) = 2.6 and 2.6 - 0.2 (2.6 - 1) = 2.28; -1 + 0.4 2 = -0.2 and -0.2 + 0.48
    torch.testing.assert_close(found, {"w": torch.tensor([2.28, 0.28])})


def test_each_step_has_its_number() -> None:
    found = descend(
        {"w": torch.tensor(0.0)}, lambda own, step: own["w"] * 10.0**step, steps=3, lr=1.0
    )
    assert found["w"] == -111


@pytest.mark.parametrize("kind", [*ADAPTERS, None])
def test_steps_are_those_of_torch_s_own_sgd_on_the_whole_network(kind: str | None) -> None:
    module = stage(None if kind is None else ADAPTERS[kind])
    reference = copy.deepcopy(module).eval()
    trained = [p for group in reference.classifier.parameter_groups().values() for p in group]
    batch, optimizer = blocks(), torch.optim.SGD(trained, lr=0.2)
    for _ in range(3):
        optimizer.zero_grad()
        reference.loss(
            reference(batch["block"], batch["qindex"]), reference.labels(batch)
        ).backward()
        optimizer.step()
    found = adapt(module, batch, steps=3, lr=0.2)
    own = dict(reference.named_parameters())
    assert sorted(map(id, trained)) == sorted(id(own[name]) for name in found)
    for name, value in found.items():
        torch.testing.assert_close(value, own[name].detach(), rtol=1e-4, atol=1e-6)
    other = blocks(seed=2)
    with torch.no_grad():
        expected = reference(other["block"], other["qindex"])
        logits = logits_with(module, found, trunk_features(module, other), other["qindex"])
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("training", [False, True])
def test_the_stage_is_not_changed(training: bool) -> None:
    module = stage(ADAPTERS["bottleneck"]).train(training)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    asked = [p.requires_grad for p in module.parameters()]
    modes = [part.training for part in module.modules()]
    generator = torch.get_rng_state()
    found = adapt(module, blocks(), steps=2, lr=0.5)
    assert moved_tensors(before, module.state_dict()) == []
    assert [p.requires_grad for p in module.parameters()] == asked
    assert all(p.grad is None for p in module.parameters())
    assert [part.training for part in module.modules()] == modes
    assert torch.equal(torch.get_rng_state(), generator)
    assert not any(value.requires_grad for value in found.values())
    start = adaptable(module)
    assert start.keys() == found.keys()
    assert not any(torch.equal(start[name], value) for name, value in found.items())


def test_no_step_is_the_stage_as_it_is() -> None:
    module = stage(ADAPTERS["conv"]).eval()
    batch = blocks()
    found = adapt(module, batch, steps=0, lr=1.0)
    assert tensor_hashes(found) == tensor_hashes(adaptable(module))
    with torch.no_grad():
        logits = logits_with(module, found, trunk_features(module, batch), batch["qindex"])
        assert torch.equal(logits, module(batch["block"], batch["qindex"]))


def test_steps_are_the_same_from_features_in_inference_mode_and_under_autocast() -> None:
    module, batch = stage(ADAPTERS["bottleneck"]), blocks()
    expected = tensor_hashes(adapt(module, batch, steps=3, lr=0.2))
    features = {**batch, "features": trunk_features(module, batch)}
    del features["block"]
    assert tensor_hashes(adapt(module, features, steps=3, lr=0.2)) == expected
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        inside = {key: tensor.clone() for key, tensor in batch.items()}
        assert tensor_hashes(adapt(module, inside, steps=3, lr=0.2)) == expected


def test_picks_are_the_blocks_of_each_step() -> None:
    module, batch = stage(ADAPTERS["bottleneck"]), blocks()
    picks = [torch.tensor([1, 5, 7]), torch.tensor([0, 2])]
    found = adapt(module, batch, steps=2, lr=0.2, picks=picks)
    one_by_one = adaptable(module)
    for pick in picks:
        part = {key: tensor[pick] for key, tensor in batch.items()}
        one_by_one = adapt(module, part, steps=1, lr=0.2, values=one_by_one)
    for name, value in one_by_one.items():
        torch.testing.assert_close(found[name], value)
    assert not torch.equal(found[name], adapt(module, batch, steps=2, lr=0.2)[name])


@pytest.mark.parametrize(("size", "lowest"), [(8, 3), (16, 2), (32, 1), (64, 1)])
@pytest.mark.parametrize("kind", ["lora", "ssf", "bitfit", "bottleneck"])
def test_no_adapter_sits_inside_the_first_layer_of_the_superblock_trunk(
    kind: str, size: int, lowest: int
) -> None:
    """Below it there would be no features: layers that have a block have another below them."""
    placed = {"placement": "block"} if kind == "bottleneck" else {}
    counts = [5, 20] if size == 8 else [5, 20, 9]

    def on(level: int) -> BlockStage:
        return stage(
            {"kind": kind, "layers": [level], **placed},
            method="meta",
            backbone={"kind": "superblock", "width": 2},
            data={"size": size, "context": 0, "bit_depth": 8, "class_counts": counts},
        )

    for level in range(1, lowest):
        with pytest.raises(ConfigError, match=r"this backbone has layers|has no residual block"):
            on(level)
    batch = {
        "block": torch.full((4, 1, size, size), 7, dtype=torch.uint8),
        "qindex": torch.arange(4),
        "partition": torch.full((4,), Partition.SPLIT),
    }
    for level in range(lowest, 5):
        module = on(level)
        assert adapt(module, batch, steps=1, lr=0.1).keys() == adaptable(module).keys()


def test_blocks_of_another_stage_are_refused() -> None:
    batch = blocks()
    batch["partition"][3] = Partition.NONE
    with pytest.raises(ValueError, match="does not belong to stage2"):
        adapt(stage(), batch, steps=1, lr=0.1)
