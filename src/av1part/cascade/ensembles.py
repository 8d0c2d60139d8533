"""Several models for one stage: how their answers are joined, and how often they differ.

Shapes: m members, n nodes, k classes of the stage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from av1part.metrics.scores import figure, from_predictions
from av1part.options import Ensemble
from av1part.partition import Stage, Taxonomy


def join(
    taxonomy: Taxonomy, stage: Stage, probabilities: NDArray[np.float64], ensemble: Ensemble
) -> NDArray[np.float64]:
    """Join the answers of several members to what hard routing decides a stage by.

    `mean` is the mean of the members' probabilities. `vote` counts for each class the members
    that find it the most probable; of equals the class of higher mean probability wins. The root
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
    # A mean probability is at most 1: halved it decides between equals and nothing else.
    return np.asarray(votes + mean / 2, dtype=np.float64)


def disagreement(said: NDArray[np.int64]) -> dict[str, Any]:
    """Count how often members differ.

    Args:
        said: Class index of each member and node, shape (m, n).

    Returns:
        `nodes`; `any`, the share of them on which not all members agree; `pairwise`, a list of
        `members` (two, counted from 1) and the `share` on which these differ. Shares are None
        where there are no nodes.
    """

    def share(differs: NDArray[np.bool_]) -> float | None:
        return figure(differs.mean()) if differs.size else None

    m, n = said.shape
    return {
        "nodes": n,
        "any": share((said != said[0]).any(0)),
        "pairwise": [
            {"members": [i + 1, j + 1], "share": share(said[i] != said[j])}
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

    A member's answer is its most probable class, at the root too. A stage none of whose types
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
    found = {}
    for stage in taxonomy.stages:
        labels, each = stage.labels[partition], members[stage.name]
        belongs = labels >= 0
        if len(each) == 1 or not belongs.any():
            continue
        mine, said = each[:, belongs], each.argmax(-1)
        joined = (join(taxonomy, stage, mine, rule).argmax(-1) for rule in ("mean", "vote"))
        names = stage.class_names
        by_mean, by_vote = (_macro_f1(one, labels[belongs], names) for one in joined)
        standalone = disagreement(said[:, belongs])
        found[stage.name] = {
            "members": len(each),
            "rule": ensemble,
            "each": [_macro_f1(one, labels[belongs], names) for one in said[:, belongs]],
            "mean_probability": by_mean,
            "vote": by_vote,
            "disagreement": standalone["any"],
            "standalone": standalone,
            "cascade": disagreement(said[:, reached[stage.name]]),
        }
    return found


def _macro_f1(
    said: NDArray[np.int64], labels: NDArray[np.int64], class_names: Sequence[str]
) -> float:
    return float(from_predictions(said, labels, class_names)["macro_f1"])
