"""Folded layers compute what the layers they stand for compute, and never with stale weights."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from av1part.models import folded
from av1part.models.adapters import ConvLora
from av1part.models.backbone import ResNet18
from av1part.models.classifier import Classifier
from av1part.models.folded import convolve, convolve_trained, folded_inference
from av1part.models.freeze import thaw_epochs
from av1part.models.layers import LEVELS

CLOSE = 1e-5


def shake(module: nn.Module, seed: int) -> nn.Module:
    """Give BatchNorms statistics and weights that are not those of the start."""
    generator = torch.Generator().manual_seed(seed)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor, low, high in (
                (norm.weight, 0.5, 1.5),
                (norm.bias, -0.5, 0.5),
                (norm.running_mean, -0.5, 0.5),
                (norm.running_var, 0.5, 2.0),
            ):
                assert tensor is not None
                tensor.data.uniform_(low, high, generator=generator)
    return module


def apart(a: Tensor, b: Tensor) -> float:
    """The largest difference, by the size of the values."""
    return float((a - b).abs().max() / b.abs().max().clamp_min(1e-6))


@settings(deadline=None, max_examples=60)
@given(
    inputs=st.integers(1, 9),
    outputs=st.integers(1, 9),
    kernel=st.sampled_from([1, 3, 5, 7]),
    stride=st.sampled_from([1, 2]),
    height=st.integers(1, 5),
    width=st.integers(1, 5),
    norm=st.booleans(),
    channels_last=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_a_layer_is_what_it_stands_for(
    inputs: int,
    outputs: int,
    kernel: int,
    stride: int,
    height: int,
    width: int,
    norm: bool,
    channels_last: bool,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)
    batch_norm = shake(nn.BatchNorm2d(outputs), seed).eval() if norm else None
    assert batch_norm is None or isinstance(batch_norm, nn.BatchNorm2d)
    x = torch.randn(3, inputs, height, width)
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
    with torch.no_grad(), folded_inference():
        plain = conv(x) if batch_norm is None else batch_norm(conv(x))
        found = convolve(conv, batch_norm, x)
    assert found.shape == plain.shape
    assert float((found - plain).abs().max()) <= CLOSE * max(1.0, float(plain.abs().max()))


def plainly(model: Classifier, block: Tensor) -> Tensor:
    """The classifier by torchvision's own forward passes."""
    b = model.backbone
    x = b.maxpool(b.relu(b.bn1(b.conv1(model.normalise(block)))))
    for level in LEVELS:
        x = b.get_submodule(f"layer{level}")(x)
        x = b.get_submodule(f"se{level}")(x)
    pooled = torch.cat((x.mean(1, keepdim=True), x.amax(1, keepdim=True)), dim=1)
    x = x * torch.sigmoid(b.attention.conv(pooled))
    logits: Tensor = model.head(x.mean((2, 3)))
    return logits


def classifier(width: int = 8, **options: object) -> Classifier:
    model = Classifier(
        classes=3,
        bit_depth=8,
        backbone={"width": width, **options},
        head={"kind": "linear"},
        thaw=thaw_epochs("frozen", {}),
    )
    shake(model, 1)
    return model


@pytest.mark.parametrize("stem", ["imagenet", "small"])
@pytest.mark.parametrize("side", [8, 16, 24, 32, 64])
def test_the_whole_network_is_too(stem: str, side: int) -> None:
    torch.manual_seed(side)
    model = classifier(stem=stem).eval()
    block = torch.randint(0, 256, (5, 1, side, side), dtype=torch.uint8)
    with torch.no_grad():
        assert apart(model(block, torch.zeros(5)), plainly(model, block)) < CLOSE


def test_at_full_width_too_and_with_gradients() -> None:
    torch.manual_seed(0)
    model = classifier(width=64).eval()
    block = torch.randint(0, 256, (4, 1, 16, 16), dtype=torch.uint8)
    with torch.no_grad():
        assert apart(model(block, torch.zeros(4)), plainly(model, block)) < CLOSE
    x = torch.randn(4, 64, 4, 4)
    grads = []
    for level in (
        lambda x: model.backbone.level(2, x),
        lambda x: model.backbone.se2(model.backbone.layer2(x)),
    ):
        start = x.clone().requires_grad_()
        level(start).square().sum().backward()
        assert start.grad is not None
        grads.append(start.grad)
    assert apart(*grads) < CLOSE


def test_single_pixels_are_a_matrix_product(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind layer 2 of a 16x16 block no convolution is left."""
    model, sides = classifier().eval(), []
    conv2d = folded.functional.conv2d

    def watched(x: Tensor, *args: object, **options: object) -> Tensor:
        sides.append(x.shape[-1])
        found: Tensor = conv2d(x, *args, **options)  # type: ignore[arg-type]
        return found

    monkeypatch.setattr(folded.functional, "conv2d", watched)
    with torch.no_grad():
        model(torch.zeros(2, 1, 16, 16, dtype=torch.uint8), torch.zeros(2))
    assert sides == [16, 4, 4, 4, 4, 4], "stem, layer 1, and the first of layer 2"


def step(model: ResNet18) -> None:
    """Train everything for a step, with the optimizer that training uses."""
    before = model.layer1[0].conv1.weight.requires_grad
    model.requires_grad_(True)
    x = torch.randn(2, 8, 4, 4)
    for level in LEVELS:
        x = model.level(level, x)
    x.sum().backward()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    torch.optim.AdamW(model.parameters(), lr=0.1, fused=True).step()
    model.zero_grad()
    model.requires_grad_(before)


def load(model: ResNet18) -> None:
    model.load_state_dict({k: v * 0.5 for k, v in model.state_dict().items()})


def assign(model: ResNet18) -> None:
    model.load_state_dict({k: v * 0.5 for k, v in model.state_dict().items()}, assign=True)


def write(model: ResNet18) -> None:
    with torch.no_grad():
        model.layer4[1].conv2.weight.mul_(2)


def move_statistics(model: ResNet18) -> None:
    model.train()
    x = torch.randn(8, 8, 4, 4)
    for level in LEVELS:
        x = model.level(level, x)
    model.eval()


@pytest.mark.parametrize("change", [step, load, assign, write, move_statistics])
@pytest.mark.parametrize("frozen", [True, False])
def test_weights_that_change_are_folded_anew(
    change: Callable[[ResNet18], None], frozen: bool
) -> None:
    torch.manual_seed(0)
    model = shake(ResNet18(width=8), 1).eval().requires_grad_(not frozen)
    assert isinstance(model, ResNet18)

    def both() -> tuple[Tensor, Tensor]:
        x = torch.randn(3, 8, 4, 4, generator=torch.Generator().manual_seed(2))
        y = x
        with torch.inference_mode(), folded_inference():
            for level in LEVELS:
                x = model.level(level, x)
                y = model.get_submodule(f"se{level}")(model.get_submodule(f"layer{level}")(y))
            return x, model.attention(y)

    before, _ = both()
    change(model)
    after, plain = both()
    assert apart(after, plain) < CLOSE
    assert apart(after, before) > 1e-4, "the change did change something"


def test_a_copy_does_not_share_what_was_folded() -> None:
    model = shake(ResNet18(width=8), 1).eval()
    x = torch.randn(2, 8, 4, 4)
    with torch.no_grad():
        first = model.level(2, x)
        other = copy.deepcopy(model)
        other.layer2[1].conv2.weight.zero_()
        assert not torch.equal(other.level(2, x), first)
        assert torch.equal(model.level(2, x), first)


def test_what_is_trained_is_not_folded() -> None:
    conv, norm = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
    x = torch.randn(6, 4, 1, 1)
    convolve(conv, norm.eval(), x).sum().backward()
    assert conv.weight.grad is not None
    norm.train()
    conv.requires_grad_(False)
    norm.requires_grad_(False)
    before = norm.running_mean.clone()
    convolve(conv, norm, x)
    assert not torch.equal(norm.running_mean, before), "statistics of a layer in training move"


def test_training_goes_on_after_inference() -> None:
    """What inference mode folded must not be an inference tensor."""
    model = classifier().eval()
    x = torch.randn(2, 8, 4, 4)
    with torch.inference_mode():
        model.backbone.level(2, x)
    start = x.clone().requires_grad_()
    model.backbone.level(2, start).sum().backward()
    assert start.grad is not None


def test_autocast_decides_the_dtype() -> None:
    model = classifier(width=16).eval()
    block = torch.randint(0, 256, (8, 1, 16, 16), dtype=torch.uint8)
    with torch.inference_mode():
        whole = model(block, torch.zeros(8))
        with torch.autocast("cpu", torch.bfloat16):
            half = model(block, torch.zeros(8))
        assert half.dtype == torch.bfloat16
        assert torch.equal(model(block, torch.zeros(8)), whole), "and float32 is kept beside it"
    assert 0 < apart(half.float(), whole) < 0.05


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("lora", [False, True], ids=["conv", "lora"])
def test_the_gradient_of_a_strided_pixel_is_right_in_bfloat16(kernel: int, lora: bool) -> None:
    """OneDNN leaves in it what the memory held before; NaN here."""
    conv = nn.Conv2d(32, 64, kernel, stride=2, padding=kernel // 2, bias=False)
    beside = ConvLora(conv, rank=16)
    nn.init.normal_(beside.up.weight)
    trained = beside.down if lora else conv
    assert isinstance(trained, nn.Conv2d)

    def gradient(x: Tensor, half: bool) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            y = beside(x) if lora else convolve_trained(conv, x)
        assert y.shape == (32, 64, 1, 1)
        (found,) = torch.autograd.grad(y.float().square().sum(), trained.weight)
        return found

    for _ in range(20):
        left = [torch.full((trained.weight.numel(),), float("nan")).bfloat16() for _ in range(4)]
        del left
        x = torch.randn(32, 32, 1, 1)
        assert apart(gradient(x, half=True), gradient(x, half=False)) < 0.05


def test_a_strided_convolution_of_few_channels_stays_within_its_memory() -> None:
    """In a process of its own: oneDNN's gradient of it damages the heap, with AVX-512."""
    code = """
import torch
from torch import nn
from av1part.models.folded import convolve_trained

torch.manual_seed(0)
for channels in (4, 8):
    conv = nn.Conv2d(channels, 16, 1, 2, bias=False).to(memory_format=torch.channels_last)
    x = torch.randn(8, channels, 64, 64).to(memory_format=torch.channels_last).requires_grad_()
    for _ in range(4):
        y = convolve_trained(conv, x)
        y.square().sum().backward()
    assert torch.allclose(y, conv(x), atol=1e-5)
    assert x.grad.isfinite().all() and conv.weight.grad.isfinite().all()
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
