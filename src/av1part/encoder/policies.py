"""Policies: from the probabilities of a node's types to the types that an encoder may search."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from av1part.encoder.hints import KEEP
from av1part.options import POLICIES, PolicyKind
from av1part.partition import SIZES, Partition, legal_partitions
from av1part.predictors.interface import TYPES
from av1part.system.errors import ConfigError


@dataclass(frozen=True)
class Policy:
    """How a mask is made of a distribution.

    Attributes:
        kind: `cumulated`: the most probable types whose probabilities add up to `tau`; `top`: the
            `k` most probable types; `none` and `split`: this type alone, everywhere.
        tau: Cumulated probability, 0 to 1; one for all sizes, or by size, where a size that is not
            named gets no hint.
        k: Number of types.
        keep: Whether the encoder's own pruning holds as well, instead of being replaced.
        sizes: Node sizes that get hints; None is all that the predictor has.
    """

    kind: PolicyKind = "cumulated"
    tau: float | Mapping[int, float] = 0.9
    k: int = 2
    keep: bool = True
    sizes: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ConfigError: naming the first that is not valid.
        """
        if self.kind not in POLICIES:
            raise ConfigError(f"policy.kind={self.kind}: give one of {', '.join(POLICIES)}")
        taus = self.tau if isinstance(self.tau, Mapping) else {None: self.tau}
        for size, tau in taus.items():
            if size is not None and size not in SIZES:
                raise ConfigError(f"policy.tau names size {size}: sizes are {list(SIZES)}")
            if not 0 <= tau <= 1:
                raise ConfigError(f"policy.tau={tau}: give a probability from 0 to 1")
        if not 1 <= self.k <= TYPES:
            raise ConfigError(f"policy.k={self.k}: give 1 to {TYPES}")
        if self.sizes is not None and not set(self.sizes) <= set(SIZES):
            raise ConfigError(f"policy.sizes={list(self.sizes)}: sizes are {list(SIZES)}")

    def has_hints(self, size: int) -> bool:
        """Return whether nodes of a size get hints."""
        named = not isinstance(self.tau, Mapping) or self.kind != "cumulated" or size in self.tau
        return named and (self.sizes is None or size in self.sizes)

    def masks(
        self, probabilities: NDArray[np.float32], size: int, known: Iterable[int] = range(TYPES)
    ) -> NDArray[np.uint16]:
        """Return the masks of the nodes of a size that `has_hints`.

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
            # Of equal probabilities the lower id comes first.
            order = np.argsort(-probabilities, axis=-1, kind="stable")
            if self.kind == "top":
                taken = np.broadcast_to(np.arange(TYPES) < self.k, order.shape)
            else:
                ranked = np.take_along_axis(probabilities, order, -1).astype(np.float64)
                before = np.cumsum(ranked, -1) - ranked
                tau = self.tau[size] if isinstance(self.tau, Mapping) else self.tau
                # Float32 probabilities that sum to 1 within rounding.
                taken = (before < tau - 1e-6) & (ranked > 0)
                taken[..., 0] = True
            bits = np.where(taken, np.uint16(1) << order.astype(np.uint16), np.uint16(0))
            masks = np.bitwise_or.reduce(bits, axis=-1).astype(np.uint16)
        if not self.keep:
            return masks
        unknown = set(legal_partitions(size)) - set(known)
        return masks | np.uint16(KEEP | sum(1 << type_ for type_ in unknown))
