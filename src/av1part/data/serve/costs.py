"""Weights of training nodes by what losing their types costs the encoder.

Shapes: n nodes of one size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from av1part.partition import Partition


@dataclass(frozen=True)
class CostWeights:
    """How a node's regret becomes its weight in the loss.

    Attributes:
        power: Weights are regret^power; 0 makes all of them 1.
        cap: Most weight of a node, in means of its size before they are scaled to 1, so that no
            node owns a batch.
    """

    power: float = 1.0
    cap: float = 20.0

    def __call__(self, regret: NDArray[Any], types: NDArray[Any]) -> NDArray[np.float32]:
        """Compute the weights of the training nodes of one size.

        A node of unknown regret has the mean weight of those of its type, or, if none of these is
        known, of its size.

        Args:
            regret: At least 0, shape (n,); NaN where it is not known.
            types: AV1 ids, shape (n,).

        Returns:
            Float32 (n,), of mean 1; all 1 where no regret is known, or all are 0.
        """
        weight = regret.astype(np.float64) ** self.power
        known = ~np.isnan(regret)
        if not known.any() or not weight[known].any():
            return np.ones(len(regret), np.float32)
        of_type = types.astype(np.int64)
        counts = np.bincount(of_type[known], minlength=len(Partition))
        sums = np.bincount(of_type[known], weight[known], minlength=len(Partition))
        means = np.where(counts > 0, sums / np.maximum(counts, 1), weight[known].mean())
        weight = np.where(known, weight, means[of_type])
        weight = np.minimum(weight, self.cap * weight.mean())
        capped: NDArray[np.float32] = (weight / weight.mean()).astype(np.float32)
        return capped
