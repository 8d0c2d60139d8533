"""Predictors without a network, which every learnt one must beat: prior, variance rule, random.

All are fitted on the nodes of a dataset, for each size and qindex; between qindexes that the
dataset has, the nearest counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from av1part.data.store.store import Store
from av1part.partition import Partition
from av1part.predictors.interface import TYPES, Distributions, Domain, uniform, whole_nodes
from av1part.system.errors import StoreError

BINS = 24
"""Intervals of the variance rule, of equal numbers of nodes each."""

Key = tuple[int, int]
"""Size and qindex."""


def domain_of(store: Store, nodes: pl.DataFrame) -> Domain:
    """Return what a predictor that is fitted on these nodes of a dataset knows."""
    depths = {int(facts["bit_depth"]) for facts in store.manifest["sequences"].values()}
    return Domain(
        sizes=tuple(sorted(nodes["size"].unique())),
        qindexes=(int(nodes["qindex"].min()), int(nodes["qindex"].max())),  # type: ignore[arg-type]
        bit_depths=tuple(sorted(depths)),
        one_to_four=bool((nodes["partition"] >= Partition.HORZ_4).any()),
    )


def _check(nodes: pl.DataFrame) -> None:
    if nodes.is_empty():
        raise StoreError("there are no nodes to fit a predictor on: choose another split")


def _smoothed(counts: NDArray[Any], prior: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of each type, as if `prior` had been seen once more."""
    smooth = counts + prior
    shares: NDArray[np.float64] = smooth / smooth.sum(-1, keepdims=True)
    return shares


def _counts(partition: NDArray[Any]) -> NDArray[np.int64]:
    return np.bincount(partition.astype(np.int64), minlength=TYPES)


@dataclass(frozen=True)
class ByQindex:
    """Values by size and qindex, of which the nearest qindex's is taken."""

    values: Mapping[Key, NDArray[np.float64]]

    def at(self, size: int, qindex: int) -> NDArray[np.float64]:
        """Return the value at a size and the nearest qindex; of two, the lower one's."""
        keys = [key for key in self.values if key[0] == size]
        return self.values[min(keys, key=lambda key: (abs(key[1] - qindex), key[1]))]


def _fill(
    domain: Domain, plane: NDArray[Any], distribution: Mapping[int, NDArray[np.float64]]
) -> Distributions:
    """Give all nodes of a size the same distribution."""
    found = {}
    for size in domain.sizes:
        rows, cols = whole_nodes(plane.shape, size)
        if rows and cols:
            found[size] = np.broadcast_to(
                distribution[size].astype(np.float32), (rows, cols, TYPES)
            ).copy()
    return found


@dataclass(frozen=True)
class ClassPrior:
    """The share of each type at a size and qindex, whatever the samples."""

    domain: Domain
    shares: ByQindex

    name: str = "class prior"

    @classmethod
    def fit(cls, store: Store, nodes: pl.DataFrame, domain: Domain | None = None) -> ClassPrior:
        """Count the types among some nodes of a dataset.

        Args:
            store: The dataset.
            nodes: Rows of its table, such as those of its training split.
            domain: What it is to answer, of sizes that the nodes have; None: what they are of.

        Returns:
            The predictor.

        Raises:
            StoreError: if there are no nodes.
        """
        _check(nodes)
        domain = domain or domain_of(store, nodes)
        shares = {
            (int(size), int(qindex)): _smoothed(
                _counts(group["partition"].to_numpy()), uniform(int(size), domain)
            )
            for (size, qindex), group in nodes.group_by("size", "qindex")
        }
        return cls(domain, ByQindex(shares))

    def predict(self, plane: NDArray[Any], bit_depth: int, qindex: int) -> Distributions:
        """See `Predictor`."""
        return _fill(self.domain, plane, {s: self.shares.at(s, qindex) for s in self.domain.sizes})


def log_variance(plane: NDArray[Any], size: int, bit_depth: int) -> NDArray[np.float64]:
    """Return log2(1 + variance) of each whole node, shape `[rows, cols]`, in units of 8 bits."""
    rows, cols = whole_nodes(plane.shape, size)
    blocks = plane[: rows * size, : cols * size].astype(np.float64) / (1 << (bit_depth - 8))
    blocks = blocks.reshape(rows, size, cols, size)
    variance: NDArray[np.float64] = np.log2(1 + blocks.var(axis=(1, 3)))
    return variance


@dataclass(frozen=True)
class VarianceRule:
    """The share of each type among the nodes of a size and qindex with a similar variance."""

    domain: Domain
    edges: ByQindex
    shares: ByQindex

    name: str = "variance rule"

    @classmethod
    def fit(cls, store: Store, nodes: pl.DataFrame) -> VarianceRule:
        """Count the types in intervals of the variance; arguments as `ClassPrior.fit`.

        Args:
            store: The dataset.
            nodes: Rows of its table.

        Returns:
            The predictor.

        Raises:
            StoreError: if there are no nodes.
        """
        _check(nodes)
        domain = domain_of(store, nodes)
        variance = np.empty(nodes.height)
        numbered = nodes.with_row_index("number")
        for (sequence, frame, size), group in numbered.group_by("sequence", "frame", "size"):
            depth = int(store.manifest["sequences"][sequence]["bit_depth"])
            plane = store.plane(str(sequence))[int(frame)]
            values = log_variance(plane, int(size), depth)
            at = group["row"].to_numpy() // int(size), group["col"].to_numpy() // int(size)
            variance[group["number"].to_numpy()] = values[at]
        edges, shares = {}, {}
        for (size, qindex), group in numbered.group_by("size", "qindex"):
            key = int(size), int(qindex)
            own, partition = variance[group["number"].to_numpy()], group["partition"].to_numpy()
            edges[key] = np.quantile(own, np.linspace(0, 1, BINS + 1)[1:-1])
            bins = np.searchsorted(edges[key], own, side="right")
            counts = np.stack([_counts(partition[bins == i]) for i in range(BINS)])
            prior = _smoothed(counts.sum(0), uniform(key[0], domain))
            shares[key] = _smoothed(counts, prior)
        return cls(domain, ByQindex(edges), ByQindex(shares))

    def predict(self, plane: NDArray[Any], bit_depth: int, qindex: int) -> Distributions:
        """See `Predictor`."""
        found = {}
        for size in self.domain.sizes:
            variance = log_variance(plane, size, bit_depth)
            if variance.size:
                bins = np.searchsorted(self.edges.at(size, qindex), variance, side="right")
                found[size] = self.shares.at(size, qindex)[bins].astype(np.float32)
        return found


@dataclass(frozen=True)
class RandomSets:
    """Sets of types drawn at random, of given sizes: what a point's set sizes alone are worth.

    Attributes:
        domain: Sizes and types.
        set_sizes: Share of the sets with 1, 2, ... types, by size and qindex.
        seed: Of the draws, which depend on the frame's samples too.
        name: See `Predictor`.
    """

    domain: Domain
    set_sizes: ByQindex
    seed: int = 0

    name: str = "random sets"

    def predict(self, plane: NDArray[Any], bit_depth: int, qindex: int) -> Distributions:
        """Draw a set for each node, whose types share its probability alike; see `Predictor`."""
        rng = np.random.default_rng([self.seed, qindex, int(plane.sum(dtype=np.int64))])
        found = {}
        for size in self.domain.sizes:
            rows, cols = whole_nodes(plane.shape, size)
            types = np.array(self.domain.types(size))
            shares = self.set_sizes.at(size, qindex)[: len(types)]
            if not (rows and cols):
                continue
            count = 1 + rng.choice(len(shares), (rows, cols), p=shares / shares.sum())
            ranks = rng.random((rows, cols, len(types))).argsort(-1).argsort(-1)
            chosen = ranks < count[..., None]
            drawn = np.zeros((rows, cols, TYPES), np.float32)
            drawn[..., types] = chosen / count[..., None]
            found[size] = drawn
        return found
