"""A forest of decision trees as plain arrays, and its probabilities; needs numpy alone.

    child >= 0   index of an inner node        child < 0   leaf number -child - 1

A sample goes left where its feature is at most the threshold. Trees are stored one after the other,
each node before its children, each leaf in the order of the nodes.

Shapes: n samples, F features, k classes, T trees, I inner nodes, L leaves.

Reference: Lucchese et al., QuickScorer (SIGIR 2015), for how a leaf is found.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_LEAVES = 64
"""Leaves of a tree: bits of a word."""

_BATCH = 8192
"""Samples at a time: fewer cost more calls, more leave the cache."""


@dataclass(frozen=True)
class Forest:
    """Boosted trees; a class's score is its base and the leaves of its trees.

    Attributes:
        feature: Feature of each inner node, int64 `[I]`.
        threshold: Threshold of each inner node, float32 `[I]`.
        left: Left child of each inner node, int64 `[I]`.
        right: Right child, int64 `[I]`.
        leaf: Value of each leaf, float64 `[L]`.
        root: Child that each tree begins with, int64 `[T]`.
        tree_class: Class of each tree, int64 `[T]`.
        base: Score of each class without a tree, float64 `[k]`.
    """

    feature: NDArray[np.int64]
    threshold: NDArray[np.float32]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    leaf: NDArray[np.float64]
    root: NDArray[np.int64]
    tree_class: NDArray[np.int64]
    base: NDArray[np.float64]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays by name."""
        return {entry.name: getattr(self, entry.name) for entry in fields(self)}

    def check(self, features: int) -> None:
        """Check that this is a forest: every sample reaches one leaf of every tree.

        Args:
            features: Number of features of a sample.

        Raises:
            ValueError: if an array is of another kind or refers to what is not there.
        """
        wanted = dict.fromkeys(("feature", "left", "right", "root", "tree_class"), np.int64)
        kinds: dict[str, Any] = {**wanted, "threshold": np.float32, "leaf": np.float64}
        kinds["base"] = np.float64
        for name, array in self.arrays().items():
            if array.ndim != 1 or array.dtype != kinds[name]:
                raise ValueError(f"{name} is of {array.dtype} and shape {array.shape}")
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise ValueError(f"{name} is not finite")
        inner, k = len(self.feature), len(self.base)
        if not len(self.threshold) == len(self.left) == len(self.right) == inner:
            raise ValueError("arrays of inner nodes differ in length")
        if len(self.root) != len(self.tree_class) or not k:
            raise ValueError("arrays of trees differ in length, or there is no class")
        if ((self.feature < 0) | (self.feature >= features)).any():
            raise ValueError(f"a node is of a feature that is none of {features}")
        if ((self.tree_class < 0) | (self.tree_class >= k)).any():
            raise ValueError(f"a tree is of a class that is none of {k}")
        children = np.concatenate([self.root, self.left, self.right])
        leaves = np.sort(-1 - children[children < 0])
        # Each node and leaf is the child of exactly one: then nothing is shared.
        if not np.array_equal(np.sort(children[children >= 0]), np.arange(inner)) or not (
            np.array_equal(leaves, np.arange(len(self.leaf)))
        ):
            raise ValueError("a node or leaf is not the child of exactly one")
        # And each child comes after its parent: then there is no circle.
        for child in (self.left, self.right):
            if ((child >= 0) & (child <= np.arange(inner))).any():
                raise ValueError("a node comes before its parent")
        if any(len(tree.leaves) > MOST_LEAVES for tree in self._trees):
            raise ValueError(f"a tree has more than {MOST_LEAVES} leaves")

    def scores(self, samples: NDArray[Any]) -> NDArray[np.float64]:
        """Return the score of each class.

        Args:
            samples: Features, `[n, F]`, compared in float32.

        Returns:
            Float64 `[n, k]`.
        """
        scores = np.empty((len(samples), len(self.base)))
        for start in range(0, len(samples), _BATCH):
            batch = np.ascontiguousarray(samples[start : start + _BATCH].T, dtype=np.float32)
            of_class = np.repeat(self.base[:, None], batch.shape[1], axis=1)
            for tree in self._trees:
                of_class[tree.of] += tree.values(batch)
            scores[start : start + _BATCH] = of_class.T
        return scores

    def probabilities(self, samples: NDArray[Any]) -> NDArray[np.float64]:
        """Return the softmax of the scores, float64 `[n, k]`; arguments as for `scores`."""
        # Huge leaves of a file make NaN, which a bundle refuses.
        with np.errstate(over="ignore", invalid="ignore"):
            scores = self.scores(samples)
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            probabilities: NDArray[np.float64] = scores / scores.sum(-1, keepdims=True)
        return probabilities

    @cached_property
    def _trees(self) -> tuple[_Tree, ...]:
        """Each tree as words of leaves."""
        return tuple(self._each_tree())

    def _each_tree(self) -> Iterator[_Tree]:
        for root, of in zip(self.root.tolist(), self.tree_class.tolist(), strict=True):
            # Leaves from left to right, each node with the leaves below its left child.
            leaves: list[int] = []
            below: dict[int, tuple[int, int]] = {}
            waiting: list[tuple[int, int | None]] = [(root, None)]
            while waiting:
                child, start = waiting.pop()
                if child < 0:
                    leaves.append(-1 - child)
                elif start is None:
                    right, left = int(self.right[child]), int(self.left[child])
                    waiting += [(right, None), (child, len(leaves)), (left, None)]
                else:
                    below[child] = start, len(leaves)
            yield _Tree(
                of,
                tuple(
                    (int(self.feature[node]), self.threshold[node], _word(*own, len(leaves)))
                    for node, own in below.items()
                ),
                self.leaf[leaves],
            )


_Word = np.uint32 | np.uint64


def _ones(leaves: int) -> _Word:
    """Return the word of all bits, the shorter one where that is enough, since it is faster."""
    return np.uint32(2**32 - 1) if leaves <= 32 else np.uint64(2**64 - 1)


def _word(start: int, end: int, leaves: int) -> _Word:
    """Return the word of a tree without the bits from start to before end."""
    ones = _ones(leaves)
    return type(ones)(int(ones) & ~((1 << end) - (1 << start)))


@dataclass(frozen=True)
class _Tree:
    """One tree: a bit a leaf, from left to right.

    Where a sample goes right, the leaves below the left child cannot be its; the first of the
    leaves that remain is.
    """

    of: int
    nodes: tuple[tuple[int, np.float32, _Word], ...]
    leaves: NDArray[np.float64]

    def values(self, samples: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the value of each sample's leaf; samples are `[F, n]`."""
        ones = _ones(len(self.leaves))
        possible = np.full(samples.shape[1], ones)
        for feature, threshold, word in self.nodes:
            possible &= np.where(samples[feature] <= threshold, ones, word)
        below = ~possible & (possible - type(ones)(1))  # the bits below the first
        values: NDArray[np.float64] = self.leaves[np.bitwise_count(below)]
        return values
