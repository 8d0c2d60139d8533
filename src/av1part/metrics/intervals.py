"""Bootstrap intervals clustered by sequence: how far a figure depends on the pictures.

Nodes of one picture resemble each other, so pictures are resampled, not nodes.
Sequences are drawn with replacement and their confusion matrices summed: every metric here is a
function of the matrix, so thousands of resamples cost one matrix product.

With few sequences the percentile bootstrap is optimistic: its variance is too small by the factor
(g - 1) / g, and its quantiles cannot pass the best and the worst picture. docs/pipeline.md measures
it: of nominal 95% intervals from 4 sequences, 79% cover. So every interval carries its number of
clusters, and one cluster gives none.

Shapes: n nodes, k classes, g sequences, r resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from av1part.metrics.scores import (
    accuracy_from_confusion,
    best_constant,
    confusion_matrix,
    constant_confusion,
    macro_f1_from_confusion,
    prior_confusion,
)

METRICS: Mapping[str, Callable[[ArrayLike], NDArray[np.float64]]] = {
    "accuracy": accuracy_from_confusion,
    "macro_f1": macro_f1_from_confusion,
}
"""Scores that get an interval, by their key in metrics.json."""

Baseline = Literal["constant", "prior"]


@dataclass(frozen=True)
class Interval:
    """A score, or a difference of scores, with its percentile bootstrap interval, as fractions.

    Attributes:
        estimate: The score on all nodes.
        low: Lower limit; None if nodes of one sequence were evaluated, which give no interval.
        high: Upper limit, likewise.
        level: Nominal coverage.
        clusters: Sequences resampled; below ten or so read the limits as optimistic.
    """

    estimate: float
    low: float | None = None
    high: float | None = None
    level: float = 0.95
    clusters: int | None = None

    @property
    def sign(self) -> Literal["positive", "negative", "zero", "unknown"]:
        """Whether the interval lies above zero, below it, contains it, or is not known."""
        if self.low is None or self.high is None:
            return "unknown"
        return "positive" if self.low > 0 else "negative" if self.high < 0 else "zero"

    def to_json(self) -> dict[str, Any]:
        """Return the attributes as JSON values."""
        return dict(vars(self))


@dataclass(frozen=True)
class Bootstrap:
    """Settings of the resampling; equal draws for every figure, so that differences are paired.

    Attributes:
        resamples: Number r of resamples.
        level: Nominal coverage of the interval.
        seed: Seed of the draws.
    """

    resamples: int = 2000
    level: float = 0.95
    seed: int = 42

    def resample(self, matrices: ArrayLike) -> NDArray[np.float64]:
        """Draw sequences with replacement and sum their matrices.

        Args:
            matrices: One confusion matrix a sequence, shape (g, k, k), or one figure, shape (g,);
                g may differ from call to call, the draws depend on g and the seed alone.

        Returns:
            Sums, shape (r, k, k) or (r,).
        """
        stack = np.asarray(matrices, dtype=np.float64)
        g = len(stack)
        drawn = np.random.default_rng(self.seed).multinomial(g, [1 / g] * g, size=self.resamples)
        return (drawn @ stack.reshape(g, -1)).reshape(-1, *stack.shape[1:])

    def interval(self, estimate: float, draws: NDArray[np.float64], clusters: int) -> Interval:
        """Take the percentile interval of a figure from its value on each resample.

        Args:
            estimate: The figure on the nodes as they are.
            draws: Its value on each resample, shape (r,).
            clusters: Sequences that were resampled.

        Returns:
            The estimate between the quantiles that leave out 1 - level in all.

        Raises:
            ValueError: if there are fewer than two clusters.
        """
        if clusters < 2:
            raise ValueError(f"an interval needs nodes of 2 sequences, here are {clusters}")
        tail = (1 - self.level) / 2
        low, high = (float(q) for q in np.quantile(draws, [tail, 1 - tail]))
        return Interval(estimate, low, high, self.level, clusters)

    def mean(self, values: ArrayLike) -> Interval:
        """Resample the mean of one figure a sequence.

        Args:
            values: Fractions, shape (g,), g at least 1.

        Returns:
            The mean; without limits if there is one sequence only.
        """
        each = np.asarray(values, dtype=np.float64)
        estimate, g = float(each.mean()), len(each)
        if g < 2:
            return Interval(estimate, clusters=g)
        return self.interval(estimate, self.resample(each) / g, g)

    def difference(self, of: ArrayLike, minus: ArrayLike | None = None) -> dict[str, Interval]:
        """Resample each metric of one set of matrices, less that of another.

        Args:
            of: One matrix a sequence, shape (g, k, k).
            minus: Matrices of the same nodes, shape (g, k, k), or None for zero.

        Returns:
            Metric name to its interval.

        Raises:
            ValueError: if g is below 2.
        """
        first = np.asarray(of, dtype=np.float64)
        intervals = {}
        for name, metric in METRICS.items():
            estimate, draws = metric(first.sum(0)), metric(self.resample(first))
            if minus is not None:
                second = np.asarray(minus, dtype=np.float64)
                estimate = estimate - metric(second.sum(0))
                draws = draws - metric(self.resample(second))
            intervals[name] = self.interval(float(estimate), draws, len(first))
        return intervals


def sequence_confusions(
    predictions: ArrayLike, labels: ArrayLike, sequences: ArrayLike, k: int
) -> NDArray[np.int64]:
    """Count a confusion matrix for each sequence.

    Args:
        predictions: Class indices, shape (n,).
        labels: True class indices, shape (n,).
        sequences: Name or code of each node's sequence, shape (n,).
        k: Number of classes.

    Returns:
        Counts, int64 of shape (g, k, k), sequences in sorted order.

    Raises:
        ValueError: if there are no nodes or the arrays do not fit each other.
    """
    _, codes = np.unique(np.asarray(sequences), return_inverse=True)
    if not codes.size or codes.shape != np.asarray(labels).shape:
        raise ValueError(f"{codes.size} sequence entries for {np.asarray(labels).size} labels")
    return confusion_matrix(predictions, labels, k, codes)


def bootstrap_value(
    predictions: ArrayLike,
    labels: ArrayLike,
    sequences: ArrayLike,
    k: int,
    bootstrap: Bootstrap | None = None,
) -> dict[str, Interval]:
    """Return the interval of each metric; arguments and errors as for `sequence_confusions`."""
    matrices = sequence_confusions(predictions, labels, sequences, k)
    return (bootstrap or Bootstrap()).difference(matrices)


def bootstrap_margin(
    predictions: ArrayLike,
    labels: ArrayLike,
    sequences: ArrayLike,
    train_counts: ArrayLike,
    baseline: Baseline,
    bootstrap: Bootstrap | None = None,
) -> dict[str, Interval]:
    """Resample the margin of each metric over a baseline on the same nodes.

    The constant is the class that is best on all labels here (`metrics.best_constant`) and stays
    the same in every resample, so that the estimate is the difference of the printed figures.

    Args:
        predictions: Class indices, shape (n,).
        labels: True class indices, shape (n,).
        sequences: Name or code of each node's sequence, shape (n,).
        train_counts: Nodes of each class in training, shape (k,), for the prior.
        baseline: `constant` or `prior`.
        bootstrap: How to resample.

    Returns:
        Metric name to the interval of the margin.
    """
    k = np.asarray(train_counts).shape[0]
    matrices = sequence_confusions(predictions, labels, sequences, k)
    support = matrices.sum(2)
    guesses: NDArray[Any]
    if baseline == "constant":
        guesses = constant_confusion(support, best_constant(support.sum(0)))
    else:
        guesses = prior_confusion(support, train_counts)
    return (bootstrap or Bootstrap()).difference(matrices, guesses)


def bootstrap_difference(
    predictions: ArrayLike,
    baseline: ArrayLike,
    labels: ArrayLike,
    sequences: ArrayLike,
    k: int,
    bootstrap: Bootstrap | None = None,
) -> dict[str, Interval]:
    """Resample each metric of one predictor less that of another, paired.

    Both are scored on the same nodes and resamples, so that the difficulty of a picture cancels
    out. If the interval contains zero, the difference is not significant on these pictures.

    Args:
        predictions: Class indices of the first, shape (n,).
        baseline: Class indices of the second, shape (n,).
        labels: True class indices, shape (n,).
        sequences: Name or code of each node's sequence, shape (n,).
        k: Number of classes.
        bootstrap: How to resample.

    Returns:
        Metric name to the interval of the difference.
    """
    first = sequence_confusions(predictions, labels, sequences, k)
    second = sequence_confusions(baseline, labels, sequences, k)
    return (bootstrap or Bootstrap()).difference(first, second)


def metric_intervals(
    predictions: ArrayLike,
    labels: ArrayLike,
    sequences: ArrayLike,
    train_counts: ArrayLike,
    bootstrap: Bootstrap | None = None,
    *,
    trees: ArrayLike | None = None,
) -> dict[str, dict[str, Interval]]:
    """Resample each metric and its margins over the baselines, on equal resamples.

    Empty if all nodes are of one sequence.

    Args:
        predictions: Class indices, shape (n,).
        labels: True class indices, shape (n,).
        sequences: Name or code of each node's sequence, shape (n,).
        train_counts: Nodes of each class in training, shape (k,).
        bootstrap: How to resample.
        trees: Class indices that boosted trees predict, shape (n,), if they are a baseline too.

    Returns:
        Metric name to its `value`, `margin_constant`, `margin_prior`, and `margin_trees` if given.
    """
    if np.unique(np.asarray(sequences)).size < 2:
        return {}
    k = np.asarray(train_counts).shape[0]
    nodes = (predictions, labels, sequences)
    value = bootstrap_value(*nodes, k, bootstrap)
    constant = bootstrap_margin(*nodes, train_counts, "constant", bootstrap)
    prior = bootstrap_margin(*nodes, train_counts, "prior", bootstrap)
    found = {
        name: {
            "value": value[name],
            "margin_constant": constant[name],
            "margin_prior": prior[name],
        }
        for name in METRICS
    }
    if trees is not None:
        over_trees = bootstrap_difference(predictions, trees, labels, sequences, k, bootstrap)
        for name, interval in over_trees.items():
            found[name]["margin_trees"] = interval
    return found


def intervals_json(
    intervals: Mapping[str, Mapping[str, Interval]],
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return intervals as metrics.json and pipeline.json hold them: metric, kind, limits."""
    return {
        metric: {kind: interval.to_json() for kind, interval in kinds.items()}
        for metric, kinds in intervals.items()
    }
