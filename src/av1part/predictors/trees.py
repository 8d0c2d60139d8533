"""Boosted trees on luma features as a predictor: a forest a node size, over AV1's types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from av1part.data.store.store import Store
from av1part.options import TreeWeights
from av1part.partition import Partition
from av1part.predictors.fitted import domain_of
from av1part.predictors.interface import TYPES, Distributions, Domain, whole_nodes
from av1part.trees.boosting import Boosting, Samples
from av1part.trees.features import node_features
from av1part.trees.forest import Forest
from av1part.trees.samples import store_features
from av1part.trees.search import search

Nodes = Mapping[int, NDArray[np.int64]]
"""Node size to node numbers."""


@dataclass(frozen=True)
class TreesOfSize:
    """The trees of one node size.

    Attributes:
        forest: Its classes are the domain's types at the size, in the order of AV1's ids.
        iterations: Trees of a type.
        val_loss: Log loss of the validation nodes, weighted as the training nodes were.
    """

    forest: Forest
    iterations: int
    val_loss: float


@dataclass(frozen=True)
class BoostedTrees:
    """Boosted trees for each node size.

    Attributes:
        domain: Sizes and types.
        by_size: The trees of each size of the domain.
        class_weights: How nodes counted in training; probabilities are of classes that weigh so.
        name: See `Predictor`.
    """

    domain: Domain
    by_size: Mapping[int, TreesOfSize]
    class_weights: TreeWeights

    name: str = "boosted trees"

    @classmethod
    def fit(cls, store: Store, train: Nodes, val: Nodes, settings: Boosting) -> BoostedTrees:
        """Train the trees of each size.

        Args:
            store: The dataset.
            train: Training nodes.
            val: Validation nodes of the same sizes, which say when to stop.
            settings: How to train.

        Returns:
            The predictor.

        Raises:
            ConfigError: if LightGBM is not installed.
        """
        both = [np.sort(np.concatenate([*nodes.values()])) for nodes in (train, val)]
        seen = domain_of(store, store.nodes[both[0]])
        later = store.nodes[both[1]].filter(pl.col("partition") >= Partition.HORZ_4)
        one_to_four = seen.one_to_four or not later.is_empty()
        domain = Domain(seen.sizes, seen.qindexes, seen.bit_depths, one_to_four)
        by_size = {}
        for size in domain.sizes:
            types = domain.types(size)
            of_train, of_val = (_samples(store, n[size], size, types) for n in (train, val))
            boosted = search(of_train, of_val, len(types), settings)
            by_size[size] = TreesOfSize(boosted.forest, boosted.iterations, boosted.val_loss)
        return cls(domain, by_size, settings.class_weights)

    def predict(self, plane: NDArray[Any], bit_depth: int, qindex: int) -> Distributions:
        """See `Predictor`; samples of any bit depth count in units of 8 bits."""
        found = {}
        for size in self.domain.sizes:
            rows, cols = whole_nodes(plane.shape, size)
            if not (rows and cols):
                continue
            features = node_features(plane, bit_depth, size).at(qindex)
            probabilities = np.zeros((rows, cols, TYPES), np.float32)
            own = self.by_size[size].forest.probabilities(features.reshape(rows * cols, -1))
            probabilities[..., list(self.domain.types(size))] = own.reshape(rows, cols, -1)
            found[size] = probabilities
        return found


def _samples(
    store: Store, nodes: NDArray[np.int64], size: int, types: tuple[Partition, ...]
) -> Samples:
    classes = np.zeros(TYPES, np.int64)
    classes[list(types)] = np.arange(len(types))
    partition = store.nodes["partition"].to_numpy()[nodes]
    return Samples(store_features(store, nodes, size), classes[partition])
