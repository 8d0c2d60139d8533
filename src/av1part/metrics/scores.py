"""Classification scores of a stage or of the cascade: closed forms of a confusion matrix.

Every score here is a function of one matrix of counts, so that the same code scores a validation
epoch, a checkpoint, a bootstrap resample and the two guessers. All scores are fractions.

Classes that never occur and are never predicted are left out of macro averages, as scikit-learn
does; a class that is predicted but never occurs counts with 0. `balanced_accuracy` is the mean
recall of the classes that occur (scikit-learn's `balanced_accuracy_score`).

Shapes: n nodes, k classes; confusion matrices have rows true, columns predicted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, SupportsFloat

import numpy as np
from numpy.typing import ArrayLike, NDArray

Scores = dict[str, Any]
"""Scores as metrics.json nests them: numbers, `per_class` and `confusion_matrix`."""

POSITIVE = 1
"""Class index of a two-class stage whose F1 is `f1_positive` (Stage 1: PARTITION)."""

NO_NODES = "no nodes to score: the split has none that belong to this stage"

LEAST_PROBABILITY = 1e-12
"""Keeps the log loss of a class that was held to be impossible finite."""

DIGITS = 6
"""Decimals of a recorded score."""


def figure(value: SupportsFloat) -> float:
    """Return a score as it is recorded, rounded to `DIGITS` decimals."""
    return round(float(value), DIGITS)


def from_predictions(
    predictions: ArrayLike, labels: ArrayLike, class_names: Sequence[str]
) -> Scores:
    """Score predicted against true class indices.

    Args:
        predictions: Integers, shape (n,).
        labels: Integers, shape (n,).
        class_names: Names in class-index order.

    Returns:
        The scores, see `from_confusion`.

    Raises:
        ValueError: if shapes differ, `n` is 0, or an index is outside the classes.
    """
    return from_confusion(confusion_matrix(predictions, labels, len(class_names)), class_names)


def from_confusion(matrix: ArrayLike, class_names: Sequence[str]) -> Scores:
    """Score a confusion matrix.

    Args:
        matrix: Counts, shape (k, k), rows true, columns predicted.
        class_names: Names in class-index order.

    Returns:
        `accuracy, macro_f1, weighted_f1, macro_precision, macro_recall, balanced_accuracy`, for
        two classes `f1_positive`; `per_class` with `precision, recall, f1, support` of each name;
        `confusion_matrix` as lists.

    Raises:
        ValueError: if the matrix is not square in the classes, negative, or empty.
    """
    counts = np.asarray(matrix, dtype=np.int64)
    k = len(class_names)
    if counts.shape != (k, k) or (counts < 0).any():
        raise ValueError(f"expected counts of shape {(k, k)}, got {counts.shape}")
    if not counts.sum():
        raise ValueError(NO_NODES)
    precision, recall, f1 = _rates(counts)
    support = counts.sum(1).tolist()
    per_class = {
        name: {
            "precision": figure(precision[i]),
            "recall": figure(recall[i]),
            "f1": figure(f1[i]),
            "support": support[i],
        }
        for i, name in enumerate(class_names)
    }
    return {**_summary(counts), "per_class": per_class, "confusion_matrix": counts.tolist()}


def _class_indices(
    predictions: ArrayLike, labels: ArrayLike, k: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    predicted, true = np.asarray(predictions), np.asarray(labels)
    if predicted.shape != true.shape or true.ndim != 1:
        raise ValueError(f"predictions {predicted.shape} and labels {true.shape} must be (n,)")
    for what, array in (("prediction", predicted), ("label", true)):
        if array.size and (array.dtype.kind not in "iu" or array.min() < 0 or array.max() >= k):
            raise ValueError(f"a {what} is not a class index 0..{k - 1}")
    return predicted.astype(np.int64), true.astype(np.int64)


def confusion_matrix(
    predictions: ArrayLike, labels: ArrayLike, k: int, groups: ArrayLike | None = None
) -> NDArray[np.int64]:
    """Count pairs of true and predicted class indices, per group if groups are given.

    Args:
        predictions: Integers 0..k-1, shape (n,).
        labels: Integers 0..k-1, shape (n,).
        k: Number of classes.
        groups: Integers 0..g-1, shape (n,); every group up to the largest gets a matrix.

    Returns:
        int64 of shape (k, k), or (g, k, k) with groups; rows true, columns predicted.

    Raises:
        ValueError: if shapes differ or an index is outside the classes.
    """
    predicted, true = _class_indices(predictions, labels, k)
    if groups is None:
        return np.bincount(true * k + predicted, minlength=k * k).reshape(k, k)
    group = np.asarray(groups, dtype=np.int64)
    g = int(group.max(initial=-1)) + 1
    cells = (group * k + true) * k + predicted
    return np.bincount(cells, minlength=g * k * k).reshape(g, k, k)


def accuracy_from_confusion(matrix: ArrayLike) -> NDArray[np.float64]:
    """Return the accuracy of each matrix of shape (..., k, k); 0 for an empty one."""
    counts = np.asarray(matrix, dtype=np.float64)
    return _ratio(np.trace(counts, axis1=-2, axis2=-1), counts.sum((-2, -1)))


def f1_from_confusion(matrix: ArrayLike) -> NDArray[np.float64]:
    """Return the F1 of each class, shape (..., k), for matrices of shape (..., k, k)."""
    counts = np.asarray(matrix, dtype=np.float64)
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    return _ratio(2 * hits, counts.sum(-1) + counts.sum(-2))


def macro_f1_from_confusion(matrix: ArrayLike) -> NDArray[np.float64]:
    """Return the macro-F1 of each matrix of shape (..., k, k), absent classes left out."""
    counts = np.asarray(matrix, dtype=np.float64)
    present = counts.sum(-1) + counts.sum(-2) > 0
    return _ratio(f1_from_confusion(counts).sum(-1), present.sum(-1))


def weighted_f1_from_confusion(matrix: ArrayLike) -> NDArray[np.float64]:
    """Return the F1 averaged by support of each matrix of shape (..., k, k)."""
    counts = np.asarray(matrix, dtype=np.float64)
    support = counts.sum(-1)
    return _ratio((support * f1_from_confusion(counts)).sum(-1), support.sum(-1))


def _ratio(above: ArrayLike, below: ArrayLike) -> NDArray[np.float64]:
    above, below = np.asarray(above, dtype=np.float64), np.asarray(below, dtype=np.float64)
    ratio: NDArray[np.float64] = np.divide(above, below, out=np.zeros_like(above), where=below > 0)
    return ratio


def constant_confusion(support: ArrayLike, class_index: int) -> NDArray[np.int64]:
    """Return the confusion matrix of always predicting one class.

    Args:
        support: Nodes of each class, shape (..., k).
        class_index: The class that is always predicted.

    Returns:
        Counts, int64 of shape (..., k, k), rows true, columns predicted.
    """
    counts = np.asarray(support, dtype=np.int64)
    matrix = np.zeros((*counts.shape, counts.shape[-1]), dtype=np.int64)
    matrix[..., class_index] = counts
    return matrix


def prior_confusion(support: ArrayLike, train_counts: ArrayLike) -> NDArray[np.float64]:
    """Return the expected confusion matrix of drawing each prediction from a prior.

    Args:
        support: Nodes of each class among those scored, shape (..., k).
        train_counts: Nodes of each class in training, shape (k,); the prior is their share.

    Returns:
        Expected counts, float64 of shape (..., k, k), rows true, columns predicted.

    Raises:
        ValueError: if the training counts are empty or of another number of classes.
    """
    counts = np.asarray(support, dtype=np.float64)
    train = np.asarray(train_counts, dtype=np.float64)
    if train.shape != counts.shape[-1:] or train.sum() <= 0:
        raise ValueError(f"training counts {train.tolist()} do not give a prior of these classes")
    expected: NDArray[np.float64] = counts[..., :, None] * (train / train.sum())
    return expected


def best_constant(support: ArrayLike) -> int:
    """Return the class that is best to predict always: the most frequent, of equals the first.

    It is best for accuracy, weighted F1 and macro-F1 alike: each grows with its support.
    """
    return int(np.argmax(np.asarray(support)))


def baselines(
    train_counts: ArrayLike, labels: ArrayLike, class_names: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Return the scores of two guessers that do not use the block, on these labels.

    `constant` always predicts the class that is best *on the labels scored*, which no choice made
    on training labels can beat; `train_class` and `train_accuracy` are of the training set's
    majority class. For `f1_positive` the best constant is always the positive class (the
    study's always-PARTITION and always-VERT). `prior` draws each prediction from the training
    labels' shares: its accuracy is exact in expectation, its F1s are those of the expected
    confusion matrix.

    Args:
        train_counts: Nodes of each class in training, shape (k,).
        labels: True class indices of the nodes scored, shape (n,).
        class_names: Names in class-index order.

    Returns:
        `constant` and `prior`, each with `accuracy`, `macro_f1`, `weighted_f1` and, for two
        classes, `f1_positive`; `constant` also with `class`, `train_class`, `train_accuracy`.

    Raises:
        ValueError: if there are no labels, or the training counts give no prior.
    """
    true = np.asarray(labels)
    k = len(class_names)
    support = np.diagonal(confusion_matrix(true, true, k))
    if not support.sum():
        raise ValueError(NO_NODES)
    train = np.asarray(train_counts)
    constant, majority = best_constant(support), best_constant(train)
    result: dict[str, dict[str, Any]] = {
        "constant": _summary(constant_confusion(support, constant)),
        "prior": _summary(prior_confusion(support, train)),
    }
    if k == 2:
        positive = guesser_class_f1("constant", support, train)[POSITIVE]
        result["constant"]["f1_positive"] = figure(positive)
    result["constant"] |= {
        "class": class_names[constant],
        "train_class": class_names[majority],
        "train_accuracy": figure(support[majority] / support.sum()),
    }
    return result


def guesser_class_f1(
    guesser: str, support: ArrayLike, train_counts: ArrayLike
) -> NDArray[np.float64]:
    """Return a guesser's F1 of each class.

    For the F1 of one class the best constant always predicts that class, as for `f1_positive`.

    Args:
        guesser: `constant` or `prior`.
        support: Nodes of each class among those scored, shape (k,).
        train_counts: Nodes of each class in training, shape (k,).

    Returns:
        Fractions, shape (k,).
    """
    if guesser == "constant":
        always = (constant_confusion(support, i) for i in range(len(np.asarray(support))))
        return np.array([f1_from_confusion(matrix)[i] for i, matrix in enumerate(always)])
    return f1_from_confusion(prior_confusion(support, train_counts))


def log_loss(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Return the mean of -log of the true class's probability, at least `LEAST_PROBABILITY`.

    Args:
        probabilities: Shape (n, k), each row's summing to 1.
        labels: True class indices, shape (n,).

    Returns:
        Nats.
    """
    return float(node_losses(probabilities, labels).mean())


def node_losses(probabilities: ArrayLike, labels: ArrayLike) -> NDArray[np.float64]:
    """Return -log of the true class's probability of each node, (n,); arguments as `log_loss`."""
    true = np.asarray(labels)
    own = np.asarray(probabilities, dtype=np.float64)[np.arange(len(true)), true]
    losses: NDArray[np.float64] = -np.log(np.maximum(own, LEAST_PROBABILITY))
    return losses


def prior_losses(train_counts: ArrayLike, labels: ArrayLike) -> NDArray[np.float64]:
    """Return the losses of the class shares of training as probabilities.

    Args:
        train_counts: Nodes of each class in training, shape (k,). Each counts one more, so that a
            class that training has not costs something finite.
        labels: True class indices, shape (n,).

    Returns:
        Nats, shape (n,).
    """
    counts = np.asarray(train_counts, dtype=np.float64) + 1
    losses: NDArray[np.float64] = -np.log(counts / counts.sum())[np.asarray(labels)]
    return losses


def _summary(matrix: NDArray[Any]) -> dict[str, float]:
    """Return the scores that are one number; counts may be expected ones."""
    precision, recall, f1 = _rates(matrix)
    true = matrix.sum(1)
    present = true + matrix.sum(0) > 0
    summary = {
        "accuracy": accuracy_from_confusion(matrix),
        "macro_f1": macro_f1_from_confusion(matrix),
        "weighted_f1": weighted_f1_from_confusion(matrix),
        "macro_precision": precision[present].mean(),
        "macro_recall": recall[present].mean(),
        "balanced_accuracy": recall[true > 0].mean(),
    }
    if len(matrix) == 2:
        summary["f1_positive"] = f1[POSITIVE]
    return {name: figure(value) for name, value in summary.items()}


def _rates(
    matrix: NDArray[Any],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return precision, recall and F1 of each class, shape (k,) each."""
    counts = np.asarray(matrix, dtype=np.float64)
    hits = np.diagonal(counts)
    return _ratio(hits, counts.sum(0)), _ratio(hits, counts.sum(1)), f1_from_confusion(counts)
