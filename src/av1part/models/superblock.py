"""The superblock network: one pass over luma of any size gives every node's partition type.

    luma -> planes -> stride 2 -> 4 -> 8 -> 16 -> 32 -> 64     residual blocks, FiLM by qindex
                                  |    |     |     |
                                  8 <- 16 <- 32 <- 64          top-down path
                                  |    |     |     |
                                logits of the nodes of size 8, 16, 32, 64 (1x1)

A cell of the map at stride s is the node of size s in its place. Luma is padded to whole
superblocks by repeating its last row and column; convolutions pad with zeros. So what lies farther
than `reach` samples from a node does not change its logits, and a frame predicted in crops is the
frame predicted whole, as far as a crop's border is farther away than that.

Shapes: b crops, h, w luma samples, c channels, r, q nodes: h / size and w / size, rounded up to
whole superblocks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from av1part.models.film import conditions
from av1part.models.folded import convolve
from av1part.models.network import Network
from av1part.models.planes import PLANES_REACH, InputPlanes
from av1part.models.trunk import BottomUp
from av1part.options import CONDITIONINGS, INPUT_PLANES, Conditioning
from av1part.partition import SIZES, SUPERBLOCK, Partition, Taxonomy


class SuperblockTrunk(BottomUp):
    """Maps at strides 8, 16, 32 and 64 that have seen what is around, under a qindex.

    `channels` are those of the maps, by stride.
    """

    def __init__(
        self, planes: int, *, width: int, depth: int, conditioned: bool, energies: bool
    ) -> None:
        """Build the trunk; as `BottomUp`."""
        super().__init__(
            planes,
            width=width,
            depth=depth,
            conditioned=conditioned,
            energies=energies,
            coarsest=SUPERBLOCK,
        )
        channels = self.by_stride
        self.channels = {size: channels[size] for size in SIZES}
        self.top_down = nn.ModuleDict(
            {str(s): nn.Conv2d(channels[2 * s], channels[s], 1) for s in SIZES[:-1]}
        )
        self.merged = nn.ModuleDict({str(s): Merged(channels[s]) for s in SIZES[:-1]})
        for layer in self.top_down.values():
            assert isinstance(layer, nn.Conv2d)
            assert layer.bias is not None
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)

    @property
    def reach(self) -> int:
        """Luma samples around a node that change its map's cell, without the planes' own."""
        # A cell's parent extends over it by up to a cell; the convolution sees one more.
        return super().reach + 2 * sum(SIZES[:-1])

    def forward(self, planes: Tensor, moments: Tensor | None, qindex: Tensor) -> dict[int, Tensor]:
        """Compute the maps.

        Args:
            planes: float, shape (b, p, h, w), both a multiple of `SUPERBLOCK`.
            moments: Of the samples, shape (b, m, h, w); None without energies.
            qindex: int64 0..255, shape (b,).

        Returns:
            Stride to map, float, shape (b, c, r, q).
        """
        embedded = None if self.condition is None else self.condition(qindex)
        x, maps = planes, {}
        for stride in self.strides:
            x, moments = self.step(stride, x, moments, embedded)
            maps[stride] = x
        x = maps[SIZES[-1]]
        seen = {SIZES[-1]: x}
        for size in reversed(SIZES[:-1]):
            above = functional.interpolate(self.top_down[str(size)](x), scale_factor=2.0)
            x = seen[size] = self.merged[str(size)](maps[size] + above)
        return seen


class Merged(nn.Module):
    """A residual 3x3 convolution with BatchNorm, where the way back down meets the way up."""

    def __init__(self, channels: int) -> None:
        """Build it for maps of so many channels."""
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(channels)
        nn.init.kaiming_normal_(self.conv.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Return a map of the shape of `x`, (b, c, h, w)."""
        return convolve(self.conv, self.bn, torch.relu(x)).add_(x).relu_()


class SuperblockNetwork(Network):
    """Planes, trunk and a 1x1 head for each node size."""

    def __init__(
        self,
        *,
        taxonomy: Taxonomy,
        bit_depth: int,
        width: int = 16,
        depth: int = 1,
        planes: Sequence[str] = INPUT_PLANES,
        energies: bool = True,
        conditioning: Conditioning = "qindex",
    ) -> None:
        """Build the network.

        Args:
            taxonomy: Which types there are; of these, a size has those that AV1 allows it.
            bit_depth: Bits per sample.
            width: Channels at stride 2, see `SuperblockTrunk`.
            depth: Residual blocks at stride 4, see `BottomUp`.
            planes: Input planes, names from `INPUT_PLANES`.
            energies: Whether each stride is given the energies of its cells.
            conditioning: `qindex` (here the same as `qindex_blocks`) puts FiLM layers into the
                blocks; the plane `steps` depends on the qindex in any case.

        Raises:
            ValueError: if an option is unknown or out of range.
        """
        super().__init__()
        self.backbone: SuperblockTrunk
        if conditioning not in CONDITIONINGS:
            raise ValueError(f"conditioning must be one of {CONDITIONINGS}, got {conditioning!r}")
        self.types = {size: list(map(int, taxonomy.at(size).partitions)) for size in SIZES}
        self.normalise = InputPlanes(bit_depth, planes, moments=energies)
        self.backbone = SuperblockTrunk(
            len(self.normalise.planes),
            width=width,
            depth=depth,
            conditioned=conditioning != "none",
            energies=energies,
        )
        self.head = nn.ModuleDict(
            {
                str(size): nn.Conv2d(channels, len(self.types[size]), 1)
                for size, channels in self.backbone.channels.items()
            }
        )

    @property
    def reach(self) -> int:
        """Luma samples around a node, beyond which nothing changes its logits."""
        return self.backbone.reach + PLANES_REACH

    def parameter_groups(self, *, by_layer: bool = False) -> dict[str, list[nn.Parameter]]:
        """Return the parameters: `backbone`, `conditioning` (its FiLM layers) and `head`."""
        groups: dict[str, list[nn.Parameter]] = {}
        for name, parameter in self.named_parameters():
            part = "conditioning" if conditions(name) else name.partition(".")[0]
            groups.setdefault(part, []).append(parameter)
        return groups

    def compile_trained(self) -> None:
        """Compile the trunk, which every step computes."""
        self.backbone.compile()

    def forward(self, block: Tensor, qindex: Tensor) -> dict[int, Tensor]:
        """Predict all nodes of crops or frames.

        Args:
            block: Integer samples, shape (b, 1, h, w), of any height and width.
            qindex: int64 0..255, shape (b,).

        Returns:
            Size to unnormalised logits of the ten types in the order of their ids, float, shape
            (b, 10, r, q); minus infinity, so probability zero, where AV1 or the taxonomy has no
            such type. Nodes over the edge of the frame have logits, too.
        """
        maps = self.maps(block, qindex)
        return {size: self.of_all_types(size, self.head[str(size)](maps[size])) for size in SIZES}

    def maps(self, block: Tensor, qindex: Tensor) -> dict[int, Tensor]:
        """Compute what the heads see.

        Args:
            block: As for `forward`.
            qindex: As for `forward`.

        Returns:
            Size to the map of its nodes, float, shape (b, c, r, q).
        """
        planes, moments = self.normalise.apart(_whole_superblocks(block), qindex)
        maps: dict[int, Tensor] = self.backbone(planes, moments, qindex)
        return maps

    def of_all_types(self, size: int, logits: Tensor) -> Tensor:
        """Return the logits of all types, (b, 10, r, q), from those of a size's, (b, k, r, q)."""
        all_types: Tensor = logits.new_full(
            (len(logits), len(Partition), *logits.shape[2:]), float("-inf")
        )
        all_types[:, self.types[size]] = logits
        return all_types


def _whole_superblocks(block: Tensor) -> Tensor:
    """Repeat the last row and column of (b, 1, h, w) samples up to whole superblocks."""
    for axis in (2, 3):
        length = block.shape[axis]
        if length % SUPERBLOCK:
            padded = torch.arange(length + -length % SUPERBLOCK, device=block.device)
            block = block.index_select(axis, padded.clamp(max=length - 1))
    return block
