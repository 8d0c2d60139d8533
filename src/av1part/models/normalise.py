"""Scaling of pixels to floats; done nowhere else."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

MEAN = 0.449
"""Mean of ImageNet's three channel means, in units of full scale (torchvision's transforms)."""
STD = 0.226
"""Mean of ImageNet's three channel standard deviations, in the same units."""


class PixelNormalise(nn.Module):
    """Scale integer samples by their bit depth, then to zero mean and unit variance.

    The bit depth is a buffer, so that a checkpoint has it. Floats are refused, since they have been
    scaled already (the study divided by 1023 twice).
    """

    peak: Tensor

    def __init__(self, bit_depth: int) -> None:
        super().__init__()
        self.register_buffer("peak", torch.tensor(float((1 << bit_depth) - 1)))

    def forward(self, block: Tensor) -> Tensor:
        """Normalise a batch of blocks.

        Args:
            block: Integer samples 0 .. 2^bit_depth - 1, shape (b, 1, s, s).

        Returns:
            float32 of the same shape.

        Raises:
            TypeError: if `block` is not of integers.
        """
        if block.is_floating_point() or block.dtype == torch.bool:
            raise TypeError(f"blocks are integers until this layer, got {block.dtype}")
        return (self.scale(block) - MEAN) / STD

    @property
    def facts(self) -> dict[str, Any]:
        """What the scaling depends on, as JSON values."""
        return {"bit_depth_peak": float(self.peak)}

    def scale(self, block: Tensor) -> Tensor:
        """Scale integer samples to 0 .. 1, float32."""
        return block.to(self.peak.dtype) / self.peak
