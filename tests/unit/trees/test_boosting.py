"""Trained trees answer as LightGBM does, and the same seed gives the same trees."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from av1part.system.errors import ConfigError
from av1part.trees.boosting import (
    Boosted,
    Boosting,
    Samples,
    boost,
    class_weights,
    to_forest,
    train_booster,
)

pytest.importorskip("lightgbm")

FEW = Boosting("none", 60, 5, 0.2, 8, 5, 0.7, seed=1, threads=1)


def samples(count: int, seed: int) -> Samples:
    """Three classes, of which the last is rare, with noise."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(count, 6)).astype(np.float32)
    features[:, 3] = np.round(features[:, 3])  # values on thresholds
    score = features[:, 0] * features[:, 1] + features[:, 3] + rng.normal(0, 0.3, count)
    return Samples(features, np.digitize(score, [0, 2.2]).astype(np.int64))


TRAIN, VAL = samples(1500, 0), samples(500, 1)


def same(first: Boosted, second: Boosted) -> bool:
    others = second.forest.arrays()
    return all(np.array_equal(a, others[name]) for name, a in first.forest.arrays().items())


def log_loss(boosted: Boosted, of: Samples, weights: Any) -> float:
    own = boosted.forest.probabilities(of.features)[np.arange(len(of.labels)), of.labels]
    return float(np.average(-np.log(own), weights=weights[of.labels]))


def test_the_arrays_answer_as_the_library() -> None:
    booster, base, history = train_booster(TRAIN, VAL, 4, FEW)
    best = int(np.argmin(history)) + 1
    forest = to_forest(booster, base, best)
    raw = booster.predict(VAL.features, raw_score=True, num_iteration=best) + base
    np.testing.assert_allclose(forest.scores(VAL.features), raw, rtol=0, atol=1e-9)
    shares = np.exp(raw) / np.exp(raw).sum(1, keepdims=True)
    np.testing.assert_allclose(forest.probabilities(VAL.features), shares, rtol=0, atol=1e-6)
    forest.check(6)


def test_training_stops_at_the_least_val_loss() -> None:
    boosted = boost(TRAIN, VAL, 3, FEW)
    assert 1 < boosted.iterations < FEW.iterations
    assert boosted.val_loss == pytest.approx(log_loss(boosted, VAL, np.ones(3)), abs=1e-6)
    assert len(boosted.forest.root) <= 3 * boosted.iterations
    shares = np.bincount(TRAIN.labels) / len(TRAIN.labels)
    assert boosted.val_loss < 0.7 * -np.log(shares[VAL.labels]).mean()


@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_the_same_seed_gives_the_same_trees(weights: Any) -> None:
    first = boost(TRAIN, VAL, 3, Boosting(weights, 20, 5, 0.2, 8, 5, 0.5, seed=1, threads=1))
    again = boost(TRAIN, VAL, 3, Boosting(weights, 20, 5, 0.2, 8, 5, 0.5, seed=1, threads=2))
    other = boost(TRAIN, VAL, 3, Boosting(weights, 20, 5, 0.2, 8, 5, 0.5, seed=2, threads=1))
    assert same(first, again)
    assert (first.iterations, first.val_loss) == (again.iterations, again.val_loss)
    assert not same(first, other)


def test_balanced_classes_weigh_alike() -> None:
    weights = class_weights(TRAIN.labels, 4, "balanced")
    counts = np.bincount(TRAIN.labels, minlength=4)
    assert (weights * counts)[:3] == pytest.approx(len(TRAIN.labels) / 3)
    assert class_weights(TRAIN.labels, 4, "none").tolist() == [1] * 4
    plain = boost(TRAIN, VAL, 3, FEW)
    balanced = boost(TRAIN, VAL, 3, Boosting("balanced", 60, 5, 0.2, 8, 5, 0.7, seed=1))
    assert balanced.val_loss == pytest.approx(log_loss(balanced, VAL, weights), abs=1e-6)
    rare = [b.forest.probabilities(VAL.features)[:, 2].mean() for b in (plain, balanced)]
    assert rare[0] == pytest.approx((VAL.labels == 2).mean(), abs=0.03)
    assert rare[1] > 1.5 * rare[0]


def test_a_class_that_never_occurs_in_training_is_nearly_impossible() -> None:
    val = Samples(VAL.features, np.where(np.arange(500) == 0, 3, VAL.labels))
    boosted = boost(TRAIN, val, 4, FEW)
    unseen = boosted.forest.probabilities(VAL.features)[:, 3]
    assert (unseen > 0).all()
    assert unseen.max() < 0.01
    assert set(boosted.forest.tree_class) <= {0, 1, 2}


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    with pytest.raises(ConfigError, match=r"pip install 'av1part\[trees\]'"):
        boost(TRAIN, VAL, 3, FEW)
