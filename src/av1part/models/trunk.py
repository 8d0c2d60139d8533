"""The bottom-up path of the superblock network: maps at strides 2 to 64, each from the one before.

    planes, moments -> stride 2 -> 4 -> 8 -> ...   a convolution of the stride, residual blocks

A cell of the map at stride s is the s x s luma samples in its place. With energies, the moments of
the luma samples in a map's cells (`planes`) go with it; what they say of a cell and of its four
quarters is added to what the convolution makes of the map before.

Shapes: b blocks or crops, p planes, c channels, m moments, h, w luma samples, e length of an
embedding.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from av1part.models.film import StepEmbedding, film_layer, modulated
from av1part.models.folded import convolve
from av1part.models.layers import NO_ADAPTERS, AdapterMap, adapted, convolved
from av1part.models.planes import BANDS, ENERGIES, MOMENTS, coarser, log_costs
from av1part.options import MOST_DEPTH, MOST_WIDTH

STRIDES = (2, 4, 8, 16, 32, 64)

_WIDTHS = (1.0, 1.5, 2.5, 3.5, 4.0, 5.0)
"""Channels at each stride, in units of the width."""

_DEPTHS = (0, 1, 2, 3, 2, 1)
"""Residual blocks at each stride, in units of the depth: most where 16x16 nodes are."""


class FiLMBlock(nn.Module):
    """A residual block whose inner map is scaled and shifted by the conditioning.

    The identity at the start: its last BatchNorm scales by zero.
    """

    def __init__(self, channels: int, *, conditioned: bool) -> None:
        """Build the block, with a FiLM layer if it is conditioned."""
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.film = film_layer(channels) if conditioned else None
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.bn2.weight)

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
            adapters: Site to adapter: of each convolution and BatchNorm, and before the sum.
            site: The block's own site.

        Returns:
            float, of the shape of `x`.
        """
        inner = convolved(self.conv1, self.bn1, x, adapters, f"{site}_conv1", f"{site}_bn1")
        if self.film is not None:
            assert embedded is not None
            inner = modulated(inner, self.film, embedded)
        inner = inner.relu_()
        change = convolved(self.conv2, self.bn2, inner, adapters, f"{site}_conv2", f"{site}_bn2")
        return adapted(change, adapters, site).add_(x).relu_()


class Down(nn.Module):
    """From one stride to the next: convolution, BatchNorm, and the energies of the cells."""

    def __init__(self, inputs: int, channels: int, stride: int, *, energies: bool) -> None:
        """Build it.

        Args:
            inputs: Channels of the map before, or planes.
            channels: Channels that it makes.
            stride: The stride of its map, of `STRIDES`.
            energies: Whether maps carry moments.
        """
        super().__init__()
        # The first windows overlap, and are centred on their cells, as all that follows is.
        kernel, padding = (4, 1) if stride == STRIDES[0] else (2, 0)
        self.conv = nn.Conv2d(inputs, channels, kernel, stride=2, padding=padding, bias=False)
        self.bn = nn.BatchNorm2d(channels)
        # A single sample has no variance, so that the first cells have no quarters.
        self.quarters = stride > STRIDES[0]
        costs = ENERGIES * (5 if self.quarters else 1) + 2 * BANDS * (STRIDES.index(stride) + 1)
        self.energies = nn.Conv2d(costs, channels, 1) if energies else None
        nn.init.kaiming_normal_(self.conv.weight, nonlinearity="relu")
        if self.energies is not None:
            assert self.energies.bias is not None
            nn.init.kaiming_normal_(self.energies.weight, nonlinearity="relu")
            self.energies.weight.data *= 0.5
            nn.init.zeros_(self.energies.bias)

    def forward(self, x: Tensor, moments: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Compute the next map and its moments.

        Args:
            x: float, shape (b, c, h, w).
            moments: Those of the cells of `x`, shape (b, m, h, w); None without energies.

        Returns:
            Map and moments, half as high and wide.
        """
        y = convolve(self.conv, self.bn, x)
        if self.energies is None or moments is None:
            return torch.relu(y), None
        coarse = coarser(moments)
        of_cells = [log_costs(coarse)]
        if self.quarters:
            of_quarters = log_costs(moments[:, :MOMENTS])
            of_cells.append(functional.pixel_unshuffle(of_quarters, 2))
        return y.add_(_by_cell(self.energies, torch.cat(of_cells, dim=1))).relu_(), coarse


def _by_cell(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Compute a 1x1 convolution of (b, c, h, w) as a product, whose result is channels last.

    Maps are so too, and the sum of two memory formats takes several times as long.
    """
    y = functional.linear(x.flatten(2).mT, conv.weight.flatten(1), conv.bias)
    return y.mT.reshape(len(x), -1, *x.shape[2:])


def with_moments(x: Tensor, moments: Tensor | None) -> Tensor:
    """Return a map with its moments, if there are any, as channels behind its own."""
    return x if moments is None else torch.cat((x, moments), dim=1)


def split_moments(x: Tensor, channels: int) -> tuple[Tensor, Tensor | None]:
    """Return a map's own channels, and the moments behind them if it carries any.

    Nothing below moments is trained, so no gradient is taken of them.
    """
    return (x[:, :channels], x[:, channels:].detach()) if x.shape[1] > channels else (x, None)


class BottomUp(nn.Module):
    """Maps at the first strides, each from the one before.

    `strides` are those that there are, `by_stride` their channels without moments, `planes` those
    of the input, `condition` the embedding of the qindex or None.
    """

    def __init__(
        self,
        planes: int,
        *,
        width: int,
        depth: int,
        conditioned: bool,
        energies: bool,
        coarsest: int,
    ) -> None:
        """Build the path.

        Args:
            planes: Input planes, without moments.
            width: Channels at stride 2; other strides have more in proportion.
            depth: Residual blocks at stride 4; other strides have more in proportion, stride 2
                none.
            conditioned: Whether the blocks take the qindex in.
            energies: Whether maps carry moments.
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
        self.planes = planes
        channels = [max(1, round(width * more)) for more in _WIDTHS[: len(self.strides)]]
        self.by_stride = dict(zip(self.strides, channels, strict=True))
        self.condition = StepEmbedding() if conditioned else None
        self.down = nn.ModuleList(
            Down(before, c, stride, energies=energies)
            for stride, before, c in zip(self.strides, [planes, *channels], channels, strict=False)
        )
        self.blocks = nn.ModuleList(
            nn.ModuleList(FiLMBlock(c, conditioned=conditioned) for _ in range(depth * blocks))
            for c, blocks in zip(channels, _DEPTHS, strict=False)
        )

    @property
    def reach(self) -> int:
        """Luma samples around a cell of the last map that change it, without the planes' own."""
        blocks = zip(self.strides, _DEPTHS, strict=False)
        return 1 + 2 * self.depth * sum(stride * count for stride, count in blocks)

    def step(
        self,
        stride: int,
        x: Tensor,
        moments: Tensor | None,
        embedded: Tensor | None,
        adapters: AdapterMap = NO_ADAPTERS,
        site: str = "",
    ) -> tuple[Tensor, Tensor | None]:
        """Compute the map at a stride, and its moments.

        Args:
            stride: One of `strides`.
            x: The map of the stride before, or the planes.
            moments: Those of its cells; None without energies.
            embedded: The embedding of the qindex, shape (b, e), or None.
            adapters: Site to adapter; block i of this stride has the sites of `{site}_{i}`.
            site: As that.

        Returns:
            float, shape (b, c, h / stride, w / stride), and the moments of these cells.
        """
        x, moments = self.down[self.strides.index(stride)](x, moments)
        for index, block in enumerate(self.blocks_at(stride)):
            x = block(x, embedded, adapters, f"{site}_{index}")
        return x, moments

    def blocks_at(self, stride: int) -> Sequence[nn.Module]:
        """Return the residual blocks of a stride."""
        blocks = self.blocks[self.strides.index(stride)]
        assert isinstance(blocks, nn.ModuleList)
        return list(blocks)
