"""Class weights: factors on predicted probabilities that raise the macro-F1 of the decision.

The class with the greatest probability is the best guess for accuracy, not for macro-F1, which
counts rare classes as much as frequent ones. Weights fitted on validation nodes move the decision:

    prediction = argmax over classes c of weight[c] * probability[c]

Shapes: n nodes, k classes, g values of the grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from av1part.metrics.scores import confusion_matrix, macro_f1_from_confusion

GRID = 2.0 ** (np.arange(-48, 49) / 8)
"""Weights that are tried for a class, shape (g,): 1/64 to 64, eight to an octave."""

_MOST_ROUNDS = 50
_GAIN = 1e-9
"""Macro-F1 that is no gain but rounding."""


@dataclass(frozen=True)
class ClassWeights:
    """Fitted weights.

    Attributes:
        weights: One a class, those of a scale at which the first class has 1.
        macro_f1: Of the nodes they were fitted on, a fraction.
        macro_f1_argmax: Of the same nodes without weights.
    """

    weights: tuple[float, ...]
    macro_f1: float
    macro_f1_argmax: float


def weighted_predictions(
    probabilities: NDArray[Any], weights: NDArray[np.float64] | tuple[float, ...]
) -> NDArray[np.int64]:
    """Return the class with the greatest weighted probability.

    Args:
        probabilities: Of any scale, shape (n, k).
        weights: Shape (k,).

    Returns:
        Class indices, int64 of shape (n,); of equal ones the first.
    """
    values = probabilities.astype(np.float64) * np.asarray(weights)
    predictions: NDArray[np.int64] = values.argmax(1)
    return predictions


def fit_class_weights(
    probabilities: NDArray[Any], labels: NDArray[np.integer[Any]]
) -> ClassWeights:
    """Search the weights with the highest macro-F1, by coordinate ascent over `GRID`.

    Twice: from equal weights, and from weights inverse to the mean probability of each class.
    Class after class takes the value of the grid that gives the highest macro-F1 with the other
    weights as they are (of equal ones that closest to its present weight), until a round over all
    classes gains nothing. The better of both ends counts, of equal ones the first; and equal
    weights, if neither is better than these. The same input gives the same weights.

    Args:
        probabilities: Of any scale, shape (n, k), n at least 1.
        labels: True class indices, shape (n,).

    Returns:
        The weights.
    """
    values = probabilities.astype(np.float64)
    true = np.asarray(labels, dtype=np.int64)
    equal = np.ones(values.shape[1])
    inverse = values.mean() / np.maximum(values.mean(0), values.mean() / GRID[-1])
    best, plain = equal, _macro_f1(values, true, equal)
    reached = plain
    for start in (equal, inverse):
        found = _ascend(values, true, start)
        macro_f1 = _macro_f1(values, true, found)
        if macro_f1 > reached + _GAIN:
            best, reached = found, macro_f1
    return ClassWeights(tuple((best / best[0]).tolist()), reached, plain)


def _macro_f1(
    values: NDArray[np.float64], true: NDArray[np.int64], weights: NDArray[np.float64]
) -> float:
    matrix = confusion_matrix(weighted_predictions(values, weights), true, len(weights))
    return float(macro_f1_from_confusion(matrix))


def _ascend(
    values: NDArray[np.float64], true: NDArray[np.int64], start: NDArray[np.float64]
) -> NDArray[np.float64]:
    weights = start.copy()
    reached = _macro_f1(values, true, weights)
    for _ in range(_MOST_ROUNDS):
        before = reached
        for index in range(len(weights)):
            macro_f1 = macro_f1_from_confusion(_along(values, true, weights, index))
            highest = np.flatnonzero(macro_f1 >= macro_f1.max() - _GAIN)
            steps = np.abs(np.log(GRID[highest] / weights[index]))
            if macro_f1.max() > reached + _GAIN:
                weights[index] = GRID[highest[steps.argmin()]]
                reached = float(macro_f1.max())
        if reached <= before + _GAIN:
            break
    return weights


def _along(
    values: NDArray[np.float64],
    true: NDArray[np.int64],
    weights: NDArray[np.float64],
    index: int,
) -> NDArray[np.int64]:
    """Count the confusion matrices, (g, k, k), of all weights of the grid for one class."""
    k, steps = len(weights), len(GRID)
    rivals = values * weights
    rivals[:, index] = -1.0
    rival = rivals.argmax(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        needed = rivals[np.arange(len(true)), rival] / values[:, index]
    # From this value of the grid on, the class is predicted in place of its strongest rival.
    needed = np.where(np.isnan(needed), np.inf, needed)
    turn = np.searchsorted(GRID, needed, side="right")
    cells = (true * k + rival) * (steps + 1) + turn
    counts = np.bincount(cells, minlength=k * k * (steps + 1)).reshape(k, k, steps + 1)
    turned = counts.cumsum(-1)[..., :steps]
    matrices: NDArray[np.int64] = np.moveaxis(counts.sum(-1)[..., None] - turned, -1, 0).copy()
    matrices[..., index] += np.moveaxis(turned.sum(1), -1, 0)
    return matrices
