"""Boosted trees as a stage's peer: trained on its training nodes, scored on the same val nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from av1part.data.serve.datamodule import BlockDataModule
from av1part.metrics.scores import figure, from_predictions, log_loss
from av1part.trees.boosting import Boosted, Boosting, Samples, boost
from av1part.trees.samples import store_features


def train_peer(data: BlockDataModule, settings: Boosting) -> Boosted:
    """Train trees on what a stage is trained on, its nodes, labels and split.

    Args:
        data: The stage's data, set up.
        settings: How to train.

    Returns:
        The trees, whose classes are the stage's.

    Raises:
        ConfigError: if LightGBM is not installed.
    """
    train, val = (
        Samples(store_features(data.store, data.reader(split).nodes, data.size), data.labels(split))
        for split in ("train", "val")
    )
    return boost(train, val, len(data.stage.classes), settings)


def peer_probabilities(
    peer: Boosted, data: BlockDataModule, nodes: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the trees' probability of each class of a stage.

    Args:
        peer: The trees.
        data: The data that the nodes are of.
        nodes: Node numbers, shape (n,).

    Returns:
        Float64, shape (n, k).
    """
    return peer.forest.probabilities(store_features(data.store, nodes, data.size))


def peer_scores(
    peer: Boosted,
    probabilities: NDArray[np.float64],
    labels: NDArray[Any],
    class_names: Sequence[str],
) -> dict[str, Any]:
    """Score the trees as `from_predictions` scores a stage, with log loss and iterations.

    Args:
        peer: The trees.
        probabilities: Theirs, shape (n, k).
        labels: True class indices, shape (n,).
        class_names: Names in class-index order.

    Returns:
        The scores, without the confusion matrix.
    """
    scores = from_predictions(probabilities.argmax(1), labels, class_names)
    del scores["confusion_matrix"]
    loss = figure(log_loss(probabilities, labels))
    return {**scores, "log_loss": loss, "iterations": peer.iterations}
