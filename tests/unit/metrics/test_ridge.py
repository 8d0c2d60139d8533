"""Ridge regression in closed form, against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from av1part.metrics.ridge import ridge_classes

K = 4


def nodes(n: int, c: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.choice(K - 1, n, p=[0.7, 0.2, 0.1])  # of the last class there is none
    centres = rng.normal(size=(K, c))
    return centres[labels] + 2 * rng.normal(size=(n, c)), labels, rng.normal(size=(300, c))


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize(("n", "c"), [(30, 80), (200, 6)])
@pytest.mark.parametrize("strength", [1e-3, 0.3, 20.0])
def test_it_is_scikit_learn_s(n: int, c: int, strength: float, balanced: bool) -> None:
    x, labels, asked = nodes(n, c, seed=n)
    counts = np.bincount(labels, minlength=K)
    weight = (n / (counts > 0).sum() / np.maximum(counts, 1))[labels] if balanced else np.ones(n)
    centred = x - np.average(x, axis=0, weights=weight)
    alpha = strength * (weight * (centred**2).sum(1)).mean()
    reference = Ridge(alpha=alpha).fit(x, np.eye(K)[labels], sample_weight=weight)
    (found,) = ridge_classes(x, labels, asked, K, [strength], balanced=balanced).values()
    assert np.array_equal(found, reference.predict(asked).argmax(1))


def test_a_strength_means_the_same_at_any_scale_and_a_great_one_is_the_prior() -> None:
    x, labels, asked = nodes(40, 10, seed=1)
    strengths = [1e-3, 0.3, 1e9]
    one = ridge_classes(x, labels, asked, K, strengths)
    scaled = ridge_classes(1000 * x, labels, 1000 * asked, K, strengths)
    assert all(np.array_equal(one[s], scaled[s]) for s in strengths)
    assert set(one[1e9]) == {0}
    assert len(set(ridge_classes(x, labels, asked, K, [0.3], balanced=True)[0.3])) == 3


def test_features_that_do_not_differ_say_nothing() -> None:
    found = ridge_classes(np.ones((3, 2)), [2, 2, 1], np.zeros((4, 2)), K, [1.0])
    assert found[1.0].tolist() == [2] * 4
