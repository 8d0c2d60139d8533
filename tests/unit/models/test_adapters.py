"""Every form of adapter: its parameter count, the identity at the start, gradients, refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from av1part.models.adapters import ADAPTERS, ConvLora, build_adapters
from av1part.models.backbone import ResNet18
from av1part.models.classifier import Classifier
from av1part.models.freeze import moved_tensors, thaw_epochs
from av1part.models.summary import count_parameters, summarise

ALL = [1, 2, 3, 4]
FORMS: dict[str, dict[str, Any]] = {
    "bottleneck": {"kind": "bottleneck", "layers": ALL},
    "block": {"kind": "bottleneck", "layers": ALL, "placement": "block"},
    "conv1x1": {"kind": "conv", "layers": ALL, "kernel": 1},
    "conv1x1 in blocks": {"kind": "conv", "layers": ALL, "kernel": 1, "placement": "block"},
    "depthwise3x3": {"kind": "conv", "layers": [1, 2], "kernel": 3},
    "ssf": {"kind": "ssf", "layers": ALL},
    "bitfit": {"kind": "bitfit", "layers": ALL},
    "lora": {"kind": "lora", "layers": ALL},
}
# Counted by hand for channels 64, 128, 256, 512.
COUNTS = {
    "bottleneck": 124_096,
    "block": 2 * 124_096,
    "conv1x1": 124_096,  # as the bottleneck, which it differs from in pooling alone
    "conv1x1 in blocks": 2 * 124_096,
    "depthwise3x3": 2 * 64 * (64 + 128) + 2 * 64 + 64 + 128 + 2 * 64 * (9 + 1),
    # Four BatchNorms a layer, and that of the downsampling in all but the first.
    "bitfit": 4 * 64 + 5 * (128 + 256 + 512),
    "ssf": 2 * (4 * 64 + 5 * (128 + 256 + 512)),
    # Rank 8: 9 * 8 a channel in, 8 a channel out; the first convolution of a layer halves.
    "lora": 9 * 8 * (64 * 4 + (64 + 3 * 128) + (128 + 3 * 256) + (256 + 3 * 512))
    + 8 * 4 * (64 + 128 + 256 + 512),
}


def classifier(form: str | None, width: int = 8) -> Classifier:
    return Classifier(
        classes=3,
        bit_depth=8,
        backbone={"width": width},
        head={"kind": "linear"},
        adapter=None if form is None else FORMS[form],
        thaw=thaw_epochs("adapter", {}),
    )


def blocks(count: int = 8) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 1, 16, 16), generator=generator).to(torch.uint8)


QINDEX = torch.full((len(blocks()),), 80)


def test_every_kind_is_tested() -> None:
    assert {form["kind"] for form in FORMS.values()} == set(ADAPTERS)


@pytest.mark.parametrize("form", FORMS)
def test_parameter_count_of_the_standard_network(form: str) -> None:
    model = classifier(form, width=64)
    assert count_parameters(model.adapters) == COUNTS[form]
    rows = [r for r in summarise(model, 16) if r.name.startswith("adapter")]
    assert sum(r.trainable for r in rows) == COUNTS[form]
    assert [r.name for r in rows] == [f"adapter{level}" for level in FORMS[form]["layers"]]


@pytest.mark.parametrize("form", FORMS)
def test_starts_as_the_identity(form: str) -> None:
    model, plain = classifier(form, width=16).eval(), classifier(None, width=16).eval()
    plain.backbone.load_state_dict(model.backbone.state_dict(), strict=True)
    ours, theirs = model.features(blocks(), QINDEX), plain.features(blocks(), QINDEX)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
    if FORMS[form]["kind"] in ("ssf", "bitfit", "lora"):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("form", FORMS)
def test_every_adapter_parameter_has_a_gradient_and_moves_and_nothing_else(form: str) -> None:
    model = classifier(form).train()
    for parameter in model.adapters.parameters():
        nn.init.normal_(parameter, std=0.1)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    loss = model(blocks(), torch.full((8,), 80)).square().sum()
    loss.backward()
    for name, parameter in model.named_parameters():
        if name.startswith("backbone."):
            assert parameter.grad is None, name
        else:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name
    torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=0.1).step()
    moved = set(moved_tensors(before, model.state_dict()))
    assert moved == {n for n in before if n.startswith(("adapters.", "head."))}


@pytest.mark.parametrize("form", FORMS)
def test_learns_from_its_own_start(form: str) -> None:
    """From the initial weights, every parameter has moved after two steps."""
    model = classifier(form).train()
    before = {k: v.clone() for k, v in model.adapters.state_dict().items()}
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-3)
    for _ in range(2):
        optimizer.zero_grad()
        model(blocks(), torch.full((8,), 80)).square().sum().backward()
        optimizer.step()
    assert set(moved_tensors(before, model.adapters.state_dict())) == set(before)


def test_bitfit_is_the_training_of_batchnorm_s_biases() -> None:
    model = classifier("bitfit").eval()
    bias = model.backbone.layer2[0].bn1.bias
    bias.requires_grad_(True)
    model(blocks(), torch.full((8,), 80)).square().sum().backward()
    torch.testing.assert_close(model.adapters["layer2_0_bn1"].shift.grad, bias.grad)


@pytest.mark.parametrize("stride", [1, 2])
def test_lora_is_a_change_of_the_kernel_of_low_rank(stride: int) -> None:
    """Beside the convolution or merged into its weight, as in loralib and PEFT."""
    conv = nn.Conv2d(4, 6, 3, stride=stride, padding=1, bias=False)
    lora = ConvLora(conv, rank=2, alpha=8.0)
    nn.init.normal_(lora.up.weight)
    x = torch.randn(2, 4, 8, 8)
    delta = torch.einsum("or,rikl->oikl", lora.up.weight[:, :, 0, 0], lora.down.weight) * (8.0 / 2)
    merged = nn.functional.conv2d(x, conv.weight + delta, stride=stride, padding=1)
    torch.testing.assert_close(conv(x) + lora(x), merged, rtol=1e-4, atol=1e-5)


def test_a_pooled_adapter_is_the_same_everywhere_and_a_convolution_is_not() -> None:
    x = torch.randn(1, 64, 4, 4)
    for form, spread in (("bottleneck", False), ("conv1x1", True)):
        adapter = build_adapters(ResNet18(), **FORMS[form])["layer1"].eval()
        for parameter in adapter.parameters():
            nn.init.normal_(parameter, std=0.1)
        delta = (adapter(x) - x).detach()
        assert (delta.std((2, 3)).max() > 1e-3) == spread


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kind": "prompt", "layers": [1]}, "adapter kind must be one of"),
        ({"kind": "lora", "layers": [1], "bottleneck": 8}, "adapter lora"),
        ({"kind": "conv", "layers": [1], "placement": "stem"}, "adapter.placement"),
        ({"kind": "ssf", "layers": [0]}, "adapter layers"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        build_adapters(ResNet18(width=8), **options)


@pytest.mark.parametrize("stem", ["imagenet", "small"])
@pytest.mark.parametrize("side", [8, 16, 24, 32, 64])
def test_map_sides_are_what_the_network_leaves(stem: Any, side: int) -> None:
    model = Classifier(
        classes=2, bit_depth=8, backbone={"width": 8, "stem": stem}, head={"kind": "linear"}
    )
    rows = [r.side for r in summarise(model, side) if r.name.startswith("layer")]
    assert tuple(rows) == model.backbone.map_sides(side)
