"""What is chosen on validation nodes: a temperature for each member, and the root's threshold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from av1part.cascade.ensembles import join
from av1part.cascade.fits import NEUTRAL_THRESHOLD, cross_fit, fit_temperature, fit_threshold
from av1part.cascade.routing import PASS_ALL, Nodes, member_probabilities, route, type_index
from av1part.options import Ensemble, Objective
from av1part.partition import IGNORED, Stage


@dataclass(frozen=True)
class Choices:
    """What is chosen on validation nodes.

    Attributes:
        threshold: A node is cut if P(PARTITION) is above it.
        temperatures: Stage name to the temperature of each member.
    """

    threshold: float
    temperatures: Mapping[str, tuple[float, ...]]

    @classmethod
    def without_fit(cls, members: Mapping[str, int]) -> Choices:
        """Return threshold 0.5 and temperatures 1, for so many members of each stage."""
        return cls(NEUTRAL_THRESHOLD, {stage: (1.0,) * m for stage, m in members.items()})

    @classmethod
    def neutral(cls, nodes: Nodes) -> Choices:
        """Return threshold 0.5 and temperatures 1, for the members that answered these nodes."""
        return cls.without_fit({stage: len(m) for stage, m in nodes.logits.items()})


def fit_choices(
    nodes: Nodes, objective: Objective = "macro_f1", ensemble: Ensemble = "mean"
) -> Choices:
    """Fit each member's temperature on its stage's population, then the threshold.

    Args:
        nodes: Nodes to fit on; with none at all the choices are neutral.
        objective: What the threshold maximises, see `calibration.fit_threshold`.
        ensemble: How the members of a stage are joined.

    Returns:
        The threshold, and a temperature for each member of each stage.
    """
    tree = nodes.taxonomy
    temperatures = {
        stage.name: tuple(
            stage_temperature(stage, nodes.partition, member) for member in nodes.logits[stage.name]
        )
        for stage in tree.stages
    }
    scores = {
        stage.name: join(
            tree,
            stage,
            member_probabilities(nodes, stage.name, temperatures[stage.name]),
            ensemble,
        )
        for stage in tree.stages
    }
    index = type_index(tree)
    threshold = fit_threshold(
        scores[tree.root.name][:, 1],
        index[nodes.partition],
        index[route(tree, scores, PASS_ALL).prediction],
        len(tree.partitions),
        objective,
    )
    return Choices(threshold, temperatures)


def cross_fit_choices(
    nodes: Nodes, objective: Objective = "macro_f1", ensemble: Ensemble = "mean"
) -> dict[str, Choices]:
    """Fit for each sequence on the others, as `calibration.cross_fit` does; by sequence."""
    return cross_fit(
        nodes.sequence, lambda mask: fit_choices(nodes.select(mask), objective, ensemble)
    )


def stage_temperature(stage: Stage, partition: NDArray[np.int64], logits: ArrayLike) -> float:
    """Fit one model's temperature on the nodes that belong to its stage.

    Args:
        stage: The stage.
        partition: True AV1 ids, shape (n,).
        logits: Shape (n, k).

    Returns:
        The temperature; 1.0 if no node belongs to the stage.
    """
    labels = stage.labels[partition]
    belongs = labels != IGNORED
    return fit_temperature(np.asarray(logits)[belongs], labels[belongs])
