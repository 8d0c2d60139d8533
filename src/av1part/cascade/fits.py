"""Choices made on validation nodes: temperatures, the Stage-1 threshold, and cross-fitting.

A choice that is fitted on the nodes it is then scored on flatters the score. `cross_fit` fits it
for each sequence on the other sequences only.

Shapes: n nodes, k classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq

from av1part.metrics.calibration import TEMPERATURES, softmax
from av1part.options import OBJECTIVES, Objective

NEUTRAL_THRESHOLD = 0.5
"""The threshold where there is nothing to fit one on."""

Choice = TypeVar("Choice")
"""What is fitted: a number, or the choices of a cascade."""


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """Return the temperature that minimises the negative log-likelihood of the labels.

    The loss is convex in beta = 1 / T; its slope is the mean expected logit less the mean true
    logit. Labels that the logits separate without an error, or contradict, end at a bound of
    `TEMPERATURES`.

    Args:
        logits: Shape (n, k).
        labels: Class indices, shape (n,).

    Returns:
        The temperature; 1.0 if there are no nodes or all logits of a node are equal, everywhere.

    Reference: Guo et al., On Calibration of Modern Neural Networks, 2017, section 4.2.
    """
    z = np.asarray(logits, dtype=np.float64)
    if not z.size or np.ptp(z, axis=-1).max() == 0:
        return 1.0
    true = np.take_along_axis(z, np.asarray(labels, dtype=np.int64)[:, None], axis=1).mean()

    def slope(beta: float) -> float:
        return float((softmax(z, 1 / beta) * z).sum(1).mean() - true)

    low, high = 1 / TEMPERATURES[1], 1 / TEMPERATURES[0]
    if slope(high) <= 0:
        return TEMPERATURES[0]
    if slope(low) >= 0:
        return TEMPERATURES[1]
    return float(1 / brentq(slope, low, high, xtol=1e-12, rtol=1e-10))


def fit_threshold(
    scores: ArrayLike,
    labels: ArrayLike,
    above: ArrayLike,
    k: int,
    objective: Objective = "macro_f1",
) -> float:
    """Return the threshold of Stage 1 that is best for the cascade as a whole.

    A node whose score is above the threshold gets the class that the later stages give it
    (`above`), any other gets class 0 (NONE). Every cut between two scores is tried, exactly.

    `macro_f1` of the cascade is the default. Stage 1's own F1 (`f1_positive`) is the wrong
    objective: it rewards every cut block that is passed on, whether or not the later stages
    can then name its type. `accuracy` knows about them, but where NONE is most of the nodes it
    is won by passing on next to nothing, which is the constant guesser. Macro-F1 is what the
    stages' checkpoints are chosen by, and no constant can win it.

    Args:
        scores: P(PARTITION), in 0..1, shape (n,).
        labels: True class indices 0..k-1, shape (n,); 0 is NONE.
        above: Class index that a node gets if it passes, shape (n,).
        k: Number of classes.
        objective: What to maximise.

    Returns:
        The threshold, in 0..1; of equally good ones the nearest to 0.5, which is also what is
        returned if there are no nodes.

    Raises:
        ValueError: if the objective is unknown.
    """
    if objective not in OBJECTIVES:
        raise ValueError(f"no threshold objective {objective!r}; choose from {OBJECTIVES}")
    true, passed = (np.asarray(a, dtype=np.int64) for a in (labels, above))
    if objective == "f1_positive":
        true, passed, k = np.minimum(true, 1), np.ones_like(true), 2
    ascending = np.sort(np.asarray(scores, dtype=np.float64))
    if not ascending.size:
        return NEUTRAL_THRESHOLD
    distinct = np.unique(ascending)
    candidates = np.concatenate([[0.0], (distinct[1:] + distinct[:-1]) / 2, [1.0]])
    passing = ascending.size - np.searchsorted(ascending, candidates, side="right")
    order = np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable")
    value = _cut_values(true[order], passed[order], k, objective)[passing]
    best = candidates[value >= value.max() - 1e-12]
    return float(best[np.argmin(np.abs(best - NEUTRAL_THRESHOLD))])


def _cut_values(
    labels: NDArray[np.int64], above: NDArray[np.int64], k: int, objective: Objective
) -> NDArray[np.float64]:
    """Return the objective if the first 0, 1, ... n nodes pass, float64 of shape (n + 1,)."""
    support = np.bincount(labels, minlength=k)

    def passed(flags: NDArray[np.bool_]) -> NDArray[np.int64]:
        return np.concatenate([[0], np.cumsum(flags)])

    n = np.arange(labels.size + 1)
    hits = np.zeros(n.size)
    f1 = np.zeros(n.size)
    present = np.zeros(n.size)
    for c in range(k):
        tp, predicted = passed((above == c) & (labels == c)), passed(above == c)
        if c == 0:
            tp, predicted = tp + support[0] - passed(labels == 0), predicted + labels.size - n
        hits += tp
        below = support[c] + predicted
        score = np.asarray(2 * tp / np.maximum(below, 1))
        if objective == "f1_positive" and c == 1:
            return score
        f1, present = f1 + score, present + (below > 0)
    values: NDArray[np.float64] = hits / labels.size if objective == "accuracy" else f1 / present
    return values


def sequence_folds(sequences: ArrayLike, folds: int = 5) -> dict[str, int]:
    """Assign each sequence to a fold: each its own, or `folds` of about equally many nodes.

    Args:
        sequences: Name of each node's sequence, shape (n,).
        folds: Most folds to make.

    Returns:
        Sequence to fold, in order of names; the same for the same nodes.
    """
    names, counts = np.unique(np.asarray(sequences).astype(str), return_counts=True)
    if names.size <= folds:
        return {str(name): fold for fold, name in enumerate(names)}
    loads = [0] * folds
    assigned = {}
    for index in np.argsort(-counts, kind="stable"):
        fold = int(np.argmin(loads))
        loads[fold] += int(counts[index])
        assigned[str(names[index])] = fold
    return {str(name): assigned[str(name)] for name in names}


def cross_fit(
    sequences: ArrayLike, fit: Callable[[NDArray[np.bool_]], Choice], folds: int = 5
) -> dict[str, Choice]:
    """Fit a choice for each sequence on nodes of other sequences only.

    Args:
        sequences: Name of each node's sequence, shape (n,).
        fit: Returns the choice for the nodes of a mask, bool of shape (n,). With one sequence the
            mask is empty: `fit` must then return its neutral choice.
        folds: Leave one sequence out up to this many sequences, else leave out folds of them.

    Returns:
        Sequence to the choice that applies to it, in order of names.
    """
    names = np.asarray(sequences).astype(str)
    fold_of = sequence_folds(names, folds)
    fold = np.array([fold_of[name] for name in names], dtype=np.int64)
    fitted = {f: fit(fold != f) for f in sorted(set(fold_of.values()))}
    return {name: fitted[f] for name, f in fold_of.items()}
