"""Random numbers of an epoch for each node of a dataset, from numpy.

Shapes: n nodes of the dataset, b nodes of a batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from av1part.partition import SYMMETRIES

MOST_DEVIATIONS = 3.0
"""Noise beyond so many standard deviations is cut off."""

_SYMMETRY, _LABEL, _PLACE, _NOISE = range(2, 6)
_SHARES = (6, 7)
_LEVEL = 8
"""Streams of random numbers, one per purpose; the order of blocks has stream 0, mixup 1."""

LEVELS = 1 << 16
"""Changes of luma levels to choose from, see `augment.change_levels`."""

_POOL = 1 << 20
"""Normal draws per epoch; a node's noise is a stretch of them, from a random start.

The largest block a run may have, 64x64 with a margin of 256, takes a third of them.
"""


@dataclass(frozen=True)
class NodeDraws:
    """Random numbers for the nodes of a dataset, a function of (seed, epoch, node) alone.

    The numbers of all nodes are drawn at once, on the host, when an epoch first needs them, and
    looked up batch by batch. So they do not depend on batch order, workers, rank, device or an
    interruption. They take at most 12 bytes of memory per node.

    Attributes:
        nodes: Rows of the dataset's node table.
        seed: Seed of the run.
        epoch: Epoch of the training.
    """

    nodes: int
    seed: int
    epoch: int

    def symmetries(self, node: Tensor) -> Tensor:
        """Return an index into `SYMMETRIES` for each node number (b,), int64, shape (b,)."""
        return _integers(self, _SYMMETRY, len(SYMMETRIES), node.device)[node].long()

    def classes(self, node: Tensor, count: int) -> Tensor:
        """Return one of `count` classes for each node number (b,), int64, shape (b,)."""
        return _integers(self, _LABEL, count, node.device)[node].long()

    def levels(self, node: Tensor) -> Tensor:
        """Return a change of luma levels below `LEVELS` for each node number (b,), int64, (b,)."""
        return _integers(self, _LEVEL, LEVELS, node.device)[node].long()

    def shares(self, axis: int, node: Tensor) -> Tensor:
        """Return a number from 0 to below 1 for each node.

        Args:
            axis: 0 for rows or 1 for columns, whose numbers are independent.
            node: Node numbers, int64, shape (b,).

        Returns:
            float64, shape (b,).
        """
        return _shares(self, _SHARES[axis])[node]

    def noise(self, node: Tensor, samples: int) -> Tensor:
        """Return standard normal draws, cut off at `MOST_DEVIATIONS`.

        Args:
            node: Node numbers, int64, shape (b,).
            samples: Draws per node.

        Returns:
            float32, shape (b, samples).
        """
        place = _integers(self, _PLACE, _POOL - samples + 1, node.device)[node]
        return _normal(self, node.device).unfold(0, samples, 1)[place.long()]


@lru_cache(maxsize=4)
def _integers(draws: NodeDraws, stream: int, choices: int, device: torch.device) -> Tensor:
    """Return one of `choices` numbers for each node, uint8 or int32, shape (n,)."""
    rng = np.random.default_rng((draws.seed, draws.epoch, stream))
    dtype = np.uint8 if choices <= 256 else np.int32
    return torch.from_numpy(rng.integers(choices, size=draws.nodes, dtype=dtype)).to(device)


@lru_cache(maxsize=4)
def _shares(draws: NodeDraws, stream: int) -> Tensor:
    """Return a number from 0 to below 1 for each node, float64, shape (n,)."""
    return torch.from_numpy(
        np.random.default_rng((draws.seed, draws.epoch, stream)).random(draws.nodes)
    )


@lru_cache(maxsize=1)
def _normal(draws: NodeDraws, device: torch.device) -> Tensor:
    """Return the epoch's pool of normal draws, float32, shape (_POOL,)."""
    rng = np.random.default_rng((draws.seed, draws.epoch, _NOISE))
    pool = rng.standard_normal(_POOL, dtype=np.float32)
    return torch.from_numpy(pool.clip(-MOST_DEVIATIONS, MOST_DEVIATIONS)).to(device)
