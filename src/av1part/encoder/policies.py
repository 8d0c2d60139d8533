"""Policies: from the probabilities of a node's types to the types that an encoder may search."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from av1part.data.build.settings import SIZES_TEXT, check_list
from av1part.encoder.hints import KEEP, grid_shape
from av1part.metrics.sets import cumulated_sets, top_sets
from av1part.options import POLICIES, PolicyKind
from av1part.partition import SIZES, Partition, legal_partitions
from av1part.predictors.interface import TYPES, Distributions, Domain
from av1part.system.errors import ConfigError

WORTH: Mapping[int, NDArray[np.float64]] = {
    #               NONE  HORZ  VERT  SPLIT   four AB types         1:4 types
    64: np.array([0.77, 0.81, 0.73, 0.25, 0.57, 0.63, 0.5, 0.67, 0.61, 0.77]),
    32: np.array([0.94, 0.8, 0.83, 0.19, 0.55, 0.53, 0.4, 0.51, 0.53, 0.55]),
    16: np.array([0.76, 1.0, 1.0, 0.4, 0.59, 0.7, 0.48, 0.64, 0.45, 0.44]),
    8: np.array([1.1, 1.5, 1.5, 4.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]),
}
"""By node size: what trying each type, by AV1's id, is worth where it may be the best.

In units of HORZ at 16x16; 0 where a size lacks the type.

That is the square root of the mean regret, the rise of the frame's rate-distortion cost without the
type where it is the best one, over the time of trying it, which for SPLIT is that of all nodes
below. The root because a type that was unlikely costs less than the mean where it is the best one,
SPLIT most of all. Of libaom 3.6.0: regrets on fifty of CID22's training pictures, times on nine;
computed by experiments/encoder/worth.py.
"""

POLICY_KEYS: Mapping[PolicyKind, str] = {"cumulated": "tau", "worth": "least", "top": "k"}
"""By kind of policy: the attribute of `Policy` that it alone has."""

_BITS = np.uint16(1) << np.arange(TYPES, dtype=np.uint16)
"""Bit of each type in a mask."""


@dataclass(frozen=True)
class Policy:
    """How a mask is made of a distribution.

    Attributes:
        kind: `cumulated`: the most probable types whose probabilities add up to `tau`; `worth`: the
            types whose probability, times that of the encoder's coming to the node, times `WORTH`,
            is `least` or more; `top`: the `k` most probable types; `none` and `split`: this type
            alone, everywhere.
        tau: Cumulated probability, 0 to 1; one for all sizes, or one for each of `sizes`.
        least: Least expected worth of a type, above 0; the type of the greatest is always taken.
        k: Number of types.
        keep: Whether the encoder's own pruning holds as well, instead of being replaced. It holds
            in any case where a predictor does not know all types of a size, and where all of them
            are in the set, since that is no hint (`hints`).
        sizes: Node sizes that get hints; None is all that the predictor has.
    """

    kind: PolicyKind = "cumulated"
    tau: float | Sequence[float] = 0.9
    least: float = 0.02
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
        if not _is_probability(self.least) or not self.least:
            raise ConfigError(f"policy.least={self.least}: give a number above 0, at most 1")
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

    def pruned_anyway(self, domain: Domain) -> str:
        """Say where the encoder's own pruning holds although `keep` is false, or nothing.

        Args:
            domain: The predictor's.

        Returns:
            A clause for a warning.
        """
        sizes = [
            size
            for size in self.hinted_sizes(domain)
            if set(legal_partitions(size)) - set(domain.types(size))
        ]
        if self.keep or self.kind in ("none", "split") or not sizes:
            return ""
        return (
            f"keep=false does not hold at size {', '.join(map(str, sizes))}, of which the "
            "predictor does not know all types: these are left to the encoder's own pruning"
        )

    def facts(self) -> dict[str, Any]:
        """Return what the masks depend on, beside the distributions, as plain values."""
        own = {key: getattr(self, key) for key in ("kind", "keep", "sizes")}
        if key := POLICY_KEYS.get(self.kind):
            own[key] = getattr(self, key)
        if self.kind == "worth":
            table = {size: worth.tolist() for size, worth in WORTH.items()}
            own["worth_sha256"] = hashlib.sha256(json.dumps(table).encode()).hexdigest()
        return own

    def _tau(self, size: int) -> float:
        if isinstance(self.tau, Sequence):
            return self.tau[list(self.sizes or ()).index(size)]
        return self.tau

    def masks(
        self,
        probabilities: NDArray[np.float32],
        size: int,
        known: Iterable[int] = range(TYPES),
        reached: NDArray[np.float64] | float = 1.0,
    ) -> NDArray[np.uint16]:
        """Return the masks of the nodes of a size that gets hints.

        Types that the predictor does not know are left to the encoder, whose own pruning then
        holds; not so by `none` and `split`, which ask no predictor.

        Args:
            probabilities: float `[..., TYPES]`.
            size: Node size.
            known: Types that the predictor knows at this size.
            reached: Probability that the encoder comes to each node, of the shape of the result;
                `worth` alone asks for it.

        Returns:
            uint16, of the shape of `probabilities` without its last axis.
        """
        if self.kind in ("none", "split"):
            only = Partition.NONE if self.kind == "none" else Partition.SPLIT
            mask = 1 << only | (KEEP if self.keep else 0)
            return np.full(probabilities.shape[:-1], mask, np.uint16)
        members = self._members(probabilities, size, reached)
        bits = np.where(members, _BITS, np.uint16(0))
        masks: NDArray[np.uint16] = np.bitwise_or.reduce(bits, axis=-1).astype(np.uint16)
        unknown = set(legal_partitions(size)) - set(known)
        if self.keep or unknown:
            masks |= np.uint16(KEEP | sum(1 << type_ for type_ in unknown))
        return masks

    def _members(
        self, probabilities: NDArray[np.float32], size: int, reached: NDArray[np.float64] | float
    ) -> NDArray[np.bool_]:
        """Return whether each type is in a node's set, of the shape of `probabilities`."""
        if self.kind == "top":
            return top_sets(probabilities, self.k)
        if self.kind == "worth":
            expected = probabilities * WORTH[size] * np.asarray(reached)[..., None]
            # Where nothing is worth its time something is tried nonetheless: the best of it.
            first = top_sets(probabilities * WORTH[size], 1)
            taken: NDArray[np.bool_] = (expected >= self.least) | first
            return taken
        return cumulated_sets(probabilities, self._tau(size))

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
        reached = reach(distributions) if self.kind == "worth" else {}
        masks = {}
        for size in self.hinted_sizes(domain):
            grid = np.zeros(grid_shape(width, height, size), np.uint16)
            if size in distributions:
                rows, cols, _ = distributions[size].shape
                grid[:rows, :cols] = self.masks(
                    distributions[size], size, domain.types(size), reached.get(size, 1.0)
                )
            masks[size] = grid
        return masks


def reach(distributions: Distributions) -> dict[int, NDArray[np.float64]]:
    """Return how probable it is that an encoder's tree comes to each node.

    That is the product of the probabilities of SPLIT over the nodes around it. One that has no
    prediction, as it crosses the frame's edge or its size is not predicted, counts as split.

    Args:
        distributions: A predictor's answer, by node size.

    Returns:
        Node size to probabilities, `[rows, cols]`.
    """
    reached: dict[int, NDArray[np.float64]] = {}
    for size in sorted(distributions, reverse=True):
        rows, cols, _ = distributions[size].shape
        own = np.ones((rows, cols))
        for larger in (s for s in reached if s > size):
            inside = np.repeat(
                np.repeat(distributions[larger][..., Partition.SPLIT], larger // size, 0),
                larger // size,
                1,
            )
            own[: inside.shape[0], : inside.shape[1]] *= inside[:rows, :cols]
        reached[size] = own
    return reached


def _is_probability(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1
