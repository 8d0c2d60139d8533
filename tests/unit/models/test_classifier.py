"""The networks: exact parameter counts, torchvision as the reference, adapters as the identity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.models import resnet18

from av1part import embedded
from av1part.data.serve.datamodule import BlockDataModule
from av1part.models.adapters import build_adapters
from av1part.models.backbone import ResNet18
from av1part.models.classifier import Classifier
from av1part.models.freeze import thaw_epochs
from av1part.models.heads import QindexFiLM, build_head
from av1part.models.normalise import MEAN, STD, PixelNormalise
from av1part.models.summary import count_parameters, count_trainable, summarise

ADAPTER = {"layers": [1, 2, 3, 4], "bottleneck": 64, "dropout": 0.1, "init_std": 1e-3}


def classifier(**changed: Any) -> Classifier:
    options: dict[str, Any] = {
        "classes": 3,
        "bit_depth": 8,
        "backbone": {"width": 8},
        "head": {"kind": "mlp"},
    }
    return Classifier(**(options | changed))


def blocks(count: int = 6, side: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 1, side, side), generator=generator).to(torch.uint8)


QINDEX = torch.tensor([80, 80, 128, 128, 172, 220])


def test_parameter_counts_are_the_contracts() -> None:
    assert count_parameters(ResNet18(se=False, attention=False)) == 11_170_240
    assert count_parameters(ResNet18()) == 11_213_858
    whole = classifier(backbone={}, adapter=ADAPTER, thaw=thaw_epochs("adapter", {}))
    assert (count_parameters(whole), count_trainable(whole)) == (11_502_565, 288_707)


@pytest.mark.parametrize(
    ("layers", "bottleneck", "parameters"),
    [
        ([1, 2, 3, 4], 64, 124_096),
        ([3, 4], 64, 99_200),
        ([2, 3, 4], 64, 115_776),
        ([1, 2, 3, 4], 128, 247_232),
    ],
)
def test_adapter_counts(layers: list[int], bottleneck: int, parameters: int) -> None:
    adapters = build_adapters(
        ResNet18(), layers=layers, bottleneck=bottleneck, dropout=0.1, init_std=1e-3
    )
    assert count_parameters(adapters) == parameters


@pytest.mark.parametrize(("kind", "parameters"), [("linear", 1_539), ("mlp", 164_611)])
def test_head_counts(kind: Any, parameters: int) -> None:
    assert count_parameters(build_head(512, 3, kind=kind)) == parameters


def test_conditioning_count() -> None:
    assert count_parameters(QindexFiLM(512)) == 66_688


def test_backbone_is_torchvisions() -> None:
    """Same names, and the same features from the same weights."""
    reference = resnet18()
    reference.conv1 = torch.nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
    reference.fc = torch.nn.Identity()  # type: ignore[assignment]
    reference.eval()
    own = ResNet18(se=False, attention=False).eval()
    own.load_state_dict(reference.state_dict(), strict=True)
    x = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(3))
    features = own.stem(x)
    for level in (1, 2, 3, 4):
        features = own.level(level, features)
    torch.testing.assert_close(features.mean((2, 3)), reference(x))


def test_spatial_sizes_at_16x16() -> None:
    """What the summary must make visible: the ImageNet stem leaves one sample in layers 3, 4."""
    sides = {r.name: r.side for r in summarise(classifier(), 16)}
    assert [sides[f"layer{k}"] for k in (1, 2, 3, 4)] == [4, 2, 1, 1]
    small = {
        r.name: r.side for r in summarise(classifier(backbone={"width": 8, "stem": "small"}), 16)
    }
    assert [small[f"layer{k}"] for k in (1, 2, 3, 4)] == [16, 8, 4, 2]


@pytest.mark.parametrize("conditioning", ["none", "qindex"])
@pytest.mark.parametrize("method", ["adapter", "plain"])
def test_summary_counts_every_parameter_once(method: str, conditioning: Any) -> None:
    model = classifier(
        adapter=ADAPTER if method == "adapter" else None,
        conditioning=conditioning,
        thaw=thaw_epochs("adapter" if method == "adapter" else "finetune", {}),
    )
    rows = summarise(model, 16)
    assert sum(r.parameters for r in rows) == count_parameters(model)
    assert sum(r.trainable for r in rows) == count_trainable(model)


def test_adapters_start_as_the_identity() -> None:
    model = classifier(backbone={"width": 16}, adapter=ADAPTER).eval()
    plain = classifier(backbone={"width": 16}).eval()
    plain.backbone.load_state_dict(model.backbone.state_dict())
    torch.testing.assert_close(
        model.features(blocks(), QINDEX), plain.features(blocks(), QINDEX), rtol=1e-3, atol=1e-3
    )
    assert not torch.equal(model.features(blocks(), QINDEX), plain.features(blocks(), QINDEX))


def test_adapters_change_features_once_trained() -> None:
    model = classifier(adapter=ADAPTER).eval()
    before = model.features(blocks(), QINDEX)
    for parameter in model.adapters.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    assert (model.features(blocks(), QINDEX) - before).abs().max() > 0.1


@pytest.mark.parametrize("hidden", [[0], [8, -1], [1.5], ["many"]])
def test_hidden_layers_are_checked(hidden: Any) -> None:
    with pytest.raises(ValueError, match=r"head\.hidden"):
        build_head(8, 3, kind="mlp", hidden=hidden)


@pytest.mark.parametrize("layers", [[], [0], [5], [1, 1], [1.0], [True]])
def test_adapter_layers_are_checked(layers: list[int]) -> None:
    with pytest.raises(ValueError, match="adapter layers"):
        classifier(adapter={**ADAPTER, "layers": layers})


def test_normalise_scales_integers_by_bit_depth() -> None:
    for depth, dtype in ((8, torch.uint8), (10, torch.int16)):
        full = torch.full((1, 1, 16, 16), (1 << depth) - 1).to(dtype)
        assert PixelNormalise(depth)(full).unique().tolist() == pytest.approx([(1 - MEAN) / STD])
        assert PixelNormalise(depth)(full * 0).unique().tolist() == pytest.approx([-MEAN / STD])


def test_floats_are_refused() -> None:
    """The study scaled twice; whoever has floats has scaled already."""
    with pytest.raises(TypeError, match="integers"):
        classifier()(blocks().float() / 255, QINDEX)


def test_conditioning_starts_as_the_identity_and_then_depends_on_qindex() -> None:
    model = classifier(conditioning="qindex").eval()
    assert torch.equal(model(blocks(), QINDEX), model(blocks(), QINDEX.flip(0)))
    assert model.conditioning is not None
    torch.nn.init.normal_(model.conditioning.out.weight)
    assert not torch.equal(model(blocks(), QINDEX), model(blocks(), QINDEX.flip(0)))


def test_bit_depth_travels_in_the_state() -> None:
    state = classifier(bit_depth=10).state_dict()
    assert state["normalise.peak"] == 1023


def test_outputs_after_reload_are_equal() -> None:
    model = classifier(adapter=ADAPTER, conditioning="qindex").train()
    model(blocks(), QINDEX)  # moves BatchNorm's statistics
    other = classifier(adapter=ADAPTER, conditioning="qindex")
    other.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(model.eval()(blocks(), QINDEX), other.eval()(blocks(), QINDEX))


def test_one_batch_can_be_learnt_by_heart(small_store: Path) -> None:
    """A network that cannot tell 64 real blocks apart is broken somewhere."""
    torch.manual_seed(0)
    data = BlockDataModule(small_store, split_list=embedded.SPLIT_LIST)
    reader = data.reader("train")
    # Of one qindex, since at another the same pixels may have another label.
    one = np.flatnonzero(data.store.nodes["qindex"].to_numpy()[reader.nodes] == 128)
    batch = reader[one[:: len(one) // 64][:64]]
    labels = (batch["partition"] > 0).long()
    model = classifier(classes=2, head={"kind": "linear", "dropout": 0.0}).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(80):
        loss = torch.nn.functional.cross_entropy(model(batch["block"], batch["qindex"]), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.02 < losses[0]


def test_golden_logits() -> None:
    """Fixed weights give fixed logits: a changed order of operations shows here."""
    model = classifier(backbone={"width": 8}, adapter=ADAPTER, conditioning="qindex").eval()
    generator = torch.Generator().manual_seed(7)
    for parameter in model.parameters():
        scale = (2 / parameter[0].numel()) ** 0.5 if parameter.ndim > 1 else 0.5
        parameter.data = torch.randn(parameter.shape, generator=generator) * scale
    logits = model(blocks(2), QINDEX[:2])
    expected = torch.tensor(GOLDEN)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


GOLDEN = [[-3.946437, -0.648726, -2.197531], [-3.939507, -0.642894, -2.190567]]
