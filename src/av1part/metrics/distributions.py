"""Scores of predicted distributions over AV1's types, as functions of sums over nodes.

    probabilities (n, k), labels (n,) -> sums -> added over frames and pictures -> scores

Sums of two groups of nodes add up to those of both, so that one pass over the data and the sums of
each picture give every score, of all pictures and of any resample of them.

Shapes: n nodes, k classes (AV1's ids), t values of tau, b bins of confidence, w sums.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from av1part.metrics.calibration import BINS, calibration_error, confidence_bin
from av1part.metrics.scores import (
    LEAST_PROBABILITY,
    accuracy_from_confusion,
    confusion_matrix,
    macro_f1_from_confusion,
)
from av1part.metrics.sets import cumulated_sets, ranked
from av1part.partition import Partition

TYPES = len(Partition)

TAUS = (0.80, 0.90, 0.95, 0.99)
"""Cumulated probabilities whose sets of types are scored."""

SUMS: Mapping[str, tuple[int, ...]] = {
    "nodes": (),
    "log_loss": (),
    "floored": (),
    "ranks": (TYPES,),
    "confusion": (TYPES, TYPES),
    "covered": (len(TAUS),),
    "set_size": (len(TAUS),),
    "bin_nodes": (BINS,),
    "bin_confidence": (BINS,),
    "bin_correct": (BINS,),
}
"""What is summed over nodes, with its shape: one; nats of the true type; whether its probability
was raised to `LEAST_PROBABILITY`; whether it is the first, second, ... by probability; true type by
most probable type; whether a set of cumulated probability holds it, and the types in that set; and
of each bin of the greatest probability: one, that probability, whether its type is the true one."""

_ENDS = np.cumsum([int(np.prod(shape)) for shape in SUMS.values()]).tolist()
_PLACES = {name: slice(*ends) for name, *ends in zip(SUMS, [0, *_ENDS], _ENDS, strict=False)}


def distribution_sums(
    probabilities: NDArray[Any], labels: NDArray[np.integer[Any]]
) -> NDArray[np.float64]:
    """Sum what scores need over nodes.

    Args:
        probabilities: Shape (n, k), each row's summing to 1.
        labels: True AV1 ids, shape (n,).

    Returns:
        The sums in the order of `SUMS`, float64 of shape (w,).
    """
    nodes = np.arange(len(labels))
    true = np.asarray(labels, dtype=np.int64)
    exact = probabilities.astype(np.float64)
    order = ranked(probabilities)
    own, first = exact[nodes, true], order[:, 0]
    sets = [cumulated_sets(probabilities, tau, order) for tau in TAUS]
    confidence = exact[nodes, first]
    index = confidence_bin(confidence)
    parts = {
        "nodes": len(labels),
        "log_loss": -np.log(np.maximum(own, LEAST_PROBABILITY)).sum(),
        "floored": (own < LEAST_PROBABILITY).sum(),
        "ranks": np.bincount((order == true[:, None]).argmax(1), minlength=TYPES),
        "confusion": confusion_matrix(first, true, TYPES),
        "covered": [members[nodes, true].sum() for members in sets],
        "set_size": [members.sum() for members in sets],
        "bin_nodes": np.bincount(index, minlength=BINS),
        "bin_confidence": np.bincount(index, confidence, BINS),
        "bin_correct": np.bincount(index, first == true, BINS),
    }
    return np.concatenate([np.ravel(parts[name]) for name in SUMS]).astype(np.float64)


def part_of(sums: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    """Return one of `SUMS`, with its shape in place of w, from sums of shape (..., w)."""
    return sums[..., _PLACES[name]].reshape((*sums.shape[:-1], *SUMS[name]))


def _mean(sums: NDArray[np.float64], name: str, index: int | None = None) -> NDArray[np.float64]:
    values = part_of(sums, name)
    mean: NDArray[np.float64] = (values if index is None else values[..., index]) / part_of(
        sums, "nodes"
    )
    return mean


def _top(k: int) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    def share(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        first: NDArray[np.float64] = part_of(sums, "ranks")[..., :k].sum(-1)
        return first / part_of(sums, "nodes")

    return share


def _sets(name: str, index: int) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    return lambda sums: _mean(sums, name, index)


def coverage_key(tau: float) -> str:
    """Return the score that is the share of nodes whose set of a tau holds the true type."""
    return f"coverage_{tau:.2f}"


def set_size_key(tau: float) -> str:
    """Return the score that is the mean number of types in a set of a tau."""
    return f"set_size_{tau:.2f}"


SCORES: Mapping[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "log_loss": lambda sums: _mean(sums, "log_loss"),
    "accuracy": lambda sums: accuracy_from_confusion(part_of(sums, "confusion")),
    "macro_f1": lambda sums: macro_f1_from_confusion(part_of(sums, "confusion")),
    "top_2": _top(2),
    "top_3": _top(3),
    "calibration_error": lambda sums: calibration_error(
        *(part_of(sums, f"bin_{name}") for name in ("nodes", "confidence", "correct"))
    ),
    **{coverage_key(tau): _sets("covered", i) for i, tau in enumerate(TAUS)},
    **{set_size_key(tau): _sets("set_size", i) for i, tau in enumerate(TAUS)},
}
"""Score to the function that computes it from sums of shape (..., w), as shape (...): log loss in
nats, accuracy, macro-F1 of the most probable type, share of nodes whose true type is among the
first two and three, expected calibration error, coverage and mean size of sets; all but log loss
and set sizes are fractions."""
