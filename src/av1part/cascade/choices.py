"""The choices made on validation nodes: a temperature for each member, the root's threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from av1part.cascade.ensembles import stage_probabilities
from av1part.cascade.fits import NEUTRAL_THRESHOLD, cross_fit, fit_temperature, fit_threshold
from av1part.cascade.routing import PASS_ALL, Nodes, route, type_index
from av1part.options import Ensemble, Objective
from av1part.partition import IGNORED, Stage


@dataclass(frozen=True)
class Choices:
    """A threshold, and a temperature for each member of each stage.

    Attributes:
        threshold: A node is cut if P(PARTITION) is above it.
        temperatures: Stage name to the temperature of each member.
    """

    threshold: float
    temperatures: Mapping[str, tuple[float, ...]]

    @classmethod
    def neutral(cls, members: Mapping[str, Sized]) -> Choices:
        """Return what applies without a fit: threshold 0.5, temperatures 1.

        Args:
            members: Stage name to its members, or to their logits.

        Returns:
            The choices.
        """
        ones = {stage: (1.0,) * len(ensemble) for stage, ensemble in members.items()}
        return cls(NEUTRAL_THRESHOLD, ones)


def fit_choices(
    nodes: Nodes, objective: Objective = "macro_f1", ensemble: Ensemble = "mean"
) -> Choices:
    """Fit each member's temperature on its stage's population, then the threshold.

    Args:
        nodes: Nodes to fit on; with none at all the choices are neutral.
        objective: What the threshold maximises, see `fits.fit_threshold`.
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
    scores = stage_probabilities(tree, nodes.logits, temperatures, ensemble).deciding
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
    """Fit the choices for each sequence on the other sequences, as `fits.cross_fit` does."""
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
