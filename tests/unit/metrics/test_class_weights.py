"""Class weights against an exhaustive search, and where nothing can be gained."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from av1part.metrics.class_weights import GRID, fit_class_weights, weighted_predictions
from av1part.metrics.scores import confusion_matrix, macro_f1_from_confusion


def macro_f1(
    values: NDArray[np.float64], labels: NDArray[np.int64], weights: tuple[float, ...]
) -> float:
    predictions = weighted_predictions(values, weights)
    return float(macro_f1_from_confusion(confusion_matrix(predictions, labels, len(weights))))


def drawn(seed: int, prior: tuple[float, ...]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return calibrated probabilities of classes of these shares, and labels drawn from them."""
    rng = np.random.default_rng(seed)
    values = rng.dirichlet(3 * np.array(prior), 2000)
    labels = np.array([rng.choice(len(prior), p=row) for row in values])
    return values, labels


def test_by_hand() -> None:
    """The rare class needs between 3 and 4 times its probability to be predicted where it is."""
    values = np.array([[0.9, 0.1]] * 6 + [[0.8, 0.2]] * 2 + [[0.75, 0.25]] * 2)
    labels = np.array([0] * 8 + [1] * 2)
    found = fit_class_weights(values, labels)
    assert found.macro_f1_argmax == pytest.approx((2 * 8 / 18) / 2)
    assert found.macro_f1 == 1.0
    assert found.weights[0] == 1.0
    assert 3 < found.weights[1] < 4
    assert weighted_predictions(values, found.weights).tolist() == labels.tolist()


@pytest.mark.parametrize("prior", [(0.6, 0.3, 0.1), (0.2, 0.5, 0.3), (0.05, 0.05, 0.9)])
def test_it_comes_close_to_an_exhaustive_search(prior: tuple[float, ...]) -> None:
    values, labels = drawn(1, prior)
    found = fit_class_weights(values, labels)
    coarse = GRID[::2]
    best = max(macro_f1(values, labels, (1.0, *pair)) for pair in itertools.product(coarse, coarse))
    assert found.macro_f1 == pytest.approx(macro_f1(values, labels, found.weights))
    assert found.macro_f1_argmax == macro_f1(values, labels, (1.0,) * 3)
    assert found.macro_f1 > found.macro_f1_argmax
    assert found.macro_f1 > best - 0.005
    assert fit_class_weights(values, labels) == found


def test_a_perfect_predictor_keeps_equal_weights() -> None:
    labels = np.array([0, 1, 2, 1])
    found = fit_class_weights(np.eye(3)[labels], labels)
    assert found.weights == (1.0, 1.0, 1.0)
    assert found.macro_f1 == found.macro_f1_argmax == 1.0


def test_scale_and_absent_classes_do_not_matter() -> None:
    values, labels = drawn(2, (0.7, 0.2, 0.1))
    scale = np.random.default_rng(3).choice([0.25, 0.5, 2.0], (len(values), 1))
    assert fit_class_weights(values * scale, labels).macro_f1 == pytest.approx(
        fit_class_weights(values, labels).macro_f1, abs=0.01
    )
    absent = np.hstack([values, np.zeros((len(values), 1))])
    found = fit_class_weights(absent, labels)
    assert found.macro_f1 > found.macro_f1_argmax
    assert (weighted_predictions(absent, found.weights) < 3).all()
