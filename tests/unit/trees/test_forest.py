"""A forest answers as its trees do, walked node by node, and a tree that is none is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from av1part.trees.forest import MOST_LEAVES, Forest

FEATURES = 5


def random_forest(rng: np.random.Generator, trees: int, most: int = MOST_LEAVES) -> Forest:
    """Trees whose leaves are split at random places."""
    feature, threshold, left, right, leaf = [], [], [], [], []
    root, of = [], []
    for _ in range(trees):
        splits = int(rng.integers(0, most))
        first = len(feature)
        # Places of children that are still leaves: a list and the index in it.
        open_places: list[tuple[list[int], int]] = []
        if splits == 0:
            root.append(-1 - len(leaf))
            leaf.append(rng.normal())
        else:
            root.append(first)
        for number in range(splits):
            if number:
                side, at = open_places.pop(int(rng.integers(len(open_places))))
                side[at] = len(feature)
            feature.append(int(rng.integers(FEATURES)))
            threshold.append(float(rng.integers(-3, 4)))
            left.append(0)
            right.append(0)
            open_places += [(left, len(left) - 1), (right, len(right) - 1)]
        for side, at in open_places:
            side[at] = -1 - len(leaf)
            leaf.append(rng.normal())
        of.append(int(rng.integers(3)))
    ints = [np.array(values, np.int64) for values in (feature, left, right, root, of)]
    return Forest(
        feature=ints[0],
        threshold=np.array(threshold, np.float32),
        left=ints[1],
        right=ints[2],
        leaf=np.array(leaf, np.float64),
        root=ints[3],
        tree_class=ints[4],
        base=rng.normal(size=3),
    )


def walked(forest: Forest, sample: Any) -> Any:
    """The scores of one sample, by the definition."""
    scores = forest.base.copy()
    for child, of in zip(forest.root, forest.tree_class, strict=True):
        while child >= 0:
            goes_left = sample[forest.feature[child]] <= forest.threshold[child]
            child = (forest.left if goes_left else forest.right)[child]
        scores[of] += forest.leaf[-1 - child]
    return scores


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(0, 6), st.sampled_from([2, 8, MOST_LEAVES]))
def test_each_sample_reaches_its_leaf(seed: int, trees: int, most: int) -> None:
    rng = np.random.default_rng(seed)
    forest = random_forest(rng, trees, most)
    forest.check(FEATURES)
    # Samples on thresholds, too.
    samples = np.float32(rng.integers(-4, 5, (50, FEATURES)))
    expected = np.array([walked(forest, sample) for sample in samples])
    np.testing.assert_allclose(forest.scores(samples), expected, rtol=1e-12, atol=1e-12)
    exponential = np.exp(expected)
    shares = exponential / exponential.sum(1, keepdims=True)
    np.testing.assert_allclose(forest.probabilities(samples), shares, rtol=1e-9)


def test_many_samples_are_answered_like_few() -> None:
    rng = np.random.default_rng(0)
    forest = random_forest(rng, 5)
    samples = np.float32(rng.normal(size=(17000, FEATURES)))
    whole = forest.scores(samples)
    np.testing.assert_array_equal(whole[9000:9003], forest.scores(samples[9000:9003]))
    assert forest.scores(samples[:0]).shape == (0, 3)


def test_scores_of_any_size_are_probabilities() -> None:
    forest = replace(random_forest(np.random.default_rng(1), 0), base=np.array([1e4, 0.0, -1e4]))
    assert forest.probabilities(np.zeros((1, FEATURES))).tolist() == [[1, 0, 0]]


def test_more_leaves_than_bits_are_refused() -> None:
    count = MOST_LEAVES  # nodes of one branch, and one leaf more
    chain = np.arange(1, count + 1)
    chain[-1] = -1 - count
    forest = Forest(
        feature=np.zeros(count, np.int64),
        threshold=np.zeros(count, np.float32),
        left=-1 - np.arange(count),
        right=chain,
        leaf=np.zeros(count + 1),
        root=np.zeros(1, np.int64),
        tree_class=np.zeros(1, np.int64),
        base=np.zeros(1),
    )
    with pytest.raises(ValueError, match="more than 64 leaves"):
        forest.check(1)
