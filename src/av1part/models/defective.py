"""A network with some of the study's defects, given on purpose; see `av1part.defects`.

Classifier -> make_defective -> trained -> checkpoint -> rebuilt -> make_reloaded -> evaluated
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from av1part.defects import (
    LATE_THAW,
    NOT_STRICT,
    SCALED_ONCE_EVAL,
    SCALED_TWICE,
    SCALED_TWICE_EVAL,
    THAW_EPOCH,
    TINY_NOISE,
)
from av1part.models.classifier import Classifier
from av1part.models.layers import LAYERS
from av1part.models.normalise import PixelNormalise

NOISE, NOISE_SHARE = 0.01, 0.3
"""Deviation of the study's noise, in units of its input, and the share of blocks that get it."""


class TwiceScaled(PixelNormalise):
    """Divides samples by the peak a second time; in training it may add the study's noise."""

    def __init__(self, bit_depth: int, *, noise: float = 0.0) -> None:
        super().__init__(bit_depth)
        self.noise = noise

    @property
    def facts(self) -> dict[str, Any]:
        """As `PixelNormalise.facts`, so that no features are shared with other networks."""
        return {**super().facts, "scaled_twice": True}

    def scale(self, block: Tensor) -> Tensor:
        """Scale samples, (b, 1, s, s), to 0 .. 1 / peak, float32."""
        scaled = super().scale(block) / self.peak
        if self.noise and self.training:
            chosen = torch.rand(len(scaled), 1, 1, 1, device=scaled.device) < NOISE_SHARE
            scaled = scaled + self.noise * chosen * torch.randn_like(scaled)
        return scaled


def make_defective(classifier: Classifier, defects: Collection[str], bit_depth: int) -> None:
    """Give a network the defects that it has in training, in place.

    Args:
        classifier: The network, as built.
        defects: Those of the run; the others are left to the data and to what reloads it.
        bit_depth: Bits a sample.
    """
    if SCALED_TWICE in defects:
        noise = NOISE if TINY_NOISE in defects else 0.0
        classifier.normalise = TwiceScaled(bit_depth, noise=noise)
    if LATE_THAW in defects:
        classifier.thaw = dict.fromkeys(LAYERS, THAW_EPOCH)
        classifier.set_epoch(0)
    if LATE_THAW in defects or TINY_NOISE in defects:
        classifier.cut = None  # nothing is the same in every epoch


def make_reloaded(
    classifier: Classifier, defects: Collection[str], bit_depth: int, seed: int
) -> None:
    """Give a network that was read from a checkpoint the defects of reloading, in place.

    Args:
        classifier: The network, with the checkpoint's tensors.
        defects: Those of the checkpoint.
        bit_depth: Bits a sample.
        seed: Of the head that is drawn in place of one that is not loaded.
    """
    if SCALED_TWICE_EVAL in defects:
        scale_twice(classifier, bit_depth)
    if SCALED_ONCE_EVAL in defects:
        classifier.normalise = PixelNormalise(bit_depth)
    if NOT_STRICT in defects:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for layer in classifier.head.modules():
                if isinstance(layer, nn.Linear):
                    layer.reset_parameters()


def scale_twice(classifier: Classifier, bit_depth: int) -> None:
    """Make a network divide samples by the peak twice, without noise, in place."""
    classifier.normalise = TwiceScaled(bit_depth)
