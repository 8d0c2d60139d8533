"""FiLM inside residual blocks: inner maps scaled and shifted by the log of the quantiser step.

    qindex -> log step -> embedding -> (scale, shift) of each channel of each block

Shapes: b blocks or crops, c channels, e length of the embedding.

Reference: Perez et al., FiLM: Visual reasoning with a general conditioning layer, AAAI 2018.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from av1part.quantiser import AC_STEPS

EMBEDDED = 32
"""Length of the embedding of a qindex."""

_NAMES = ("film", "condition")


def unit_log_steps() -> NDArray[np.float64]:
    """Return the log of the quantiser step of each qindex, of mean 0 and deviation 1, (256,)."""
    logarithm = np.log(np.array(AC_STEPS, dtype=np.float64))
    unit: NDArray[np.float64] = (logarithm - logarithm.mean()) / logarithm.std()
    return unit


class StepEmbedding(nn.Sequential):
    """An embedding of the quantiser step of a qindex, which all blocks of a network share."""

    log_step: Tensor

    def __init__(self) -> None:
        super().__init__(nn.Linear(1, EMBEDDED), nn.SiLU())
        unit = torch.from_numpy(unit_log_steps())
        self.register_buffer("log_step", unit.float(), persistent=False)

    def forward(self, qindex: Tensor) -> Tensor:
        """Embed qindexes, int64 0..255 of shape (b,), as floats of shape (b, e)."""
        x = self.log_step[qindex][:, None]
        for layer in self:
            x = layer(x)
        return x


def film_layer(channels: int) -> nn.Linear:
    """Return the layer from an embedding to scale and shift, which begins as the identity."""
    layer = nn.Linear(EMBEDDED, 2 * channels)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def modulated(x: Tensor, film: nn.Module, embedded: Tensor) -> Tensor:
    """Scale and shift the channels of a map.

    Args:
        x: float, shape (b, c, h, w).
        film: As `film_layer` makes it, for c channels.
        embedded: float, shape (b, e).

    Returns:
        float, of the shape of `x`.
    """
    scale, shift = film(embedded)[:, :, None, None].chunk(2, dim=1)
    return torch.addcmul(shift, x, 1 + scale)


def conditions(name: str) -> bool:
    """Return whether a parameter of a backbone takes the qindex in.

    >>> conditions("blocks.1.0.film.bias"), conditions("blocks.1.0.conv1.bias")
    (True, False)
    """
    return not set(_NAMES).isdisjoint(name.split("."))
