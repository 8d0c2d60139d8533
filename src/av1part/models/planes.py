"""Input planes: what a network sees of integer samples, beside the study's one scaled plane.

Behind them the superblock network has moments of the samples, which it averages over the cells of
each of its strides (see `log_costs`): squares and logarithms, which a convolution hardly learns.

Shapes: b blocks, crops or frames, h, w luma samples, r, q cells.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from av1part.options import INPUT_PLANES
from av1part.quantiser import SAMPLE_STEPS

_MEAN_SIDE = 17

PLANES_REACH = _MEAN_SIDE // 2
"""Luma samples around a sample that its planes depend on."""

MOMENTS = 4
"""Planes of moments: x, x^2, and the squared differences to the left and upper sample."""

ENERGIES = MOMENTS - 1
"""Energies of a cell that its quarters have, too: variance, and mean squared differences."""

BANDS = 3
"""Haar bands of a cell at one scale: across, down, and both; each has an energy and a rate."""

_FLOOR = 0.01
"""Energy below which cells are flat, in squared quantiser steps."""


class InputPlanes(nn.Module):
    """Compute the planes that a network sees from integer samples; nothing else scales them.

    Samples are brought to the scale of 8 bits. `level` is (x - 128) / 64, `detail` x without the
    mean of the 17x17 samples around it, / 16, and `steps` the tanh of x without that mean, over
    the quantiser step of the qindex. The mean is of exact sums, so that it does not depend on what
    else is in the crop.
    """

    scale: Tensor
    step: Tensor

    def __init__(
        self, bit_depth: int, planes: Sequence[str] = INPUT_PLANES, *, moments: bool = False
    ) -> None:
        """Choose the planes.

        Args:
            bit_depth: Bits per sample; a buffer, so that a checkpoint has it.
            planes: Names from `INPUT_PLANES`, each at most once.
            moments: Whether `MOMENTS` planes follow, of samples in quantiser steps.

        Raises:
            ValueError: if there is no such plane, or none.
        """
        super().__init__()
        if not planes or len(set(planes)) < len(planes) or not set(planes) <= {*INPUT_PLANES}:
            raise ValueError(f"planes must be some of {INPUT_PLANES}, got {planes}")
        self.planes = tuple(planes)
        self.moments = moments
        self.register_buffer("scale", torch.tensor(2.0 ** (8 - bit_depth)))
        self.register_buffer("step", torch.tensor(SAMPLE_STEPS), persistent=False)

    def forward(self, block: Tensor, qindex: Tensor) -> Tensor:
        """Compute the planes.

        Args:
            block: Integer samples, shape (b, 1, h, w).
            qindex: int64 0..255, shape (b,).

        Returns:
            float32, shape (b, planes, h, w), channels last; with moments `MOMENTS` planes more.

        Raises:
            TypeError: if `block` is not of integers.
        """
        planes, moments = self.apart(block, qindex)
        return planes if moments is None else torch.cat((planes, moments), dim=1)

    def apart(self, block: Tensor, qindex: Tensor) -> tuple[Tensor, Tensor | None]:
        """Compute planes and moments as `forward`, each as a tensor of its own.

        Args:
            block: As there.
            qindex: As there.

        Returns:
            The planes, channels last; and the moments, or None without them.

        Raises:
            TypeError: if `block` is not of integers.
        """
        if block.is_floating_point() or block.dtype == torch.bool:
            raise TypeError(f"samples are integers until this layer, got {block.dtype}")
        samples = block.to(self.scale.dtype)
        step = self.step[qindex][:, None, None, None]
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
                planes.append(torch.tanh(detail / step))
        seen = torch.cat(planes, dim=1).contiguous(memory_format=torch.channels_last)
        return seen, _moments((samples * self.scale - 128) / step) if self.moments else None


def _local_mean(samples: Tensor) -> Tensor:
    """Return the mean of the 17x17 samples around each, edges repeated, (b, 1, h, w)."""
    half = _MEAN_SIDE // 2
    sums = functional.pad(samples, (half, half, half, half), mode="replicate")
    # Sums of integers below 2^24 are exact in float32, so they may be doubled: a tenth of the time.
    for axis in (2, 3):
        length = samples.shape[axis]
        last = sums.narrow(axis, _MEAN_SIDE - 1, length)
        for summed in (1, 2, 4, 8):
            kept = sums.shape[axis] - summed
            sums = sums.narrow(axis, 0, kept) + sums.narrow(axis, summed, kept)
        sums = sums.narrow(axis, 0, length) + last
    return sums / _MEAN_SIDE**2


def _moments(x: Tensor) -> Tensor:
    """Return the moments of samples, (b, `MOMENTS`, h, w); at the edge a difference is zero."""
    across = functional.pad(x[..., 1:] - x[..., :-1], (1, 0))
    down = functional.pad(x[..., 1:, :] - x[..., :-1, :], (0, 0, 1, 0))
    return torch.cat((x, x * x, across * across, down * down), dim=1)


def coarser(moments: Tensor) -> Tensor:
    """Return the moments of cells twice as large, with one more scale of Haar bands.

    Args:
        moments: Means over each cell, shape (b, m, r, q): the planes of moments, then of each scale
            below the energies and the rates of its `BANDS`.

    Returns:
        Shape (b, m + 2 `BANDS`, r / 2, q / 2).
    """
    scale = (moments.shape[1] - MOMENTS) // (2 * BANDS)
    a, b, c, d = functional.pixel_unshuffle(moments[:, :1], 2).unbind(1)
    bands = torch.stack((a - b + c - d, a + b - c - d, a - b - c + d), dim=1)
    # Of an orthonormal transform, as a quantiser sees it; its rate is about that of its bits.
    rates = torch.log1p(bands.abs() * 2 ** (scale - 1))
    return torch.cat((_pooled(moments), bands * bands / 4, rates), dim=1)


def _pooled(x: Tensor) -> Tensor:
    """Return `avg_pool2d(x, 2)`, the same bit for bit, in half its time on a CPU."""
    upper, lower = x[..., ::2, :], x[..., 1::2, :]
    return (upper[..., ::2] + upper[..., 1::2] + lower[..., ::2] + lower[..., 1::2]) / 4


def log_costs(moments: Tensor) -> Tensor:
    """Compute from the moments of cells what their bits depend on, on a logarithmic scale.

    Args:
        moments: Means over each cell, float, shape (b, m, r, q), as `coarser` returns them; the
            first `MOMENTS` planes alone give the `ENERGIES` alone.

    Returns:
        float32 at least, shape (b, m - 1, r, q): the logarithms of the `ENERGIES`, in squared
        quantiser steps, from a floor on; then for each scale those of its bands, and its rates.
    """
    exact = moments.to(torch.promote_types(moments.dtype, torch.float32))
    mean, costs = exact[:, :1], exact[:, 1:].clone()
    costs[:, :1].sub_(mean * mean).clamp_min_(0)  # the variance
    _to_log(costs[:, :ENERGIES])
    for first in range(ENERGIES, costs.shape[1], 2 * BANDS):
        _to_log(costs[:, first : first + BANDS])
    return costs


def _to_log(energies: Tensor) -> None:
    energies.add_(_FLOOR).log_().mul_(0.3)
