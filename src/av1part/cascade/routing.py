r"""How a node goes through the stages: hard routing, and the product of their probabilities.

    every node -> stage1 --NONE-----------------------------------> NONE
                    |
                    P(PARTITION) > threshold
                    v
                  stage2 --SPLIT----------------------------------> SPLIT
                    |   \
                    RECT  AB  (1TO4)
                    v      v
           stage3_rect   stage3_ab (mean or vote of its members) ...
                    v      v
           HORZ VERT      HORZ_A HORZ_B VERT_A VERT_B

The tree is the taxonomy's; no class index is written here, and what comes out are AV1 ids.

Shapes: n nodes, k classes of a stage, m members of a stage's ensemble, t types of the taxonomy.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from av1part.partition import IGNORED, Partition, Stage, Taxonomy

PASS_ALL = -1.0
"""A threshold below every probability."""

Threshold = float | NDArray[np.float64]
"""One for all nodes, or one a node, shape (n,)."""


@dataclass(frozen=True)
class Nodes:
    """Nodes with their true types, and the logits of every stage for *all* of them.

    Every stage is computed for every node, also for those that would never reach it, so that any
    routing can be tried afterwards on the same outputs.

    Attributes:
        taxonomy: The tree of stages.
        partition: True AV1 ids, int64 of shape (n,).
        sequence: Name of each node's sequence, str of shape (n,).
        qindex: Base quantiser index, int64 of shape (n,).
        logits: Stage name to logits, float64 of shape (m, n, k); m is 1 for a single model.
    """

    taxonomy: Taxonomy
    partition: NDArray[np.int64]
    sequence: NDArray[np.str_]
    qindex: NDArray[np.int64]
    logits: Mapping[str, NDArray[np.float64]]

    @classmethod
    def build(
        cls,
        taxonomy: Taxonomy,
        partition: ArrayLike,
        sequence: ArrayLike,
        qindex: ArrayLike,
        logits: Mapping[str, Sequence[ArrayLike]],
    ) -> Nodes:
        """Check and convert arrays or CPU tensors.

        Args:
            taxonomy: The tree of stages.
            partition: True AV1 ids, shape (n,).
            sequence: Sequence names (or codes, which become names), shape (n,).
            qindex: Integers, shape (n,).
            logits: For every stage of the taxonomy, one array of shape (n, k) a member.

        Returns:
            The nodes.

        Raises:
            ValueError: naming the stage or the column that does not fit.
        """
        truth = np.asarray(partition, dtype=np.int64)
        names, qindexes = np.asarray(sequence).astype(str), np.asarray(qindex, dtype=np.int64)
        n = truth.size
        if not n or not truth.shape == names.shape == qindexes.shape == (n,):
            raise ValueError(
                f"partition {truth.shape}, sequence {names.shape} and qindex {qindexes.shape} "
                "must be of one shape (n,), n > 0"
            )
        outside = ~np.isin(truth, taxonomy.partitions)
        if outside.any():
            raise ValueError(
                f"{outside.sum()} nodes have types outside taxonomy {taxonomy.name}, "
                f"such as id {truth[outside][0]}"
            )
        stacked = {s.name: _members(s, logits, n) for s in taxonomy.stages}
        return cls(taxonomy, truth, names, qindexes, stacked)

    def select(self, mask: NDArray[np.bool_]) -> Nodes:
        """Return the nodes of a mask, bool of shape (n,)."""
        logits = {name: member[:, mask] for name, member in self.logits.items()}
        columns = (self.partition[mask], self.sequence[mask], self.qindex[mask])
        return Nodes(self.taxonomy, *columns, logits)

    def population(self, stage: Stage) -> NDArray[np.bool_]:
        """Return which nodes truly belong to a stage, bool of shape (n,)."""
        belongs: NDArray[np.bool_] = stage.labels[self.partition] != IGNORED
        return belongs


def _members(
    stage: Stage, logits: Mapping[str, Sequence[ArrayLike]], n: int
) -> NDArray[np.float64]:
    shape = (n, len(stage.class_names))
    members = [np.asarray(member, dtype=np.float64) for member in logits.get(stage.name, ())]
    if not members or any(member.shape != shape for member in members):
        got = [member.shape for member in members]
        raise ValueError(f"{stage.name} needs logits of shape {shape} for each member, got {got}")
    stacked = np.stack(members)
    if not np.isfinite(stacked).all():
        raise ValueError(f"{stage.name} has logits that are not finite")
    return stacked


def type_index(taxonomy: Taxonomy) -> NDArray[np.int64]:
    """Lookup table, int64 of shape (10,): AV1 id to its place in `taxonomy.partitions`."""
    table = np.full(len(Partition), IGNORED, dtype=np.int64)
    table[list(taxonomy.partitions)] = np.arange(len(taxonomy.partitions))
    return table


@dataclass(frozen=True)
class Routing:
    """Where hard routing took the nodes.

    Attributes:
        prediction: AV1 ids, int64 of shape (n,).
        decisions: Stage name to the class index it chose, or `IGNORED` for nodes that never
            reached it, int64 of shape (n,).
    """

    prediction: NDArray[np.int64]
    decisions: Mapping[str, NDArray[np.int64]]


def decide(
    taxonomy: Taxonomy, stage: Stage, scores: NDArray[np.float64], threshold: Threshold
) -> NDArray[np.int64]:
    """Choose a stage's class for each node: the root by threshold, others by the highest score.

    Args:
        taxonomy: The tree of stages.
        stage: One of its stages.
        scores: Shape (n, k).
        threshold: Of the root's second class.

    Returns:
        Class indices, int64 of shape (n,).
    """
    if stage is taxonomy.root:
        return np.asarray(scores[:, 1] > threshold, dtype=np.int64)
    return np.asarray(scores.argmax(1), dtype=np.int64)


def route(
    taxonomy: Taxonomy,
    scores: Mapping[str, NDArray[np.float64]],
    threshold: Threshold,
    *,
    truth: NDArray[np.int64] | None = None,
    replaced: Collection[str] = (),
) -> Routing:
    """Send every node down the tree, one class at each stage.

    Args:
        taxonomy: The tree of stages.
        scores: Stage name to what it decides by, for all nodes, shape (n, k): probabilities, or
            what `ensembles.join` makes of several members.
        threshold: Of the root's second class.
        truth: True AV1 ids, shape (n,); needed with `replaced`.
        replaced: Stages whose decisions are replaced by the true classes. A node that was sent to
            such a stage by mistake has no true class there, so the model's decision stays.

    Returns:
        The id each node ends at, and what each stage on its way chose.

    Raises:
        ValueError: if `replaced` is given without `truth`, or names no stage.
    """
    for name in replaced:
        taxonomy.stage(name)
    if replaced and truth is None:
        raise ValueError("stages can be replaced by the truth only if it is given")

    def decision(stage: Stage, reached: NDArray[np.int64]) -> NDArray[np.int64]:
        at = threshold if np.ndim(threshold) == 0 else np.asarray(threshold)[reached]
        chosen = decide(taxonomy, stage, scores[stage.name][reached], at)
        if truth is None or stage.name not in replaced:
            return chosen
        true = stage.labels[truth[reached]]
        return np.where(true == IGNORED, chosen, true)

    return descend(taxonomy, len(scores[taxonomy.root.name]), decision)


def descend(
    taxonomy: Taxonomy,
    n: int,
    decision: Callable[[Stage, NDArray[np.int64]], NDArray[np.int64]],
) -> Routing:
    """Send nodes down the tree, where each stage decides once, for the nodes that reach it.

    Args:
        taxonomy: The tree of stages.
        n: Number of nodes.
        decision: Returns a stage's class indices, int64 of shape (r,), for the nodes that reach
            it, int64 of shape (r,), r > 0; a stage follows the one that sends nodes to it.

    Returns:
        The id each node ends at, and what each stage on its way chose.
    """
    prediction = np.full(n, IGNORED, dtype=np.int64)
    reached = {taxonomy.root.name: np.arange(n)}
    decisions = {}
    for stage in taxonomy.stages:
        nodes = reached[stage.name]
        chosen = decision(stage, nodes) if nodes.size else np.empty(0, dtype=np.int64)
        decisions[stage.name] = np.full(n, IGNORED, dtype=np.int64)
        decisions[stage.name][nodes] = chosen
        for index, name in enumerate(stage.class_names):
            sent, child = nodes[chosen == index], taxonomy.child(stage, name)
            if child is None:
                prediction[sent] = stage.partitions[index]
            else:
                reached[child.name] = sent
    return Routing(prediction, decisions)


def flat_distribution(
    taxonomy: Taxonomy, probabilities: Mapping[str, NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Return P(type), the product of the stages' probabilities on the way to it.

    Args:
        taxonomy: The tree of stages.
        probabilities: Stage name to probabilities of all nodes, shape (n, k).

    Returns:
        float64 of shape (n, t), types in the order of `taxonomy.partitions`; rows sum to 1.
    """
    n = len(probabilities[taxonomy.root.name])
    index = type_index(taxonomy)
    flat = np.empty((n, len(taxonomy.partitions)))
    reach = {taxonomy.root.name: np.ones(n)}
    for stage in taxonomy.stages:
        joint = reach[stage.name][:, None] * probabilities[stage.name]
        for position, name in enumerate(stage.class_names):
            child = taxonomy.child(stage, name)
            if child is None:
                flat[:, index[stage.partitions[position]]] = joint[:, position]
            else:
                reach[child.name] = joint[:, position]
    return flat
