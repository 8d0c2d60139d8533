"""The superblock network's bottom-up path as the backbone of a block classifier.

For nodes of size s the path ends at stride s, and the node's own cell is its features:

    node size   stem    layer1   layer2   layer3   layer4
        8                           2        4        8
       16                  2        4        8       16
       32        2         4        8       16       32       strides
       64       2, 4       8       16       32       64

A block is cut so that its border lies on cells of every stride, as those of the whole frame do:
its margin is a multiple of s. Beyond the margin the convolutions see zeros; a margin as wide as the
reach of a cell gives the features of the superblock network at that node.

Shapes: b blocks, p planes, c channels, e length of an embedding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from av1part.models.layers import LEVELS, NO_ADAPTERS, AdapterMap, Backbone
from av1part.models.trunk import STRIDES, BottomUp, split_moments, with_moments

TOP_DOWN = ("top_down", "merged")
"""Parts of the superblock network's trunk that are its way back down, which `NodeTrunk` lacks."""


class NodeTrunk(BottomUp, Backbone):
    """The path up to the stride of the nodes that a classifier answers, as its backbone."""

    def __init__(
        self,
        *,
        size: int,
        planes: int,
        width: int = 16,
        depth: int = 1,
        conditioned: bool = True,
        energies: bool = False,
    ) -> None:
        """Build the path; as `BottomUp`, for nodes of `size` luma samples a side."""
        super().__init__(
            planes,
            width=width,
            depth=depth,
            conditioned=conditioned,
            energies=energies,
            coarsest=size,
        )
        self.size = size
        self._level_strides = tuple(size >> (len(LEVELS) - level) for level in LEVELS)
        self.channels = tuple(self.by_stride.get(stride, planes) for stride in self._level_strides)

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
        x, moments = split_moments(x, self.planes)
        for stride in self.strides:
            if stride < self._level_strides[0]:
                x, moments = self.step(stride, x, moments, embedded)
        return with_moments(x, moments)

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
            x, moments = split_moments(x, self.by_stride.get(stride // 2, self.planes))
            x = with_moments(*self.step(stride, x, moments, embedded, adapters, name))
        return self.after(level, x, adapters)

    def after(self, level: int, x: Tensor, adapters: AdapterMap) -> Tensor:
        """See `Backbone`; moments are not adapted."""
        if f"layer{level}" not in adapters:
            return x
        x, moments = split_moments(x, self.channels[level - 1])
        return with_moments(super().after(level, x, adapters), moments)

    def pool(self, x: Tensor) -> Tensor:
        """See `Backbone`: the cell of the node, which is in the middle."""
        own, _ = split_moments(x, self.channels[-1])
        return own[:, :, own.shape[2] // 2, own.shape[3] // 2]

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
