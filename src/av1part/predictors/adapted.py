"""A superblock network with heads of its own for one clip, on its frozen trunk.

    frozen trunk -> map of a size -> head, whose weights are linear in the log quantiser step

Shapes: n nodes, c features, k types of a size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import conv2d

from av1part.models.film import unit_log_steps
from av1part.predictors.interface import Domain
from av1part.predictors.superblock import SuperblockPredictor

LOG_STEPS = unit_log_steps()
"""What heads are linear in, by qindex, shape (256,)."""


@dataclass(frozen=True)
class NodeHead:
    """A linear head of one node size, at a qindex of log quantiser step t.

    The weights at t are `weight[0] + t weight[1]`, and so the bias: a scale and shift of the
    trunk's maps by channel and quantiser, and a linear layer, are such a head.

    Attributes:
        weight: float32 `[2, k, c]`.
        bias: float32 `[2, k]`.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]

    @classmethod
    def of(cls, conv: nn.Module) -> NodeHead:
        """Return the head that a 1x1 convolution is, the same at every qindex."""
        assert isinstance(conv, nn.Conv2d)
        assert conv.bias is not None
        weight, bias = (own.detach().cpu().numpy() for own in (conv.weight[:, :, 0, 0], conv.bias))
        return cls(np.stack([weight, np.zeros_like(weight)]), np.stack([bias, np.zeros_like(bias)]))

    @classmethod
    def of_matrix(cls, matrix: NDArray[np.float64]) -> NodeHead:
        """Return the head of a matrix (k, 2 (c + 1)) over the columns of `design`."""
        first, second = np.split(matrix.astype(np.float32), 2, axis=1)
        return cls(
            np.stack([first[:, :-1], second[:, :-1]]), np.stack([first[:, -1], second[:, -1]])
        )

    def matrix(self) -> NDArray[np.float64]:
        """Return the head as a matrix (k, 2 (c + 1)) over the columns of `design`."""
        parts = [np.concatenate([self.weight[i], self.bias[i][:, None]], axis=1) for i in range(2)]
        return np.concatenate(parts, axis=1).astype(np.float64)

    def __call__(self, x: Tensor, qindex: int) -> Tensor:
        """Return the logits (b, k, r, q) of a map (b, c, r, q) at a qindex."""
        t = np.float32(LOG_STEPS[qindex])
        weight, bias = (own[0] + t * own[1] for own in (self.weight, self.bias))
        kernel = torch.from_numpy(weight[:, :, None, None]).to(x.device)
        return conv2d(x, kernel.to(x.dtype), torch.from_numpy(bias).to(x.device, x.dtype))


def design(features: NDArray[Any], qindex: NDArray[Any]) -> NDArray[np.float64]:
    """Return what heads are linear in: (x, 1), and t (x, 1).

    Args:
        features: Of nodes, shape (n, c).
        qindex: Of nodes, shape (n,).

    Returns:
        Shape (n, 2 (c + 1)).
    """
    x = np.concatenate([features, np.ones((len(features), 1), features.dtype)], axis=1)
    x = x.astype(np.float64)
    return np.concatenate([x, LOG_STEPS[qindex][:, None] * x], axis=1)


def adapted_domain(network: Domain, qindexes: Sequence[int], bit_depth: int) -> Domain:
    """Return what a network that was adapted to some labels has seen.

    Args:
        network: The network's domain.
        qindexes: Of the labels.
        bit_depth: Of their frames.

    Returns:
        The part of the network's range of qindexes and of its bit depths that the labels have, too;
        theirs, where there is none.
    """
    low, high = min(qindexes), max(qindexes)
    inner = max(low, network.qindexes[0]), min(high, network.qindexes[1])
    return replace(
        network,
        qindexes=inner if inner[0] <= inner[1] else (low, high),
        bit_depths=(bit_depth,),
    )


@dataclass(frozen=True)
class AdaptedSuperblock(SuperblockPredictor):
    """A superblock network of which some node sizes have other heads.

    Attributes:
        heads: Node size to its head; a size without one keeps the network's.
        limits: What it was adapted to, as its domain; None: as the network's.
        record: What a file says of how it was adapted, plain values.
        name: See `Predictor`.
    """

    heads: Mapping[int, NodeHead] = field(default_factory=dict)
    limits: Domain | None = None
    record: Mapping[str, Any] = field(default_factory=dict)
    name: str = "superblock, adapted"

    @property
    def domain(self) -> Domain:
        """See `Predictor`."""
        return super().domain if self.limits is None else self.limits

    def _logits(self, block: Tensor, qindex: Tensor) -> Mapping[int, Tensor]:
        network = self.module.classifier
        found = {}
        for size, x in network.maps(block, qindex).items():
            own = self.heads.get(size)
            logits = network.head[str(size)](x) if own is None else own(x, int(qindex[0]))
            found[size] = network.of_all_types(size, logits)
        return found
