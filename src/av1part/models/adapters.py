"""Adapters: the small trainable parts in a frozen backbone, one interface for all their forms.

============  ==================================================  ===========================
kind          what it computes                                    where (sites of `backbone`)
============  ==================================================  ===========================
`bottleneck`  x + up(relu(down(mean of x))), the same everywhere  after a layer, or in blocks
`conv`        x + up(relu(depthwise(down(x)))), by position       after a layer, or in blocks
`ssf`         x (1 + scale) + shift, by channel                   after a layer's BatchNorms
`bitfit`      x + shift, by channel                               after a layer's BatchNorms
`lora`        conv(x) + up(down(x)) of low rank                   beside each 3x3 convolution
============  ==================================================  ===========================

Of the superblock network's trunk, BatchNorms are those of its residual blocks.

All start as the identity, exactly or nearly so, and leave the backbone's own tensors alone: frozen
stays frozen, and the same Stage-1 checkpoint serves every form.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from av1part.models.backbone import ResNet18, spatial_mean
from av1part.models.dropout import Dropout
from av1part.models.folded import convolve_trained
from av1part.models.layers import LEVELS, Backbone
from av1part.options import PLACEMENTS


class BottleneckAdapter(nn.Module):
    """Pool -> Linear(c, b) -> ReLU -> dropout -> Linear(b, c), added to every position.

    Starts as nearly the identity: weights are normal with a small standard deviation, biases 0.

    Reference: Rebuffi et al., Learning multiple visual domains with residual adapters, NeurIPS
        2017; Houlsby et al., Parameter-efficient transfer learning for NLP, ICML 2019.
    """

    def __init__(
        self, channels: int, *, bottleneck: int = 64, dropout: float = 0.1, init_std: float = 1e-3
    ) -> None:
        super().__init__()
        self.down = nn.Linear(channels, bottleneck)
        self.relu = nn.ReLU()
        self.dropout = Dropout(dropout)
        self.up = nn.Linear(bottleneck, channels)
        for linear in (self.down, self.up):
            nn.init.normal_(linear.weight, std=init_std)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the shape of `x`, (b, c, h, w)."""
        delta: Tensor = self.up(self.dropout(self.relu(self.down(spatial_mean(x)))))
        return x + delta[:, :, None, None]


class ConvAdapter(nn.Module):
    """1x1 (c to b) -> depthwise k x k -> ReLU -> dropout -> 1x1 (b to c), added to the features.

    Unlike `BottleneckAdapter`, with which it shares its parameter count at kernel 1, it does not
    pool: each position is adapted by itself, or with its neighbours at kernel 3.

    Reference: Rebuffi et al., Efficient parametrization of multi-domain deep neural networks, CVPR
        2018 (1x1); Chen et al., Conv-Adapter, CVPR workshops 2024 (depthwise).
    """

    def __init__(
        self,
        channels: int,
        *,
        bottleneck: int = 64,
        kernel: int = 1,
        dropout: float = 0.1,
        init_std: float = 1e-3,
    ) -> None:
        super().__init__()
        self.kernel = kernel
        self.down = nn.Conv2d(channels, bottleneck, 1)
        self.depthwise = (
            nn.Identity()
            if kernel == 1
            else nn.Conv2d(bottleneck, bottleneck, kernel, padding=kernel // 2, groups=bottleneck)
        )
        self.relu = nn.ReLU()
        self.dropout = Dropout(dropout)
        self.up = nn.Conv2d(bottleneck, channels, 1)
        for conv in (self.down, self.up):
            nn.init.normal_(conv.weight, std=init_std)
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]  # there is one
        if isinstance(self.depthwise, nn.Conv2d):
            # A third factor near zero would leave no gradient to begin with.
            nn.init.dirac_(self.depthwise.weight, groups=bottleneck)
            nn.init.zeros_(self.depthwise.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the shape of `x`, (b, c, h, w)."""
        delta: Tensor = self.up(self.dropout(self.relu(self.depthwise(self.down(x)))))
        return x + delta


class ScaleShift(nn.Module):
    """Scale and shift of each channel after a BatchNorm; exactly the identity at the start.

    The scale is kept as its difference from 1, so that weight decay pulls towards the identity.
    With the shift alone it is BitFit: BatchNorm's biases are the only ones a ResNet has, and a
    shift from zero after a frozen bias is that bias, trained.

    Reference: Lian et al., Scaling & shifting your features, NeurIPS 2022 (SSF); Ben Zaken et al.,
        BitFit, ACL 2022.
    """

    scale: nn.Parameter | None

    def __init__(self, channels: int, *, scale: bool) -> None:
        super().__init__()
        self.register_parameter("scale", nn.Parameter(torch.zeros(channels)) if scale else None)
        self.shift = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the shape of `x`, (b, c, h, w)."""
        if self.scale is not None:
            x = x * (1 + self.scale[:, None, None])
        return x + self.shift[:, None, None]


class ConvLora(nn.Module):
    """A change of low rank beside a frozen convolution; exactly zero at the start.

    `down` is a convolution of the frozen one's kernel and stride to `rank` channels, `up` a 1x1
    convolution from there, so that both together are a kernel of the frozen one's shape.

    Reference: Hu et al., LoRA, ICLR 2022; for convolutions as in its authors' `loralib` and PEFT.
    """

    def __init__(
        self, conv: nn.Conv2d, *, rank: int = 8, alpha: float = 16.0, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.scaling = alpha / rank
        self.dropout = Dropout(dropout)
        self.down = nn.Conv2d(
            conv.in_channels,
            rank,
            conv.kernel_size,  # type: ignore[arg-type]  # a pair
            stride=conv.stride,  # type: ignore[arg-type]
            padding=conv.padding,  # type: ignore[arg-type]
            bias=False,
        )
        self.up = nn.Conv2d(rank, conv.out_channels, 1, bias=False)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return the change of the convolution's output for `x`, (b, c, h, w)."""
        delta: Tensor = self.up(convolve_trained(self.down, self.dropout(x)))
        return delta * self.scaling


Built = Iterator[tuple[str, nn.Module]]
"""Sites and their adapters."""


def _placed(
    make: Callable[..., nn.Module],
) -> Callable[..., Built]:
    """Return the builder of a form that maps features to features of the same shape."""

    def build(backbone: Backbone, level: int, *, placement: str = "layer", **options: Any) -> Built:
        if placement not in PLACEMENTS:
            raise ValueError(f"adapter.placement must be one of {PLACEMENTS}, got {placement!r}")
        sites = [f"layer{level}"]
        if placement == "block":
            sites = [f"layer{level}_{index}" for index in range(len(backbone.residual(level)))]
        for site in sites:
            yield site, make(backbone.channels[level - 1], **options)

    return build


def _scale_shift(backbone: Backbone, level: int, *, scale: bool) -> Built:
    for index, block in enumerate(backbone.residual(level)):
        places = ["bn1", "bn2", *(["down"] if getattr(block, "downsample", None) else [])]
        for place in places:
            yield (
                f"layer{level}_{index}_{place}",
                ScaleShift(backbone.channels[level - 1], scale=scale),
            )


def _ssf(backbone: Backbone, level: int) -> Built:
    return _scale_shift(backbone, level, scale=True)


def _bitfit(backbone: Backbone, level: int) -> Built:
    return _scale_shift(backbone, level, scale=False)


def _lora(backbone: Backbone, level: int, **options: Any) -> Built:
    for index, block in enumerate(backbone.residual(level)):
        for place in ("conv1", "conv2"):
            conv = block.get_submodule(place)
            assert isinstance(conv, nn.Conv2d)
            yield f"layer{level}_{index}_{place}", ConvLora(conv, **options)


ADAPTERS: Mapping[str, Callable[..., Built]] = {
    "bottleneck": _placed(BottleneckAdapter),
    "conv": _placed(ConvAdapter),
    "ssf": _ssf,
    "bitfit": _bitfit,
    "lora": _lora,
}
"""Adapter kind to its builder: backbone, level, then the form's own options."""


def build_adapters(
    backbone: Backbone, *, layers: Sequence[int], kind: str = "bottleneck", **options: Any
) -> nn.ModuleDict:
    """Build the adapters of the named layers.

    Args:
        backbone: The backbone, whose channels and convolutions they fit; not changed.
        layers: Residual layers that get adapters, of 1..4, at least one.
        kind: A key of `ADAPTERS`.
        **options: Of that kind: the arguments of its class, and `placement` (`layer` or `block`)
            for `bottleneck` and `conv`.

    Returns:
        Site to adapter, in the order of the data flow of the layers.

    Raises:
        ValueError: if `layers` names none, another layer or one twice, the kind is unknown, or an
            option does not fit it.
    """
    if not set(layers) <= set(LEVELS) or len(set(layers)) != len(layers):
        raise ValueError(f"adapter layers must be distinct and among {LEVELS}, got {list(layers)}")
    if not layers or {type(level) for level in layers} != {int}:
        raise ValueError(
            f"adapter layers must be at least one integer, got {list(layers)}; without adapters "
            "it is method=frozen"
        )
    if kind not in ADAPTERS:
        raise ValueError(f"adapter kind must be one of {', '.join(ADAPTERS)}, got {kind!r}")
    there = [level for level in LEVELS if f"layer{level}" in backbone.layers()]
    if not set(layers) <= set(there):
        raise ValueError(
            f"adapter.layers={list(layers)}: this backbone has layers {there} at this node size"
        )
    built = []
    for level in sorted(layers):
        try:
            of_level = list(ADAPTERS[kind](backbone, level, **options))
        except TypeError as error:
            raise ValueError(f"adapter {kind}: {error}") from None
        if not of_level:
            raise ValueError(
                f"adapter.layers={list(layers)}: layer {level} of this backbone has no residual "
                "block, in which this adapter sits: leave it out"
            )
        built += of_level
    return nn.ModuleDict(dict(built))


def check_adapter_maps(backbone: Backbone, adapters: nn.ModuleDict, side: int) -> None:
    """Refuse kernels larger than 1 on a map of a single sample.

    Args:
        backbone: The backbone, which determines the size of the maps.
        adapters: From `build_adapters`.
        side: Samples a side of the blocks, context included.

    Raises:
        ValueError: naming the layer and the remedy.
    """
    sides = dict(zip(LEVELS, backbone.map_sides(side), strict=True))
    for site, adapter in adapters.items():
        level = int(site.removeprefix("layer")[0])
        if isinstance(adapter, ConvAdapter) and adapter.kernel > 1 and sides[level] == 1:
            usable = [k for k, s in sides.items() if s > 1]
            other = "backbone=resnet18_small or " if isinstance(backbone, ResNet18) else ""
            raise ValueError(
                f"adapter.kernel={adapter.kernel} in layer {level}, where a block of "
                f"{side}x{side} is a single sample: use adapter.kernel=1, "
                f"adapter.layers={usable}, {other}data.context"
            )
