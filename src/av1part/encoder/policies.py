"""Policies: from the probabilities of a node's types to the types that an encoder may search."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from av1part.data.build.settings import SIZES_TEXT, check_list
from av1part.encoder.hints import KEEP, grid_shape
from av1part.metrics.sets import cumulated_sets, top_sets
from av1part.options import POLICIES, PolicyKind
from av1part.partition import SIZES, Partition, legal_partitions
from av1part.predictors.interface import TYPES, Distributions, Domain
from av1part.system.errors import ConfigError

_BITS = np.uint16(1) << np.arange(TYPES, dtype=np.uint16)
"""Bit of each type in a mask."""


@dataclass(frozen=True)
class Policy:
    """How a mask is made of a distribution.

    Attributes:
        kind: `cumulated`: the most probable types whose probabilities add up to `tau`; `top`: the
            `k` most probable types; `none` and `split`: this type alone, everywhere.
        tau: Cumulated probability, 0 to 1; one for all sizes, or one for each of `sizes`.
        k: Number of types.
        keep: Whether the encoder's own pruning holds as well, instead of being replaced.
        sizes: Node sizes that get hints; None is all that the predictor has.
    """

    kind: PolicyKind = "cumulated"
    tau: float | Sequence[float] = 0.9
    k: int = 2
    keep: bool = True
    sizes: Sequence[int] | None = None

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ConfigError: naming the first that is not valid.
        """
        if self.kind not in POLICIES:
            raise ConfigError(f"policy.kind={self.kind}: give one of {', '.join(POLICIES)}")
        if self.sizes is not None:
            check_list("policy.sizes", self.sizes, SIZES, SIZES_TEXT)
        taus = self.tau if isinstance(self.tau, Sequence) else [self.tau]
        if isinstance(self.tau, Sequence) and len(taus) != len(self.sizes or ()):
            raise ConfigError(f"policy.tau={list(taus)}: give one, or one for each of policy.sizes")
        if not all(_is_probability(tau) for tau in taus):
            raise ConfigError(f"policy.tau={self.tau}: give probabilities from 0 to 1")
        if type(self.k) is not int or not 1 <= self.k <= TYPES:
            raise ConfigError(f"policy.k={self.k}: give 1 to {TYPES}")

    def hinted_sizes(self, domain: Domain) -> tuple[int, ...]:
        """Return the node sizes of a predictor's domain that get hints."""
        return tuple(size for size in domain.sizes if self.sizes is None or size in self.sizes)

    def check_sizes(self, domain: Domain) -> None:
        """Check that hints are asked for only where there are predictions.

        Args:
            domain: The predictor's.

        Raises:
            ConfigError: naming a size without.
        """
        for size in self.sizes or ():
            if size not in domain.sizes:
                known = " and ".join(map(str, domain.sizes))
                raise ConfigError(
                    f"policy.sizes={list(self.sizes or ())}: the predictor has no size {size}, "
                    f"only {known}: leave it out"
                )

    def _tau(self, size: int) -> float:
        if isinstance(self.tau, Sequence):
            return self.tau[list(self.sizes or ()).index(size)]
        return self.tau

    def masks(
        self, probabilities: NDArray[np.float32], size: int, known: Iterable[int] = range(TYPES)
    ) -> NDArray[np.uint16]:
        """Return the masks of the nodes of a size that gets hints.

        Types that the predictor does not know are left to the encoder where its own pruning holds.

        Args:
            probabilities: float `[..., TYPES]`.
            size: Node size.
            known: Types that the predictor knows at this size.

        Returns:
            uint16, of the shape of `probabilities` without its last axis.
        """
        if self.kind in ("none", "split"):
            type_ = Partition.NONE if self.kind == "none" else Partition.SPLIT
            masks = np.full(probabilities.shape[:-1], 1 << type_, np.uint16)
        else:
            members = (
                top_sets(probabilities, self.k)
                if self.kind == "top"
                else cumulated_sets(probabilities, self._tau(size))
            )
            bits = np.where(members, _BITS, np.uint16(0))
            masks = np.bitwise_or.reduce(bits, axis=-1).astype(np.uint16)
        if not self.keep:
            return masks
        unknown = set(legal_partitions(size)) - set(known)
        return masks | np.uint16(KEEP | sum(1 << type_ for type_ in unknown))

    def frame_masks(
        self, distributions: Distributions, shape: tuple[int, int], domain: Domain
    ) -> dict[int, NDArray[np.uint16]]:
        """Return the masks of a frame, as a hint file holds them.

        Args:
            distributions: A predictor's answer, by node size.
            shape: Height and width of the frame.
            domain: The predictor's.

        Returns:
            Node size to uint16 `[rows, cols]`; nodes over the edge have no hint, as no prediction.
        """
        height, width = shape
        masks = {}
        for size in self.hinted_sizes(domain):
            grid = np.zeros(grid_shape(width, height, size), np.uint16)
            if size in distributions:
                rows, cols, _ = distributions[size].shape
                grid[:rows, :cols] = self.masks(distributions[size], size, domain.types(size))
            masks[size] = grid
        return masks


def _is_probability(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1
