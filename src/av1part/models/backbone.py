"""ResNet-18 for luma, with optional squeeze-and-excitation and spatial attention.

    planes -> stem -> layer1 -> SE -> layer2 -> SE -> layer3 -> SE -> layer4 -> SE -> attention

The classifier walks these levels one by one. Each level has named places ("sites") at which an
adapter may act without being part of the backbone:

    x -> conv1 -> bn1 -> relu -> conv2 -> bn2 -> (+) -> relu      layerK_B_conv1, layerK_B_bn1,
    `----------- (downsample conv -> bn) --------^                layerK_B_conv2, layerK_B_bn2,
                                                                  layerK_B (before the sum),
    SE, attention -> layerK                                       layerK_B_down, layerK

With conditioning in the blocks, FiLM by the quantiser step comes after bn1 (and its adapter).

Shapes: b blocks, p input planes, c channels, s samples a side, e length of an embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from av1part.models.film import StepEmbedding, film_layer, modulated
from av1part.models.folded import convolve
from av1part.models.layers import LEVELS, NO_ADAPTERS, AdapterMap, Backbone, adapted, convolved

Stem = Literal["imagenet", "small"]

_OWNERS = {
    **dict.fromkeys(("conv1", "bn1", "relu", "maxpool"), "stem"),
    "attention": "layer4",
    # All blocks use the embedding, so it is trained only if the first of them is.
    "condition": "layer1",
    **{f"{part}{level}": f"layer{level}" for level in LEVELS for part in ("layer", "se")},
}


def layer_of(name: str) -> str:
    """Return which of `LAYERS` a parameter, buffer or module of a `ResNet18` belongs to.

    >>> layer_of("se2.squeeze.weight"), layer_of("film.layer3_0.bias")
    ('layer2', 'layer3')
    """
    part, _, rest = name.partition(".")
    return rest.partition("_")[0] if part == "film" else _OWNERS[part]


def spatial_mean(x: Tensor) -> Tensor:
    """Average features (b, c, h, w) over their map, (b, c); a single pixel is its own mean."""
    return x.flatten(1) if x.shape[2:] == (1, 1) else x.mean((2, 3))


class SqueezeExcitation(nn.Module):
    """Channel attention: pool, two linear maps without bias, sigmoid, scale.

    Reference: Hu et al., Squeeze-and-Excitation Networks, CVPR 2018, section 3.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.squeeze = nn.Linear(channels, hidden, bias=False)
        self.excite = nn.Linear(hidden, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Scale each channel of `x`, shape (b, c, h, w), by its gate in 0..1."""
        gate = torch.sigmoid(self.excite(torch.relu(self.squeeze(spatial_mean(x)))))
        return x * gate[:, :, None, None]


class SpatialAttention(nn.Module):
    """Position attention: a 7x7 convolution without bias over channel mean and maximum.

    Reference: Woo et al., CBAM, ECCV 2018, section 3.
    """

    def __init__(self, kernel: int = 7) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Scale each position of `x`, shape (b, c, h, w), by its gate in 0..1."""
        pooled = torch.cat((x.mean(1, keepdim=True), x.amax(1, keepdim=True)), dim=1)
        return x * torch.sigmoid(convolve(self.conv, None, pooled))


class ResNet18(Backbone):
    """torchvision's ResNet-18 on luma, without its classifier.

    Parameter names are torchvision's, so that its weights load by name. The channels after layers 1
    to 4 are `width` times 1, 2, 4, 8.
    """

    def __init__(
        self,
        *,
        width: int = 64,
        se: bool = True,
        attention: bool = True,
        stem: Stem = "imagenet",
        planes: int = 1,
        conditioned: bool = False,
    ) -> None:
        """Build and initialise as torchvision does (He normal convolutions).

        Args:
            width: Channels after the stem; 64 is the standard network.
            se: Squeeze-and-excitation after each layer.
            attention: 7x7 spatial attention after layer 4.
            stem: `imagenet` is 7x7 stride 2 and a pool of stride 2; `small` is 3x3 stride 1
                without pool, so that a 16x16 block keeps 16, 8, 4, 2 samples a side.
            planes: Input planes.
            conditioned: Whether the residual blocks take the qindex in.

        Raises:
            ValueError: if the stem is unknown.
        """
        super().__init__()
        if stem not in ("imagenet", "small"):
            raise ValueError(f"stem must be imagenet or small, got {stem!r}")
        small = stem == "small"
        self.channels = tuple(width << level for level in range(4))
        self.conv1 = (
            nn.Conv2d(planes, width, 3, padding=1, bias=False)
            if small
            else nn.Conv2d(planes, width, 7, stride=2, padding=3, bias=False)
        )
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if small else nn.MaxPool2d(3, stride=2, padding=1)
        before = width
        for level, channels in zip(LEVELS, self.channels, strict=True):
            self.add_module(f"layer{level}", _layer(before, channels, stride=1 + (level > 1)))
            before = channels
        if se:
            for level, channels in zip(LEVELS, self.channels, strict=True):
                self.add_module(f"se{level}", SqueezeExcitation(channels))
        if attention:
            self.attention = SpatialAttention()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        self.condition = StepEmbedding() if conditioned else None
        if conditioned:
            sites = {level: len(self.residual(level)) for level in LEVELS}
            self.film = nn.ModuleDict(
                {
                    f"layer{level}_{index}": film_layer(self.channels[level - 1])
                    for level, count in sites.items()
                    for index in range(count)
                }
            )

    @property
    def facts(self) -> dict[str, Any]:
        """See `Backbone`."""
        return {"pooled_stem": not isinstance(self.maxpool, nn.Identity)}

    def layer_of(self, name: str) -> str:
        """See `Backbone`; as the function of this name."""
        return layer_of(name)

    def parts(self) -> Iterator[tuple[str, nn.Module]]:
        """See `Backbone`."""
        for name, module in self.named_children():
            if name != "film":
                yield layer_of(name), module
            else:
                yield from ((layer_of(f"film.{site}"), layer) for site, layer in self.film.items())

    def pool(self, x: Tensor) -> Tensor:
        """See `Backbone`: the mean over the map."""
        return spatial_mean(x)

    def stem(self, x: Tensor, embedded: Tensor | None = None) -> Tensor:
        """Map planes (b, p, s, s) to features (b, width, s/4, s/4); it takes no qindex in."""
        # The pool before the ReLU: the same values, and a quarter of them to clip.
        features: Tensor = self.relu(self.maxpool(convolve(self.conv1, self.bn1, x)))
        return features

    def level(
        self,
        level: int,
        x: Tensor,
        adapters: AdapterMap = NO_ADAPTERS,
        embedded: Tensor | None = None,
    ) -> Tensor:
        """See `Backbone`: residual layer `level` with its attention modules."""
        name = f"layer{level}"
        for index, block in enumerate(self.residual(level)):
            site = f"{name}_{index}"
            inner = None
            if self.condition is not None:
                assert embedded is not None
                inner = partial(modulated, film=self.film[site], embedded=embedded)
            x = _residual(block, x, adapters, site, inner)
        for attention in (f"se{level}", *(["attention"] if level == 4 else [])):
            module = self._modules.get(attention)
            if module is not None:
                x = module(x)
        return adapted(x, adapters, name)

    def residual(self, level: int) -> list[BasicBlock]:
        """See `Backbone`."""
        layer = self.get_submodule(f"layer{level}")
        assert isinstance(layer, nn.Sequential)
        return list(layer)

    def map_sides(self, side: int) -> tuple[int, ...]:
        """See `Backbone`.

        Every stride halves and rounds up, since kernels are odd and padded by half.
        """
        strides = 0 if isinstance(self.maxpool, nn.Identity) else 2
        return tuple(-(-side // (1 << (strides + level - 1))) for level in LEVELS)


def _residual(
    block: BasicBlock,
    x: Tensor,
    adapters: AdapterMap,
    site: str,
    modulate: Callable[[Tensor], Tensor] | None,
) -> Tensor:
    """Apply torchvision's BasicBlock, with the sites of its adapters and its FiLM layer."""
    y = convolved(block.conv1, block.bn1, x, adapters, f"{site}_conv1", f"{site}_bn1")
    y = block.relu(y if modulate is None else modulate(y))
    y = convolved(block.conv2, block.bn2, y, adapters, f"{site}_conv2", f"{site}_bn2")
    y = adapted(y, adapters, site)
    if block.downsample is not None:
        conv, norm = block.downsample
        x = adapted(convolve(conv, norm, x), adapters, f"{site}_down")
    summed: Tensor = block.relu(y + x)
    return summed


def _layer(inputs: int, channels: int, stride: int) -> nn.Sequential:
    downsample = None
    if stride != 1 or inputs != channels:
        downsample = nn.Sequential(
            nn.Conv2d(inputs, channels, 1, stride=stride, bias=False), nn.BatchNorm2d(channels)
        )
    first = BasicBlock(inputs, channels, stride, downsample)
    return nn.Sequential(first, BasicBlock(channels, channels))
