"""Softmax, likelihood and calibration error of predicted probabilities.

Shapes: n nodes, k classes, b bins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.special
from numpy.typing import ArrayLike, NDArray

BINS = 15
"""Equal-width confidence bins of the expected calibration error."""

TEMPERATURES = (0.05, 20.0)
"""Bounds of a fitted temperature."""


def softmax(logits: ArrayLike, temperature: ArrayLike = 1.0) -> NDArray[np.float64]:
    """Return class probabilities of logits divided by a temperature.

    Args:
        logits: Shape (n, k).
        temperature: A scalar, or one a node, shape (n,).

    Returns:
        Probabilities, float64 of shape (n, k), rows that sum to 1.
    """
    probabilities: NDArray[np.float64] = scipy.special.softmax(_scaled(logits, temperature), axis=1)
    return probabilities


def negative_log_likelihood(
    logits: ArrayLike, labels: ArrayLike, temperature: ArrayLike = 1.0
) -> float:
    """Return the negative log-likelihood of the true classes.

    Args:
        logits: Shape (n, k).
        labels: Class indices, shape (n,).
        temperature: A scalar, or one a node, shape (n,).

    Returns:
        The mean negative log-likelihood of the labels, nats.
    """
    log_probability = scipy.special.log_softmax(_scaled(logits, temperature), axis=1)
    true = np.asarray(labels, dtype=np.int64)[:, None]
    return float(-np.take_along_axis(log_probability, true, axis=1).mean())


def _scaled(logits: ArrayLike, temperature: ArrayLike) -> NDArray[np.float64]:
    scaled: NDArray[np.float64] = (
        np.asarray(logits, dtype=np.float64) / np.asarray(temperature)[..., None]
    )
    return scaled


@dataclass(frozen=True)
class Reliability:
    """Bins of top-label confidence.

    Attributes:
        edges: Shape (b + 1,), equal widths over 0..1.
        count: Nodes in each bin, shape (b,).
        confidence: Mean confidence of each bin, shape (b,); NaN where empty.
        accuracy: Share of correct nodes in each bin, shape (b,); NaN where empty.
        error: Expected calibration error, a fraction: the gap between confidence and accuracy,
            averaged over bins by their nodes.
    """

    edges: NDArray[np.float64]
    count: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    error: float


def reliability(probability: ArrayLike, label: ArrayLike, bins: int = BINS) -> Reliability:
    """Bin nodes by the probability of their most probable class.

    Args:
        probability: Shape (n, k).
        label: True class indices, shape (n,).
        bins: Number of bins of equal width.

    Returns:
        The bins and the expected calibration error over them.

    Reference: Guo et al., On Calibration of Modern Neural Networks, 2017, section 2.
    """
    values, true = np.asarray(probability, dtype=np.float64), np.asarray(label)
    top = values.max(1)
    correct = values.argmax(1) == true
    index = confidence_bin(top, bins)
    return reliability_of(
        np.bincount(index, minlength=bins),
        np.bincount(index, top, bins),
        np.bincount(index, correct, bins),
    )


def confidence_bin(confidence: NDArray[np.float64], bins: int = BINS) -> NDArray[np.int64]:
    """Return the bin of each confidence, int64 of its shape; a bin holds its upper edge."""
    edges = np.linspace(0, 1, bins + 1)
    index: NDArray[np.int64] = np.clip(
        np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1
    )
    return index


def reliability_of(count: ArrayLike, confidence: ArrayLike, correct: ArrayLike) -> Reliability:
    """Return the bins of sums, such as those over several pictures.

    Args:
        count: Nodes in each bin, shape (b,).
        confidence: Sum of their confidences, shape (b,).
        correct: Number of correct ones, shape (b,).

    Returns:
        The bins and the expected calibration error over them.
    """
    nodes = np.asarray(count, dtype=np.int64)
    with np.errstate(invalid="ignore"):
        mean, accuracy = np.asarray(confidence) / nodes, np.asarray(correct) / nodes
    error = float(calibration_error(nodes, confidence, correct))
    return Reliability(np.linspace(0, 1, len(nodes) + 1), nodes, mean, accuracy, error)


def calibration_error(
    count: ArrayLike, confidence: ArrayLike, correct: ArrayLike
) -> NDArray[np.float64]:
    """Return the expected calibration error of sums as `reliability_of` takes, shape (..., b)."""
    gap = np.abs(np.asarray(confidence, dtype=np.float64) - np.asarray(correct))
    error: NDArray[np.float64] = gap.sum(-1) / np.asarray(count).sum(-1)
    return error
