"""Boosted trees as a peer: trained on a network's training nodes, scored on the same nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from av1part.data.serve.datamodule import BlockDataModule
from av1part.metrics.scores import figure, from_predictions, log_loss
from av1part.trees.boosting import Boosted, Boosting, Samples, boost
from av1part.trees.samples import store_features


@dataclass(frozen=True)
class PeerAnswers:
    """What trees answer for the nodes that a network is scored on.

    Attributes:
        probabilities: Float64, shape (n, k).
        iterations: Trees of a class.
    """

    probabilities: NDArray[np.float64]
    iterations: int

    @property
    def predictions(self) -> NDArray[np.int64]:
        """Class indices, shape (n,)."""
        indices: NDArray[np.int64] = self.probabilities.argmax(1)
        return indices

    def scores(self, labels: NDArray[Any], class_names: Sequence[str]) -> dict[str, Any]:
        """Score the trees as `from_predictions` scores a network.

        Args:
            labels: True class indices, shape (n,).
            class_names: Names in class-index order.

        Returns:
            The scores without the confusion matrix, `log_loss` in nats, and `iterations`.
        """
        scores = from_predictions(self.predictions, labels, class_names)
        del scores["confusion_matrix"]
        loss = figure(log_loss(self.probabilities, labels))
        return {**scores, "log_loss": loss, "iterations": self.iterations}


def train_peer(
    data: BlockDataModule, settings: Boosting, classes: NDArray[np.int64] | None = None
) -> Boosted:
    """Train trees on what a stage is trained on: its nodes, labels and split.

    Args:
        data: The stage's data.
        settings: How to train.
        classes: Class index of each AV1 id, shape (10,), where it is not the stage's own.

    Returns:
        The trees.

    Raises:
        ConfigError: if LightGBM is not installed.
    """
    data.setup()
    table = data.stage.labels if classes is None else classes
    types = data.store.nodes["partition"].to_numpy()
    train, val = (
        Samples(store_features(data.store, nodes, data.size), table[types[nodes]])
        for nodes in (data.reader(split).nodes for split in ("train", "val"))
    )
    return boost(train, val, int(table.max()) + 1, settings)


def ask_peer(peer: Boosted, data: BlockDataModule, nodes: NDArray[np.int64]) -> PeerAnswers:
    """Ask trees for nodes of a dataset.

    Args:
        peer: The trees.
        data: The data that the nodes are of, set up.
        nodes: Node numbers, shape (n,).

    Returns:
        Their answers, in the order of the nodes.
    """
    features = store_features(data.store, nodes, data.size)
    return PeerAnswers(peer.forest.probabilities(features), peer.iterations)
