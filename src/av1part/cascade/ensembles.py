"""From the logits of a stage's members to one score a class, and how often members differ.

Shapes: m members, n nodes, k classes of the stage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from av1part.metrics.calibration import softmax
from av1part.metrics.scores import figure, from_predictions
from av1part.options import Ensemble
from av1part.partition import Stage, Taxonomy


@dataclass(frozen=True)
class StageProbabilities:
    """Calibrated probabilities of every stage for all nodes, by the stage's name.

    Attributes:
        members: Of each member, shape (m, n, k).
        mean: Their mean, shape (n, k), of which the flat distribution is the product.
        deciding: What hard routing decides by, shape (n, k); see `join`.
    """

    members: Mapping[str, NDArray[np.float64]]
    mean: Mapping[str, NDArray[np.float64]]
    deciding: Mapping[str, NDArray[np.float64]]


def stage_probabilities(
    taxonomy: Taxonomy,
    logits: Mapping[str, ArrayLike],
    temperatures: Mapping[str, ArrayLike],
    ensemble: Ensemble,
) -> StageProbabilities:
    """Calibrate the logits of every stage and join its members.

    Args:
        taxonomy: The tree of stages.
        logits: Stage name to logits, shape (m, n, k).
        temperatures: Stage name to one a member, shape (m,), or one a member and node, (m, n).
        ensemble: `mean` or `vote`.

    Returns:
        The probabilities of each member, their mean, and what hard routing decides by.
    """
    members = {
        stage.name: member_probabilities(logits[stage.name], temperatures[stage.name])
        for stage in taxonomy.stages
    }
    mean = {name: probabilities.mean(0) for name, probabilities in members.items()}
    deciding = {s.name: join(taxonomy, s, members[s.name], ensemble) for s in taxonomy.stages}
    return StageProbabilities(members, mean, deciding)


def member_probabilities(logits: ArrayLike, temperatures: ArrayLike) -> NDArray[np.float64]:
    """Apply to the logits of each member its temperature.

    Args:
        logits: Of one stage, shape (m, n, k).
        temperatures: One a member, shape (m,), or one a member and node, shape (m, n).

    Returns:
        Probabilities, float64 of shape (m, n, k).
    """
    members = zip(np.asarray(logits), np.asarray(temperatures), strict=True)
    return np.stack([softmax(member, temperature) for member, temperature in members])


def join(
    taxonomy: Taxonomy, stage: Stage, probabilities: NDArray[np.float64], ensemble: Ensemble
) -> NDArray[np.float64]:
    """Join the probabilities of several members to what hard routing decides a stage by.

    `mean` is the mean of the members' probabilities. `vote` counts for each class the members
    for which it is the most probable; a tie goes to the class of higher mean probability. The root
    decides by a threshold, and there a vote is the median: more than half of the members are
    above a threshold if and only if their median is (of an even number half above, half below,
    the mean of the two in the middle decides). So every threshold can be tried on one number.

    Args:
        taxonomy: The tree of stages.
        stage: One of them.
        probabilities: Of each member, shape (m, n, k).
        ensemble: `mean` or `vote`.

    Returns:
        float64 of shape (n, k); of one member its own order of classes, whatever the rule.
    """
    mean = probabilities.mean(0)
    if ensemble == "mean":
        return np.asarray(mean, dtype=np.float64)
    if stage is taxonomy.root:
        cut = np.median(probabilities[:, :, 1], axis=0)
        return np.stack([1 - cut, cut], axis=1)
    votes = np.eye(probabilities.shape[-1])[probabilities.argmax(-1)].sum(0)
    # Half a mean probability is below one vote, so it only breaks ties.
    return np.asarray(votes + mean / 2, dtype=np.float64)


def disagreement(predictions: NDArray[np.int64]) -> dict[str, Any]:
    """Count how often members differ.

    Args:
        predictions: Class index of each member and node, shape (m, n).

    Returns:
        `nodes`; `any`, the share of them on which not all members agree; `pairwise`, a list of
        `members` (two, counted from 1) and the `share` on which these differ. Shares are None
        where there are no nodes.
    """

    def share(differs: NDArray[np.bool_]) -> float | None:
        return figure(differs.mean()) if differs.size else None

    m, n = predictions.shape
    return {
        "nodes": n,
        "any": share((predictions != predictions[0]).any(0)),
        "pairwise": [
            {"members": [i + 1, j + 1], "share": share(predictions[i] != predictions[j])}
            for i, j in combinations(range(m), 2)
        ],
    }


def ensemble_report(
    taxonomy: Taxonomy,
    partition: NDArray[np.int64],
    members: Mapping[str, NDArray[np.float64]],
    reached: Mapping[str, NDArray[np.bool_]],
    ensemble: Ensemble,
) -> dict[str, Any]:
    """Report on each stage that has several members: standalone scores, and disagreement.

    A member's prediction is its most probable class, at the root too. A stage none of whose types
    occurs is left out.

    Args:
        taxonomy: The tree of stages.
        partition: True AV1 ids, shape (n,).
        members: Stage name to probabilities of each member, shape (m, n, k).
        reached: Stage name to which nodes hard routing sent there, shape (n,).
        ensemble: The rule in use.

    Returns:
        Stage name to its scores, see docs/pipeline.md; JSON-ready.
    """
    report = {}
    for stage in taxonomy.stages:
        labels, probabilities = stage.labels[partition], members[stage.name]
        belongs = labels >= 0
        if len(probabilities) == 1 or not belongs.any():
            continue
        own, predictions = probabilities[:, belongs], probabilities.argmax(-1)
        joined = (join(taxonomy, stage, own, rule).argmax(-1) for rule in ("mean", "vote"))
        names = stage.class_names
        by_mean, by_vote = (_macro_f1(rule, labels[belongs], names) for rule in joined)
        standalone = disagreement(predictions[:, belongs])
        report[stage.name] = {
            "members": len(probabilities),
            "rule": ensemble,
            "each": [_macro_f1(one, labels[belongs], names) for one in predictions[:, belongs]],
            "mean_probability": by_mean,
            "vote": by_vote,
            "disagreement": standalone["any"],
            "standalone": standalone,
            "cascade": disagreement(predictions[:, reached[stage.name]]),
        }
    return report


def _macro_f1(
    predictions: NDArray[np.int64], labels: NDArray[np.int64], class_names: Sequence[str]
) -> float:
    return float(from_predictions(predictions, labels, class_names)["macro_f1"])
