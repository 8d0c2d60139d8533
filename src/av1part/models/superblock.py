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

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from av1part.models.network import Network
from av1part.options import (
    CONDITIONINGS,
    INPUT_PLANES,
    MOST_DEPTH,
    MOST_WIDTH,
    Conditioning,
)
from av1part.partition import SIZES, Partition, Taxonomy
from av1part.quantiser import AC_STEPS

SUPERBLOCK = 64
"""Luma samples a side that height and width are padded to a multiple of."""

STRIDES = (2, 4, 8, 16, 32, 64)

_MEAN_SIDE = 17
_WIDTHS = (1.0, 1.5, 2.5, 3.5, 4.0, 5.0)
"""Channels at each stride, in units of the width."""
_EMBEDDED = 32


class InputPlanes(nn.Module):
    """Compute the planes that a network sees from integer samples; nothing else scales them.

    Samples are brought to the scale of 8 bits. `level` is (x - 128) / 64, `detail` x without the
    mean of the 17x17 samples around it, / 16, and `steps` the tanh of x without that mean, over
    the quantiser step of the qindex. The mean is of exact sums, so that it does not depend on what
    else is in the crop.
    """

    scale: Tensor
    step: Tensor

    def __init__(self, bit_depth: int, planes: Sequence[str] = INPUT_PLANES) -> None:
        """Choose the planes.

        Args:
            bit_depth: Bits per sample; a buffer, so that a checkpoint has it.
            planes: Names from `INPUT_PLANES`, each at most once.

        Raises:
            ValueError: if there is no such plane, or none.
        """
        super().__init__()
        if not planes or len(set(planes)) < len(planes) or not set(planes) <= {*INPUT_PLANES}:
            raise ValueError(f"planes must be some of {INPUT_PLANES}, got {list(planes)}")
        self.planes = tuple(planes)
        self.register_buffer("scale", torch.tensor(2.0 ** (8 - bit_depth)))
        # A coefficient has eight times the scale of a sample.
        self.register_buffer("step", torch.tensor(AC_STEPS) / 8, persistent=False)

    def forward(self, block: Tensor, qindex: Tensor) -> Tensor:
        """Compute the planes.

        Args:
            block: Integer samples, shape (b, 1, h, w).
            qindex: int64 0..255, shape (b,).

        Returns:
            float32, shape (b, planes, h, w), channels last.

        Raises:
            TypeError: if `block` is not of integers.
        """
        if block.is_floating_point() or block.dtype == torch.bool:
            raise TypeError(f"samples are integers until this layer, got {block.dtype}")
        samples = block.to(self.scale.dtype)
        planes = []
        detail = samples
        if self.planes != ("level",):
            detail = (samples - _local_mean(samples)) * self.scale
        for name in self.planes:
            if name == "level":
                planes.append((samples * self.scale - 128) / 64)
            elif name == "detail":
                planes.append(detail / 16)
            else:
                planes.append(torch.tanh(detail / self.step[qindex][:, None, None, None]))
        return torch.cat(planes, dim=1).contiguous(memory_format=torch.channels_last)


def _local_mean(samples: Tensor) -> Tensor:
    """Return the mean of the 17x17 samples around each, edges repeated, (b, 1, h, w)."""
    half = _MEAN_SIDE // 2
    padded = functional.pad(samples, (half, half, half, half), mode="replicate")
    # Sums of integers below 2^24 are exact in float32.
    rows = functional.avg_pool2d(padded, (_MEAN_SIDE, 1), stride=1, divisor_override=1)
    return functional.avg_pool2d(rows, (1, _MEAN_SIDE), stride=1, divisor_override=1) / (
        _MEAN_SIDE**2
    )


class FiLMBlock(nn.Module):
    """A residual block whose inner map is scaled and shifted by the conditioning.

    The identity at the start: its second convolution is zero.

    Reference: Perez et al., FiLM: Visual reasoning with a general conditioning layer, AAAI 2018.
    """

    def __init__(self, channels: int, embedded: int) -> None:
        """Build the block; `embedded` is the length of a condition, 0 for none."""
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.film = nn.Linear(embedded, 2 * channels) if embedded else None
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        start = [self.conv2] if self.film is None else [self.conv2, self.film]
        for parameter in (p for module in start for p in module.parameters()):
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        """Return the map, (b, c, h, w), under a condition, (b, e), if there is any."""
        inner = self.conv1(x)
        if self.film is not None:
            scale, shift = self.film(condition)[:, :, None, None].chunk(2, dim=1)
            inner = torch.addcmul(shift, inner, 1 + scale)
        return torch.relu(x + self.conv2(torch.relu(inner)))


class SuperblockTrunk(nn.Module):
    """Maps at strides 8, 16, 32 and 64 that have seen what is around, under a qindex.

    `channels` are those of the maps, by stride.
    """

    def __init__(
        self, planes: int, *, width: int = 16, depth: int = 1, conditioned: bool = True
    ) -> None:
        """Build the trunk.

        Args:
            planes: Input planes.
            width: Channels at stride 2; other strides have more in proportion.
            depth: Residual blocks at each stride.
            conditioned: Whether the blocks take the qindex in.
        """
        super().__init__()
        channels = [max(1, round(width * more)) for more in _WIDTHS]
        by_stride = dict(zip(STRIDES, channels, strict=True))
        self.depth = depth
        self.channels = {size: by_stride[size] for size in SIZES}
        embedded = _EMBEDDED if conditioned else 0
        self.condition = nn.Sequential(nn.Linear(1, embedded), nn.SiLU()) if embedded else None
        # The stem's windows overlap, and are centred on their cells, as all that follows is.
        self.down = nn.ModuleList(
            nn.Conv2d(planes, c, 4, stride=2, padding=1)
            if stride == STRIDES[0]
            else nn.Conv2d(before, c, 2, stride=2)
            for stride, before, c in zip(STRIDES, [planes, *channels], channels, strict=False)
        )
        self.blocks = nn.ModuleList(
            nn.ModuleList(FiLMBlock(c, embedded) for _ in range(depth)) for c in channels
        )
        self.top_down = nn.ModuleDict(
            {str(s): nn.Conv2d(by_stride[2 * s], by_stride[s], 1) for s in SIZES[:-1]}
        )
        self.merged = nn.ModuleDict(
            {str(s): nn.Conv2d(by_stride[s], by_stride[s], 3, padding=1) for s in SIZES[:-1]}
        )
        for layer in (*self.down, *self.top_down.values(), *self.merged.values()):
            assert isinstance(layer, nn.Conv2d)
            assert layer.bias is not None
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        self.register_buffer("log_step", _log_steps(), persistent=False)

    log_step: Tensor

    @property
    def reach(self) -> int:
        """Luma samples around a node that its map's cell depends on, without the planes' own."""
        down = 1 + 2 * self.depth * sum(STRIDES)
        # A cell's parent extends over it by up to a cell; the convolution sees one more.
        return down + 2 * sum(SIZES[:-1])

    def forward(self, planes: Tensor, qindex: Tensor) -> dict[int, Tensor]:
        """Compute the maps.

        Args:
            planes: float, shape (b, p, h, w), both a multiple of `SUPERBLOCK`.
            qindex: int64 0..255, shape (b,).

        Returns:
            Stride to map, float, shape (b, c, r, q).
        """
        condition = None
        if self.condition is not None:
            condition = self.condition(self.log_step[qindex][:, None])
        x, maps = planes, {}
        for stride, down, blocks in zip(STRIDES, self.down, self.blocks, strict=True):
            x = torch.relu(down(x))
            assert isinstance(blocks, nn.ModuleList)
            for block in blocks:
                x = block(x, condition)
            maps[stride] = x
        seen = {SIZES[-1]: x}
        for size in reversed(SIZES[:-1]):
            above = functional.interpolate(self.top_down[str(size)](x), scale_factor=2.0)
            x = maps[size] + above
            x = torch.relu(x + self.merged[str(size)](torch.relu(x)))
            seen[size] = x
        return seen


def _log_steps() -> Tensor:
    """Return the logarithm of the quantiser step by qindex, (256,), mean 0 and deviation 1."""
    logarithm = np.log(np.array(AC_STEPS, dtype=np.float64))
    return torch.from_numpy((logarithm - logarithm.mean()) / logarithm.std()).float()


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
        conditioning: Conditioning = "qindex",
    ) -> None:
        """Build the network.

        Args:
            taxonomy: Which types there are; of these, a size has those that AV1 allows it.
            bit_depth: Bits per sample.
            width: Channels at stride 2, see `SuperblockTrunk`.
            depth: Residual blocks at each stride.
            planes: Input planes, names from `INPUT_PLANES`.
            conditioning: `qindex` puts FiLM layers into the blocks; the plane `steps` depends on
                the qindex in any case.

        Raises:
            ValueError: if an option is unknown or out of range.
        """
        super().__init__()
        self.backbone: SuperblockTrunk
        if conditioning not in CONDITIONINGS:
            raise ValueError(f"conditioning must be one of {CONDITIONINGS}, got {conditioning!r}")
        for name, value, most in (("width", width, MOST_WIDTH), ("depth", depth, MOST_DEPTH)):
            if type(value) is not int or not 1 <= value <= most:
                raise ValueError(f"{name} must be a whole number from 1 to {most}, got {value!r}")
        self.types = {size: list(map(int, taxonomy.at(size).partitions)) for size in SIZES}
        self.normalise = InputPlanes(bit_depth, planes)
        self.backbone = SuperblockTrunk(
            len(self.normalise.planes),
            width=width,
            depth=depth,
            conditioned=conditioning == "qindex",
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
        return self.backbone.reach + _MEAN_SIDE // 2

    def parameter_groups(self, *, by_layer: bool = False) -> dict[str, list[nn.Parameter]]:
        """Return the parameters: `backbone`, `conditioning` (its FiLM layers) and `head`."""
        groups: dict[str, list[nn.Parameter]] = {}
        for name, parameter in self.named_parameters():
            conditions = ".film." in name or name.startswith("backbone.condition.")
            part = "conditioning" if conditions else name.partition(".")[0]
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
        height, width = block.shape[-2:]
        planes = self.normalise(block, qindex)
        pad = (0, -width % SUPERBLOCK, 0, -height % SUPERBLOCK)
        if any(pad):
            planes = functional.pad(planes, pad, mode="replicate")
        maps = self.backbone(planes, qindex)
        return {size: self._logits(size, maps[size]) for size in SIZES}

    def _logits(self, size: int, x: Tensor) -> Tensor:
        """Return the logits of all types, (b, 10, r, q), from the map of a size."""
        logits = self.head[str(size)](x)
        all_types: Tensor = logits.new_full((len(x), len(Partition), *x.shape[2:]), float("-inf"))
        all_types[:, self.types[size]] = logits
        return all_types
