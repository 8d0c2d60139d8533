"""What every predictor does, and what is known of one.

    luma plane [h, w] of integers, qindex -> size -> probabilities [rows, cols, 10]

A row and a column stand for the node at (row * size, col * size): all nodes that lie wholly inside
the frame, whether or not an encoder's tree would have them. A node over an edge has no prediction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from av1part.partition import SIZES, Partition, legal_partitions

TYPES = len(Partition)
"""Columns of a distribution, in the order of AV1's ids."""

Distributions = Mapping[int, NDArray[np.float32]]
"""Node size to probabilities, float32 `[rows, cols, TYPES]`, each node's summing to 1."""


@dataclass(frozen=True)
class Domain:
    """What a predictor was trained or fitted on, outside of which its word is worth less.

    Attributes:
        sizes: Node sizes that it predicts, of `SIZES`.
        qindexes: Least and greatest qindex.
        bit_depths: Bits per sample.
        one_to_four: Whether it knows HORZ_4 and VERT_4.
    """

    sizes: tuple[int, ...] = SIZES
    qindexes: tuple[int, int] = (0, 255)
    bit_depths: tuple[int, ...] = (8, 10)
    one_to_four: bool = True

    def types(self, size: int) -> tuple[Partition, ...]:
        """Return the types of a node that the predictor can answer."""
        legal = legal_partitions(size)
        return tuple(t for t in legal if self.one_to_four or t < Partition.HORZ_4)


class Predictor(Protocol):
    """Anything that predicts partitions."""

    @property
    def name(self) -> str:
        """What it is, in a word or two, for tables."""
        ...

    @property
    def domain(self) -> Domain:
        """What it was trained or fitted on."""
        ...

    def predict(self, plane: NDArray[Any], bit_depth: int, qindex: int) -> Distributions:
        """Predict all nodes of a frame.

        Args:
            plane: Luma samples, integers `[h, w]`, as an encoder would get them.
            bit_depth: Bits per sample.
            qindex: Base quantiser index, 0 to 255.

        Returns:
            The distributions of every size of the domain that has a whole node in the frame.
        """
        ...


def whole_nodes(shape: tuple[int, ...], size: int) -> tuple[int, int]:
    """Return rows and columns of the nodes of a size wholly inside a frame of `(h, w)`."""
    height, width = shape
    return height // size, width // size


def at_depth(plane: NDArray[Any], given: int, wanted: int) -> NDArray[Any]:
    """Shift samples to another bit depth.

    Args:
        plane: Samples of `given` bits.
        given: Their bits.
        wanted: Bits of the result.

    Returns:
        uint8, or int16 for more than 8 bits, of the same shape.
    """
    dtype = np.uint8 if wanted <= 8 else np.int16
    shifted = np.right_shift(plane, given - wanted) if given > wanted else plane
    scaled: NDArray[Any] = np.left_shift(shifted.astype(dtype), max(0, wanted - given))
    return scaled


def uniform(size: int, domain: Domain) -> NDArray[np.float64]:
    """Return the distribution, shape `[TYPES]`, that prefers none of a size's types."""
    types = list(domain.types(size))
    probabilities = np.zeros(TYPES)
    probabilities[types] = 1 / len(types)
    return probabilities
