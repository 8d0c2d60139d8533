"""The superblock network's trunk as a backbone, and FiLM and planes in either backbone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from av1part.evaluation.trunk import SharedTrunk
from av1part.models.backbone import ResNet18
from av1part.models.classifier import POOLED, Classifier
from av1part.models.folded import folded_inference
from av1part.models.freeze import moved_tensors, thaw_epochs
from av1part.models.layers import LAYERS
from av1part.models.node_trunk import NodeTrunk
from av1part.models.normalise import PixelNormalise
from av1part.models.planes import PLANES_REACH, InputPlanes
from av1part.models.summary import count_parameters
from av1part.models.superblock import SuperblockNetwork
from av1part.options import INPUT_PLANES
from av1part.partition import SIZES, taxonomy

TRUNK = {"kind": "superblock", "width": 4, "planes": list(INPUT_PLANES), "energies": True}
RESNET = {"width": 8, "se": True, "attention": True}
BACKBONES = {"resnet18": RESNET, "superblock": TRUNK}
QINDEX = torch.tensor([20, 80, 128, 172, 220, 255])
# Typed, not derived: strides of each layer at each node size.
STRIDES = {
    8: {"layer2": [2], "layer3": [4], "layer4": [8]},
    16: {"layer1": [2], "layer2": [4], "layer3": [8], "layer4": [16]},
    32: {"stem": [2], "layer1": [4], "layer2": [8], "layer3": [16], "layer4": [32]},
    64: {"stem": [2, 4], "layer1": [8], "layer2": [16], "layer3": [32], "layer4": [64]},
}


def classifier(backbone: dict[str, Any], *, shaken: bool = False, **options: Any) -> Classifier:
    """A classifier; `shaken` moves every layer that begins at zero."""
    torch.manual_seed(3)
    options = {"conditioning": "qindex_blocks", "head": {"kind": "linear"}} | options
    model = Classifier(classes=3, bit_depth=8, backbone=backbone, **options)
    return shake(model) if shaken else model


def shake(model: Any) -> Any:
    for name, parameter in model.named_parameters():
        if ".bn2." in name or "film" in name or "adapters" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def blocks(side: int = 48, count: int = len(QINDEX)) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 1, side, side), generator=generator).to(torch.uint8)


def test_the_study_sees_its_one_plane_and_no_film() -> None:
    model = classifier(RESNET, conditioning="none").eval()
    assert isinstance(model.normalise, PixelNormalise)
    assert not any("film" in name or "condition" in name for name in model.state_dict())
    planes = model.normalise(blocks()).to(memory_format=torch.channels_last)
    expected = model.backbone.stem(planes)
    assert torch.equal(model.trunk(blocks(), QINDEX, 0), expected)


@pytest.mark.parametrize("planes", [["level"], ["steps", "level"], list(INPUT_PLANES)])
@pytest.mark.parametrize("kind", BACKBONES)
def test_the_stem_gets_the_planes_that_were_asked_for(kind: str, planes: list[str]) -> None:
    model = classifier({**BACKBONES[kind], "planes": planes}).eval()
    seen: list[torch.Tensor] = []
    stem = model.backbone.stem

    def watched(x: torch.Tensor, *rest: Any) -> torch.Tensor:
        seen.append(x)
        return stem(x, *rest)

    model.backbone.stem = watched  # type: ignore[method-assign]
    model(blocks(), QINDEX)
    expected = InputPlanes(8, planes, moments=kind == "superblock")
    assert torch.equal(seen[0], expected(blocks(), QINDEX))


def blind(kind: str) -> dict[str, Any]:
    """A backbone whose input does not depend on the qindex."""
    without = {"energies": False} if kind == "superblock" else {}
    return {**BACKBONES[kind], "planes": ["level", "detail"], **without}


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("kind", BACKBONES)
def test_film_in_the_blocks_begins_as_the_identity(kind: str, frozen: bool) -> None:
    backbone = blind(kind)
    model = classifier(backbone).eval()
    plain = classifier(backbone, conditioning="none").eval()
    own = plain.state_dict()
    plain.load_state_dict({name: model.state_dict()[name] for name in own})
    for each in (model, plain):  # what is frozen is always folded
        each.requires_grad_(not frozen)
    with torch.no_grad():
        assert torch.equal(model(blocks(), QINDEX), plain(blocks(), QINDEX))


@pytest.mark.parametrize("kind", BACKBONES)
def test_film_in_the_blocks_tells_qindexes_apart_folded_or_not(kind: str) -> None:
    model = classifier(blind(kind), shaken=True).eval()
    with torch.inference_mode():
        low, high = (model(blocks(), torch.full_like(QINDEX, q)) for q in (20, 220))
        with folded_inference():
            folded = model(blocks(), torch.full_like(QINDEX, 220))
    assert (low - high).abs().max() > 1e-3
    torch.testing.assert_close(folded, high, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", SIZES)
def test_each_layer_has_the_strides_of_the_table(size: int) -> None:
    backbone = NodeTrunk(size=size, planes=3, width=4)
    found: dict[str, list[int]] = {}
    for number, stride in enumerate(backbone.strides):
        layers = {backbone.layer_of(f"{part}.{number}.x") for part in ("down", "blocks")}
        assert len(layers) == 1
        found.setdefault(layers.pop(), []).append(stride)
    assert found == STRIDES[size]
    assert backbone.layers() == tuple(layer for layer in LAYERS if layer in STRIDES[size])
    assert backbone.layer_of("condition.0.weight") == backbone.layers()[0]


DOCUMENTED = {8: (83_808, 56), 16: (276_224, 160), 32: (450_048, 288), 64: (595_648, 448)}


def test_counts_and_margins_are_the_documented_ones() -> None:
    for size, (parameters, margin) in DOCUMENTED.items():
        trunk = NodeTrunk(size=size, planes=3, energies=True)
        assert (count_parameters(trunk), margin_of(trunk)) == (parameters, margin)
    plain = count_parameters(ResNet18())
    assert count_parameters(ResNet18(conditioned=True)) - plain == 126_784
    assert count_parameters(ResNet18(planes=3)) - plain == 6_272


def margin_of(trunk: NodeTrunk) -> int:
    """The least margin that holds all that a cell sees."""
    return -(-(trunk.reach + PLANES_REACH) // trunk.size) * trunk.size


@pytest.mark.parametrize("backbone", [*(("superblock", s) for s in SIZES), ("resnet18", 16)])
def test_parts_hold_every_tensor_once_in_its_layer(backbone: tuple[str, int]) -> None:
    kind, size = backbone
    own = classifier(BACKBONES[kind], size=size).backbone
    by_id = {id(p): own.layer_of(name) for name, p in own.named_parameters()}
    held = [(id(p), layer) for layer, module in own.parts() for p in module.parameters()]
    assert sorted(held) == sorted(by_id.items())


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("size", SIZES)
def test_a_node_has_the_features_of_the_superblock_networks_own_map(size: int, depth: int) -> None:
    """As far as the border of its block, where convolutions see zeros, is out of reach."""
    torch.manual_seed(0)
    network = SuperblockNetwork(taxonomy=taxonomy("v6"), bit_depth=8, width=4, depth=depth)
    shake(network.eval())
    model = classifier({**TRUNK, "depth": depth}, size=size).eval()
    backbone = model.backbone
    assert isinstance(backbone, NodeTrunk)
    left = backbone.of_superblock(network.backbone.state_dict())
    backbone.load_state_dict(left, strict=True)
    away = margin_of(backbone)
    side = -(-(2 * away + 2 * size) // 64) * 64
    rng = np.random.default_rng(4)
    frame = torch.from_numpy(rng.integers(0, 256, (1, 1, side, side)).astype(np.uint8))
    qindex = torch.tensor([140])

    def features(context: int) -> torch.Tensor:
        row, col = away + size - context, away - context
        end = size + 2 * context
        return model.features(frame[..., row : row + end, col : col + end], qindex)

    with torch.no_grad():
        assert network.backbone.condition is not None
        x, moments = network.normalise.apart(frame, qindex)
        embedded = network.backbone.condition(qindex)
        for stride in backbone.strides:
            x, moments = network.backbone.step(stride, x, moments, embedded)
        expected = x[:, :, away // size + 1, away // size]
        scale = float(expected.abs().max())
        torch.testing.assert_close(features(away), expected, rtol=1e-4, atol=1e-5 * scale)
        assert torch.equal(features(away), features(away)), "the same bits each time"
        near = (features(0) - expected).abs().max()
        assert near > 1e-2 * scale, "without a margin the border is seen"


METHODS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "frozen": ({}, list(LAYERS)),
    "partial": ({"layers": ["layer3", "layer4"]}, ["stem", "layer1", "layer2"]),
    "ulmfit": ({"unfreeze": {"layer4": 0, "layer3": 1, "layer1": 2}}, ["stem", "layer1", "layer2"]),
    "finetune": ({}, []),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("kind", "size"), [("resnet18", 16), ("superblock", 16), ("superblock", 64)]
)
def test_film_is_frozen_with_its_layer(kind: str, size: int, method: str) -> None:
    options, frozen = METHODS[method]
    model = classifier(BACKBONES[kind], shaken=True, size=size, thaw=thaw_epochs(method, options))
    model.set_epoch(1)
    model.train()
    side = 48 if size == 16 else 64
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    cut = 2 if "layer2" in frozen else 0
    trunk = model.trunk(blocks(side), QINDEX, cut) if frozen else None
    model(blocks(side), QINDEX).square().sum().backward()
    groups = model.parameter_groups()
    torch.optim.AdamW([{"params": p} for p in groups.values()], lr=0.1).step()
    moved = moved_tensors(before, model.state_dict())
    kept = set(model.frozen_state())
    own = {f"backbone.{name}" for name in model.backbone.state_dict()}
    assert kept == {n for n in own if model.backbone.layer_of(n.partition(".")[2]) in frozen}
    assert kept.isdisjoint(moved)
    films = {name for name in own if "film" in name or ".condition." in name}
    assert films - kept <= set(moved)
    if trunk is not None:
        assert torch.equal(model.trunk(blocks(side), QINDEX, cut), trunk)
    named = {id(p): name for name, p in model.named_parameters()}
    of_group = {named[id(p)] for p in groups.get("conditioning", [])}
    never = {layer for layer, first in model.thaw.items() if first is None}
    assert of_group == {
        n for n in films if model.backbone.layer_of(n.partition(".")[2]) not in never
    }


@pytest.mark.parametrize(
    ("size", "method", "options", "adapter", "cut"),
    [
        (16, "frozen", {}, None, POOLED),
        (16, "finetune", {}, None, None),
        (16, "partial", {"layers": ["layer3"]}, None, 2),
        (16, "partial", {"layers": ["layer1"]}, None, None),
        (64, "partial", {"layers": ["layer1"]}, None, 0),
        (16, "adapter", {}, {"kind": "bottleneck", "layers": [1, 2, 3, 4]}, 1),
        (16, "adapter", {}, {"kind": "lora", "layers": [2, 3, 4]}, 1),
        (16, "adapter", {}, {"kind": "lora", "layers": [3]}, 2),
        (8, "adapter", {}, {"kind": "conv", "layers": [4], "placement": "block"}, 3),
    ],
)
def test_the_cut_is_where_training_begins(
    size: int, method: str, options: dict[str, Any], adapter: dict[str, Any] | None, cut: int | None
) -> None:
    model = classifier(
        TRUNK, shaken=True, size=size, adapter=adapter, thaw=thaw_epochs(method, options)
    ).eval()
    assert model.cut == cut
    if cut is not None:
        side = 3 * size
        features = model.trunk(blocks(side), QINDEX, cut)
        assert not features.requires_grad
        assert torch.equal(model.from_cut(features, QINDEX, cut), model(blocks(side), QINDEX))


@pytest.mark.parametrize(
    "adapter",
    [
        {"kind": "bottleneck", "layers": [1, 2, 3, 4]},
        {"kind": "bottleneck", "layers": [2, 4], "placement": "block"},
        {"kind": "conv", "layers": [1, 2], "kernel": 3},
        {"kind": "lora", "layers": [2, 3, 4], "rank": 2},
        {"kind": "ssf", "layers": [2, 4]},
        {"kind": "bitfit", "layers": [3]},
    ],
)
def test_adapters_in_the_trunk_begin_as_the_identity_and_get_gradients(
    adapter: dict[str, Any],
) -> None:
    plain = classifier(TRUNK, shaken=True).eval()
    frozen = thaw_epochs("adapter", {})
    model = classifier(TRUNK, adapter=adapter, thaw=frozen).eval()
    model.backbone.load_state_dict(plain.backbone.state_dict(), strict=True)
    ours, theirs = model.features(blocks(), QINDEX), plain.features(blocks(), QINDEX)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
    shake(model.adapters)
    for parameter in model.adapters.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.train()(blocks(), QINDEX).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.adapters.parameters())
    assert all(p.grad is None for p in model.backbone.parameters())


@pytest.mark.parametrize(
    ("size", "adapter", "named"),
    [
        (16, {"kind": "ssf", "layers": [1, 4]}, "layer 1 of this backbone has no residual block"),
        (16, {"kind": "lora", "layers": [1]}, "layer 1 of this backbone has no residual block"),
        (8, {"kind": "bottleneck", "layers": [1, 2]}, r"this backbone has layers \[2, 3, 4\]"),
    ],
)
def test_adapters_that_the_trunk_cannot_have_are_refused(
    size: int, adapter: dict[str, Any], named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        classifier(TRUNK, size=size, adapter=adapter)


@pytest.mark.parametrize("kind", BACKBONES)
def test_stages_that_share_a_trunk_answer_as_alone_at_any_qindex(kind: str) -> None:
    first = classifier({**BACKBONES[kind], "planes": list(INPUT_PLANES)}, shaken=True).eval()
    second = classifier({**BACKBONES[kind], "planes": list(INPUT_PLANES)}).eval()
    second.backbone.load_state_dict(first.backbone.state_dict())
    together = SharedTrunk([first, second])
    assert len(together.shared(0)) == len(LAYERS)
    assert together.shared(0) == together.shared(1)
    with torch.inference_mode():
        shared = together.blocks(blocks(), QINDEX)
        some = torch.tensor([1, 4])
        for member, model in enumerate((first, second)):
            assert torch.equal(shared.logits(member), model(blocks(), QINDEX))
            alone = model(blocks()[some], QINDEX[some])
            for of in (shared, together.blocks(blocks(), QINDEX)):  # features kept, and none yet
                chosen = of.select(some).logits(member)
                torch.testing.assert_close(chosen, alone, rtol=1e-4, atol=1e-5)
    other = classifier({**BACKBONES[kind], "planes": list(reversed(INPUT_PLANES))}).eval()
    other.backbone.load_state_dict(first.backbone.state_dict())
    assert not SharedTrunk([first, other]).shared(0), "other planes are other features"
