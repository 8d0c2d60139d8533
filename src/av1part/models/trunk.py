"""The bottom-up path of the superblock network, whole or as the backbone of a block classifier.

    planes -> stride 2 -> 4 -> 8 -> ...     a convolution of the stride, then residual blocks

A cell of the map at stride s is the s x s luma samples in its place. For a classifier of nodes of
size s (`NodeTrunk`) the path ends at stride s, and the node's own cell is its features:

    node size   stem    layer1   layer2   layer3   layer4
        8                           2        4        8
       16                  2        4        8       16
       32        2         4        8       16       32       strides
       64       2, 4       8       16       32       64

A block is cut so that its border lies on cells of every stride, as those of the whole frame do:
its margin is a multiple of s. Beyond the margin the convolutions see zeros; a margin as wide as the
reach of a cell gives the features of the superblock network at that node.

Shapes: b blocks or crops, p planes, c channels, h, w luma samples, e length of an embedding.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from av1part.models.film import StepEmbedding, film_layer, modulated
from av1part.models.layers import LEVELS, NO_ADAPTERS, AdapterMap, Backbone, adapted
from av1part.options import MOST_DEPTH, MOST_WIDTH

STRIDES = (2, 4, 8, 16, 32, 64)

TOP_DOWN = ("top_down", "merged")
"""Parts of the superblock network's trunk that are its way back down, which `NodeTrunk` lacks."""

_WIDTHS = (1.0, 1.5, 2.5, 3.5, 4.0, 5.0)
"""Channels at each stride, in units of the width."""


class FiLMBlock(nn.Module):
    """A residual block whose inner map is scaled and shifted by the conditioning.

    The identity at the start: its second convolution is zero.
    """

    def __init__(self, channels: int, *, conditioned: bool) -> None:
        """Build the block, with a FiLM layer if it is conditioned."""
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.film = film_layer(channels) if conditioned else None
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        for parameter in self.conv2.parameters():
            nn.init.zeros_(parameter)

    def forward(
        self,
        x: Tensor,
        embedded: Tensor | None,
        adapters: AdapterMap = NO_ADAPTERS,
        site: str = "",
    ) -> Tensor:
        """Apply the block.

        Args:
            x: float, shape (b, c, h, w).
            embedded: The embedding of the qindex, shape (b, e); None if it is not conditioned.
            adapters: Site to adapter: beside each convolution, and before the sum.
            site: The block's own site.

        Returns:
            float, of the shape of `x`.
        """
        inner = _beside(self.conv1, x, adapters, f"{site}_conv1")
        if self.film is not None:
            assert embedded is not None
            inner = modulated(inner, self.film, embedded)
        change = _beside(self.conv2, torch.relu(inner), adapters, f"{site}_conv2")
        return torch.relu(x + adapted(change, adapters, site))


def _beside(conv: nn.Conv2d, x: Tensor, adapters: AdapterMap, site: str) -> Tensor:
    """Convolve; an adapter beside the convolution works on the same input."""
    y: Tensor = conv(x)
    return y + adapters[site](x) if site in adapters else y


class BottomUp(nn.Module):
    """Maps at the first strides, each from the one before.

    `strides` are those that there are, `by_stride` their channels, `depth` the residual blocks of
    each, `condition` the embedding of the qindex or None.
    """

    def __init__(
        self, planes: int, *, width: int, depth: int, conditioned: bool, coarsest: int
    ) -> None:
        """Build the path; `initialise` gives the convolutions between strides their weights.

        Args:
            planes: Input planes.
            width: Channels at stride 2; other strides have more in proportion.
            depth: Residual blocks at each stride.
            conditioned: Whether the blocks take the qindex in.
            coarsest: The last stride, of `STRIDES`.

        Raises:
            ValueError: if width or depth is out of range.
        """
        super().__init__()
        for name, value, most in (("width", width, MOST_WIDTH), ("depth", depth, MOST_DEPTH)):
            if type(value) is not int or not 1 <= value <= most:
                raise ValueError(f"{name} must be a whole number from 1 to {most}, got {value!r}")
        self.strides = STRIDES[: STRIDES.index(coarsest) + 1]
        self.depth = depth
        channels = [max(1, round(width * more)) for more in _WIDTHS[: len(self.strides)]]
        self.by_stride = dict(zip(self.strides, channels, strict=True))
        self.condition = StepEmbedding() if conditioned else None
        # The stem's windows overlap, and are centred on their cells, as all that follows is.
        self.down = nn.ModuleList(
            nn.Conv2d(planes, c, 4, stride=2, padding=1)
            if stride == STRIDES[0]
            else nn.Conv2d(before, c, 2, stride=2)
            for stride, before, c in zip(self.strides, [planes, *channels], channels, strict=False)
        )
        self.blocks = nn.ModuleList(
            nn.ModuleList(FiLMBlock(c, conditioned=conditioned) for _ in range(depth))
            for c in channels
        )

    @property
    def reach(self) -> int:
        """Luma samples around a cell of the last map that change it, without the planes' own."""
        return 1 + 2 * self.depth * sum(self.strides)

    def step(
        self,
        stride: int,
        x: Tensor,
        embedded: Tensor | None,
        adapters: AdapterMap = NO_ADAPTERS,
        site: str = "",
    ) -> Tensor:
        """Compute the map at a stride.

        Args:
            stride: One of `strides`.
            x: The map of the stride before, or the planes.
            embedded: The embedding of the qindex, shape (b, e), or None.
            adapters: Site to adapter; block i of this stride has the sites of `{site}_{i}`.
            site: As that.

        Returns:
            float, shape (b, c, h / stride, w / stride).
        """
        x = torch.relu(self.down[self.strides.index(stride)](x))
        for index, block in enumerate(self.blocks_at(stride)):
            x = block(x, embedded, adapters, f"{site}_{index}")
        return x

    def blocks_at(self, stride: int) -> Sequence[nn.Module]:
        """Return the residual blocks of a stride."""
        blocks = self.blocks[self.strides.index(stride)]
        assert isinstance(blocks, nn.ModuleList)
        return list(blocks)


def initialise(layers: Iterable[nn.Module]) -> None:
    """Draw the weights of convolutions outside of residual blocks (He normal), without biases."""
    for layer in layers:
        assert isinstance(layer, nn.Conv2d)
        assert layer.bias is not None
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)


class NodeTrunk(BottomUp, Backbone):
    """The path up to the stride of the nodes that a classifier answers, as its backbone."""

    def __init__(
        self, *, size: int, planes: int, width: int = 16, depth: int = 1, conditioned: bool = True
    ) -> None:
        """Build the path and draw its weights.

        Args:
            size: Luma samples a side of the nodes.
            planes: Input planes.
            width: Channels at stride 2; other strides have more in proportion.
            depth: Residual blocks at each stride.
            conditioned: Whether the blocks take the qindex in.
        """
        super().__init__(planes, width=width, depth=depth, conditioned=conditioned, coarsest=size)
        self.size = size
        self._level_strides = tuple(size >> (len(LEVELS) - level) for level in LEVELS)
        self.channels = tuple(self.by_stride.get(stride, planes) for stride in self._level_strides)
        initialise(self.down)

    @property
    def facts(self) -> dict[str, Any]:
        """See `Backbone`."""
        return {"strides": list(self.strides), "depth": self.depth}

    def layer_of(self, name: str) -> str:
        """See `Backbone`; the embedding belongs to the first stride, whose blocks use it first."""
        part, number, *_ = name.split(".")
        return self._layer(STRIDES[0] if part == "condition" else STRIDES[int(number)])

    def _layer(self, stride: int) -> str:
        levels = dict(zip(self._level_strides, LEVELS, strict=True))
        return f"layer{levels[stride]}" if stride in levels else "stem"

    def check_context(self, size: int, context: int) -> None:
        """See `Backbone`: the border must lie on cells of every stride.

        Args:
            size: Luma samples a side of the nodes.
            context: Luma samples of the margin.

        Raises:
            ValueError: if it is no multiple of the size.
        """
        if context % size:
            raise ValueError(
                f"backbone=superblock at {size}x{size} takes data.context=0, {size}, {2 * size} "
                f"and further multiples of {size}, got {context}"
            )

    def parts(self) -> Iterator[tuple[str, nn.Module]]:
        """See `Backbone`."""
        if self.condition is not None:
            yield self._layer(STRIDES[0]), self.condition
        for stride, down, blocks in zip(self.strides, self.down, self.blocks, strict=True):
            yield self._layer(stride), down
            yield self._layer(stride), blocks

    def stem(self, x: Tensor, embedded: Tensor | None = None) -> Tensor:
        """See `Backbone`: strides finer than those of layer 1, if there are any."""
        for stride in self.strides:
            if stride < self._level_strides[0]:
                x = self.step(stride, x, embedded)
        return x

    def level(
        self,
        level: int,
        x: Tensor,
        adapters: AdapterMap = NO_ADAPTERS,
        embedded: Tensor | None = None,
    ) -> Tensor:
        """See `Backbone`."""
        stride, name = self._level_strides[level - 1], f"layer{level}"
        if stride in self.strides:
            x = self.step(stride, x, embedded, adapters, name)
        return adapted(x, adapters, name)

    def pool(self, x: Tensor) -> Tensor:
        """See `Backbone`: the cell of the node, which is in the middle."""
        return x[:, :, x.shape[2] // 2, x.shape[3] // 2]

    def residual(self, level: int) -> Sequence[nn.Module]:
        """See `Backbone`."""
        stride = self._level_strides[level - 1]
        return self.blocks_at(stride) if stride in self.strides else []

    def map_sides(self, side: int) -> tuple[int, ...]:
        """See `Backbone`."""
        return tuple(side // stride for stride in self._level_strides)

    def of_superblock(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return what of a superblock network's trunk this path has.

        Args:
            state: Tensors of a `SuperblockTrunk` by name.

        Returns:
            Those that are not of coarser strides or of the way back down, by name.
        """
        coarser = range(len(self.strides), len(STRIDES))
        left_out = (
            *(f"{part}." for part in TOP_DOWN),
            *(f"{part}.{number}." for part in ("down", "blocks") for number in coarser),
        )
        return {name: tensor for name, tensor in state.items() if not name.startswith(left_out)}
