"""Boosted trees as a peer: trained on a network's training nodes, scored on the same nodes."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from av1part.data.serve.datamodule import BlockDataModule
from av1part.evaluation.forest_cache import trained_once
from av1part.metrics.scores import figure, from_predictions, log_loss
from av1part.trees.boosting import Boosted, Boosting, Samples
from av1part.trees.features import feature_names
from av1part.trees.samples import store_features
from av1part.trees.search import TRIED, search

log = logging.getLogger(__name__)

Peers = Mapping[int, Boosted]
"""Node size to its trees."""


@dataclass(frozen=True)
class PeerAnswers:
    """What trees answer for the nodes of one size that a network is scored on.

    Attributes:
        probabilities: Float64, shape (n, k).
        trees: The trees.
    """

    probabilities: NDArray[np.float64]
    trees: Boosted

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
            The scores without the confusion matrix, `log_loss` in nats, `iterations`, `tries`, and
            the `settings` that val chose among these.
        """
        scores = from_predictions(self.predictions, labels, class_names)
        del scores["confusion_matrix"]
        settings = asdict(self.trees.settings)
        return {
            **scores,
            "log_loss": figure(log_loss(self.probabilities, labels)),
            "iterations": self.trees.iterations,
            "tries": settings["tries"],
            "settings": {key: settings[key] for key in ("class_weights", *TRIED)},
        }


def train_peers(
    data: BlockDataModule, settings: Boosting, classes: NDArray[np.int64] | None = None
) -> Peers:
    """Train trees on what a stage is trained on: its nodes, labels and split.

    Args:
        data: The stage's data.
        settings: How to train.
        classes: Class index of each AV1 id, shape (10,), where it is not the stage's own.

    Returns:
        The trees of each size that has nodes in train and val.

    Raises:
        ConfigError: if LightGBM is not installed.
    """
    train, val = data.scored("train"), data.scored("val")
    return {
        size: _train(
            data,
            settings,
            {"train": train[size], "val": val[size]},
            size,
            data.stage_at(size).labels if classes is None else classes,
        )
        for size in train
        if size in val
    }


def _train(
    data: BlockDataModule,
    settings: Boosting,
    nodes: Mapping[str, NDArray[np.int64]],
    size: int,
    table: NDArray[np.int64],
) -> Boosted:
    """Train the trees of one size, or take them from the cache."""
    types = data.store.nodes["partition"].to_numpy()

    def train() -> Boosted:
        log.info("training boosted trees on the same %dx%d nodes", size, size)
        of_train, of_val = (
            Samples(store_features(data.store, own, size), table[types[own]])
            for own in (nodes["train"], nodes["val"])
        )
        return search(of_train, of_val, int(table.max()) + 1, settings)

    options = asdict(settings)
    del options["threads"]  # without effect on the trees
    facts = {
        "settings": options,
        "manifest": data.store.manifest_sha256,
        "size": size,
        "labels": table.tolist(),
        "nodes": {
            split: hashlib.sha256(own.astype(np.int64).tobytes()).hexdigest()
            for split, own in nodes.items()
        },
    }
    return trained_once(facts, len(feature_names(size)), train)


def ask_peers(
    peers: Peers, data: BlockDataModule, nodes: Mapping[int, NDArray[np.int64]]
) -> dict[int, PeerAnswers]:
    """Ask trees for nodes of a dataset.

    Args:
        peers: The trees.
        data: The data that the nodes are of, set up.
        nodes: Size to node numbers, shape (n,).

    Returns:
        Size to the answers, in the order of the nodes, for each size that has trees.
    """
    return {
        size: PeerAnswers(
            peers[size].forest.probabilities(store_features(data.store, own, size)), peers[size]
        )
        for size, own in nodes.items()
        if size in peers
    }
