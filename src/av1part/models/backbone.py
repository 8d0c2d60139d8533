"""ResNet-18 for one luma channel, with optional squeeze-and-excitation and spatial attention.

    block -> stem -> layer1 -> SE -> layer2 -> SE -> layer3 -> SE -> layer4 -> SE -> attention

The classifier walks these levels one by one. Each level has named places ("sites") at which an
adapter may act without being part of the backbone:

    x -> conv1 -> bn1 -> relu -> conv2 -> bn2 -> (+) -> relu      layerK_B_conv1, layerK_B_bn1,
    `----------- (downsample conv -> bn) --------^                layerK_B_conv2, layerK_B_bn2,
                                                                  layerK_B (before the sum),
    SE, attention -> layerK                                       layerK_B_down, layerK
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from av1part.models.folded import convolve, convolve_trained, norm_scale

LEVELS = (1, 2, 3, 4)
"""Numbers of the residual layers, after each of which an adapter may sit."""

LAYERS = ("stem", *(f"layer{level}" for level in LEVELS))
"""Groups of the backbone's parameters, from the input on; attention belongs to its layer."""

Stem = Literal["imagenet", "small"]

_OWNERS = {
    **dict.fromkeys(("conv1", "bn1", "relu", "maxpool"), "stem"),
    "attention": "layer4",
    **{f"{part}{level}": f"layer{level}" for level in LEVELS for part in ("layer", "se")},
}


AdapterMap = Mapping[str, nn.Module] | nn.ModuleDict
"""Site to adapter."""

NO_ADAPTERS: AdapterMap = {}


def layer_of(name: str) -> str:
    """Return which of `LAYERS` a parameter, buffer or module of the backbone belongs to.

    >>> layer_of("se2.squeeze.weight")
    'layer2'
    """
    return _OWNERS[name.partition(".")[0]]


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


class ResNet18(nn.Module):
    """torchvision's ResNet-18 on one channel, without its classifier.

    Parameter names are torchvision's, so that its weights load by name.

    `channels` holds the channels after layers 1 to 4: `width` times 1, 2, 4, 8.
    """

    def __init__(
        self, *, width: int = 64, se: bool = True, attention: bool = True, stem: Stem = "imagenet"
    ) -> None:
        """Build and initialise as torchvision does (He normal convolutions).

        Args:
            width: Channels after the stem; 64 is the standard network.
            se: Squeeze-and-excitation after each layer.
            attention: 7x7 spatial attention after layer 4.
            stem: `imagenet` is 7x7 stride 2 and a pool of stride 2; `small` is 3x3 stride 1
                without pool, so that a 16x16 block keeps 16, 8, 4, 2 samples a side.

        Raises:
            ValueError: if the stem is unknown.
        """
        super().__init__()
        if stem not in ("imagenet", "small"):
            raise ValueError(f"stem must be imagenet or small, got {stem!r}")
        small = stem == "small"
        self.channels = tuple(width << level for level in range(4))
        self.conv1 = (
            nn.Conv2d(1, width, 3, padding=1, bias=False)
            if small
            else nn.Conv2d(1, width, 7, stride=2, padding=3, bias=False)
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

    def stem(self, x: Tensor) -> Tensor:
        """Map normalised blocks (b, 1, s, s) to features (b, width, s/4, s/4)."""
        # The pool before the ReLU: the same values, and a quarter of them to clip.
        features: Tensor = self.relu(self.maxpool(convolve(self.conv1, self.bn1, x)))
        return features

    def level(self, level: int, x: Tensor, adapters: AdapterMap = NO_ADAPTERS) -> Tensor:
        """Apply residual layer `level` (1..4) with its attention modules and its adapters.

        Args:
            level: Which layer.
            x: Features of the level before, shape (b, c, h, w).
            adapters: Site to adapter; those of other levels are ignored.

        Returns:
            Features, shape (b, channels[level - 1], h', w').
        """
        name = f"layer{level}"
        for index, block in enumerate(self.blocks(level)):
            x = _residual(block, x, adapters, f"{name}_{index}")
        for attention in (f"se{level}", *(["attention"] if level == 4 else [])):
            module = self._modules.get(attention)
            if module is not None:
                x = module(x)
        return adapted(x, adapters, name)

    def blocks(self, level: int) -> list[BasicBlock]:
        """Return the residual blocks of a layer."""
        layer = self.get_submodule(f"layer{level}")
        assert isinstance(layer, nn.Sequential)
        return list(layer)

    def map_sides(self, side: int) -> tuple[int, ...]:
        """Return the samples a side after layers 1 to 4 for blocks of `side` luma samples.

        Every stride halves and rounds up, since kernels are odd and padded by half.
        """
        strides = 0 if isinstance(self.maxpool, nn.Identity) else 2
        return tuple(-(-side // (1 << (strides + level - 1))) for level in LEVELS)


def _residual(block: BasicBlock, x: Tensor, adapters: AdapterMap, site: str) -> Tensor:
    """Apply torchvision's BasicBlock, with the sites of its adapters."""
    y = block.relu(_convolved(block.conv1, block.bn1, x, adapters, f"{site}_conv1", f"{site}_bn1"))
    y = _convolved(block.conv2, block.bn2, y, adapters, f"{site}_conv2", f"{site}_bn2")
    y = adapted(y, adapters, site)
    if block.downsample is not None:
        conv, norm = block.downsample
        x = adapted(convolve(conv, norm, x), adapters, f"{site}_down")
    summed: Tensor = block.relu(y + x)
    return summed


def _convolved(
    conv: nn.Conv2d, norm: nn.BatchNorm2d, x: Tensor, adapters: AdapterMap, beside: str, after: str
) -> Tensor:
    """Convolve and normalise; an adapter `beside` the convolution works on the same input."""
    if beside not in adapters:
        y = convolve(conv, norm, x)
    elif norm.training:
        y = norm(convolve_trained(conv, x) + adapters[beside](x))
    else:
        y = convolve(conv, norm, x) + adapters[beside](x) * norm_scale(norm)[:, None, None]
    return adapted(y, adapters, after)


def adapted(x: Tensor, adapters: AdapterMap, site: str) -> Tensor:
    """Apply the adapter of a site, if it has one, to features of shape (b, c, h, w)."""
    return adapters[site](x) if site in adapters else x


def _layer(inputs: int, channels: int, stride: int) -> nn.Sequential:
    downsample = None
    if stride != 1 or inputs != channels:
        downsample = nn.Sequential(
            nn.Conv2d(inputs, channels, 1, stride=stride, bias=False), nn.BatchNorm2d(channels)
        )
    first = BasicBlock(inputs, channels, stride, downsample)
    return nn.Sequential(first, BasicBlock(channels, channels))
