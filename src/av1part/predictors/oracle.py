"""The oracle: an encoder's own types, read from its streams. A bound, and no competitor."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from av1part.data.build.tree import TreeLevel
from av1part.partition import SIZES, Partition
from av1part.predictors.interface import TYPES, Distributions, Domain, whole_nodes
from av1part.system.errors import SourceError

_TRUE = 0.6
"""Probability of the true type, the rest being that of NONE.

A policy that cumulates to 0.6 takes the true type alone, one that cumulates further NONE as well.
"""


def plane_sha256(plane: NDArray[Any]) -> str:
    """Return the SHA-256 of a luma plane, `[h, w]`, shape and dtype included."""
    digest = hashlib.sha256(f"{plane.shape} {plane.dtype.str}".encode())
    digest.update(np.ascontiguousarray(plane).tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Oracle:
    """Answers with the types that a stream has, for the frames that it was made from.

    Nodes that the stream's tree has not are NONE.
    """

    trees: Mapping[tuple[str, int], Sequence[TreeLevel]]
    domain: Domain = field(default_factory=Domain)
    name: str = "oracle"

    def predict(self, plane: NDArray[Any], bit_depth: int, qindex: int) -> Distributions:
        """Look a frame up by its samples.

        Args:
            plane: Luma samples, integers `[h, w]`.
            bit_depth: Bits per sample.
            qindex: Base quantiser index of the stream.

        Returns:
            The distributions, at 0.6 for the true type and 0.4 for NONE.

        Raises:
            SourceError: if no stream holds this frame at this qindex.
        """
        levels = self.trees.get((plane_sha256(plane), qindex))
        if levels is None:
            raise SourceError(f"the oracle has no stream of this frame at qindex {qindex}")
        found = {}
        for size, row, col, partition in levels:
            rows, cols = whole_nodes(plane.shape, size)
            if size not in SIZES or not (rows and cols):
                continue
            probabilities = np.zeros((rows, cols, TYPES), np.float32)
            probabilities[..., Partition.NONE] = 1
            whole = (row // size < rows) & (col // size < cols)
            at = row[whole] // size, col[whole] // size
            probabilities[at] = 0
            probabilities[(*at, partition[whole])] += _TRUE
            probabilities[(*at, np.full(whole.sum(), Partition.NONE))] += 1 - _TRUE
            found[size] = probabilities
        return found
