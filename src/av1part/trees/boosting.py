"""Training boosted trees with LightGBM, which is needed here alone, into a `Forest`.

Multiclass log loss, one tree a class and iteration, stopped by the log loss of validation nodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from av1part.metrics.scores import figure
from av1part.options import TreeWeights
from av1part.system.errors import ConfigError, first_line
from av1part.trees.forest import Forest

_BINS = 63
"""Thresholds that are tried for a feature."""


@dataclass(frozen=True)
class Boosting:
    """How trees are trained.

    Attributes:
        class_weights: `none`, or `balanced`: a node of class c counts n / (k n_c), of n training
            nodes, n_c of them of the class, k classes that occur. The validation loss is weighted
            alike, and the probabilities are those of classes of equal shares.
        iterations: Trees of a class at most.
        patience: Iterations without a lower validation loss after which training stops.
        learning_rate: Share of each tree's values that is added.
        leaves: Of a tree, at most.
        leaf_nodes: Training nodes of a leaf, at least.
        features: Share of the features that each tree may use.
        seed: Of that choice.
        threads: Of OpenMP; 0 for its own number. The trees do not depend on it.
        tries: Settings that `trees.search` trains with, of which val chooses one.
    """

    class_weights: TreeWeights
    iterations: int
    patience: int
    learning_rate: float
    leaves: int
    leaf_nodes: int
    features: float
    seed: int
    threads: int = 0
    tries: int = 1


@dataclass(frozen=True)
class Samples:
    """Nodes to learn from.

    Attributes:
        features: Float32 `[n, F]`.
        labels: Class indices, int64 `[n]`.
    """

    features: NDArray[np.float32]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Boosted:
    """Trained trees.

    Attributes:
        forest: The trees up to the best iteration.
        iterations: The best iteration, from 1.
        val_loss: Log loss of the validation nodes there, weighted as in training; rounded, since
            its last digits depend on the number of threads.
        settings: How they were trained.
    """

    forest: Forest
    iterations: int
    val_loss: float
    settings: Boosting


def boost(train: Samples, val: Samples, classes: int, settings: Boosting) -> Boosted:
    """Train trees; the same arguments give the same trees, whatever the number of threads.

    A class that never occurs in training keeps its base: its score is that of 1 / classes of a
    node.

    Args:
        train: Training nodes, at least one.
        val: Validation nodes, at least one.
        classes: Number of classes.
        settings: How to train.

    Returns:
        The trees.

    Raises:
        ConfigError: if LightGBM is not installed.
    """
    booster, base, history = train_booster(train, val, classes, settings)
    best = int(np.argmin(history)) + 1
    return Boosted(to_forest(booster, base, best), best, figure(history[best - 1]), settings)


def train_booster(
    train: Samples, val: Samples, classes: int, settings: Boosting
) -> tuple[Any, NDArray[np.float64], list[float]]:
    """Train trees in LightGBM's own form.

    Args:
        train: Training nodes, at least one.
        val: Validation nodes, at least one.
        classes: Number of classes.
        settings: How to train.

    Returns:
        The booster; the score of each class that it began with, `[k]`, which its own predictions
        leave out; the val loss after each iteration.

    Raises:
        ConfigError: if LightGBM is not installed.
    """
    lightgbm = check_library()
    weights = class_weights(train.labels, classes, settings.class_weights)
    counts = weights * np.bincount(train.labels, minlength=classes) + 1 / classes
    base = np.log(counts / counts.sum())
    parameters = {
        "objective": "multiclass",
        "num_class": classes,
        "metric": "multi_logloss",
        "learning_rate": settings.learning_rate,
        "num_leaves": settings.leaves,
        "min_data_in_leaf": settings.leaf_nodes,
        "feature_fraction": settings.features,
        "max_bin": _BINS,
        "use_missing": False,
        "deterministic": True,
        "force_row_wise": True,
        "seed": settings.seed,
        "num_threads": settings.threads,
        "verbosity": -1,
    }
    datasets: list[Any] = []
    for samples in (train, val):
        start = np.repeat(base[None], len(samples.labels), axis=0)
        datasets.append(
            lightgbm.Dataset(
                samples.features,
                samples.labels,
                weight=weights[samples.labels],
                init_score=start,
                reference=datasets[0] if datasets else None,
                params=parameters,
            )
        )
    losses: dict[str, dict[str, list[float]]] = {}
    booster = lightgbm.train(
        parameters,
        datasets[0],
        num_boost_round=settings.iterations,
        valid_sets=[datasets[1]],
        valid_names=["val"],
        callbacks=[
            lightgbm.early_stopping(settings.patience, verbose=False),
            lightgbm.record_evaluation(losses),
        ],
    )
    return booster, base, losses["val"]["multi_logloss"]


def class_weights(
    labels: NDArray[np.int64], classes: int, kind: TreeWeights
) -> NDArray[np.float64]:
    """Return the weight of a node of each class, float64 `[k]`; see `Boosting`."""
    counts = np.bincount(labels, minlength=classes)
    if kind == "none":
        return np.ones(classes)
    present = (counts > 0).sum()
    # A class of validation alone counts like one training node.
    weights: NDArray[np.float64] = len(labels) / (present * np.maximum(counts, 1))
    return weights


def to_forest(booster: Any, base: NDArray[np.float64], iterations: int) -> Forest:
    """Return the trees of a LightGBM booster as arrays.

    Args:
        booster: A trained `lightgbm.Booster` of a multiclass objective.
        base: Score of each class that it began with, `[k]`.
        iterations: How many of its iterations to take.

    Returns:
        The forest.
    """
    arrays = _Arrays()
    offsets = base.copy()
    model: Mapping[str, Any] = booster.dump_model(num_iteration=iterations)
    for number, tree in enumerate(model["tree_info"]):
        of, root = number % len(base), tree["tree_structure"]
        if "split_index" not in root:
            offsets[of] += root["leaf_value"]
            continue
        arrays.add(root, of)
    return arrays.forest(offsets)


class _Arrays:
    """Trees of LightGBM's JSON, appended to arrays."""

    def __init__(self) -> None:
        self.inner: list[tuple[int, float]] = []
        self.children: list[list[int]] = []
        self.leaf: list[float] = []
        self.trees: list[tuple[int, int]] = []

    def add(self, root: Mapping[str, Any], of: int) -> None:
        """Append a tree, each node before its children."""
        self.trees.append((len(self.inner), of))
        waiting: list[tuple[Mapping[str, Any], list[int] | None, int]] = [(root, None, 0)]
        while waiting:
            node, parent, side = waiting.pop()
            if "split_index" not in node:
                index = -1 - len(self.leaf)
                self.leaf.append(node["leaf_value"])
            else:
                index = len(self.inner)
                self.inner.append((node["split_feature"], node["threshold"]))
                own = [0, 0]
                self.children.append(own)
                waiting += [(node["right_child"], own, 1), (node["left_child"], own, 0)]
            if parent is not None:
                parent[side] = index

    def forest(self, base: NDArray[np.float64]) -> Forest:
        """Return what was appended."""
        inner = np.array(self.inner, np.float64).reshape(-1, 2)
        children = np.array(self.children, np.int64).reshape(-1, 2)
        trees = np.array(self.trees, np.int64).reshape(-1, 2)
        return Forest(
            feature=inner[:, 0].astype(np.int64),
            threshold=_rounded_down(inner[:, 1]),
            left=children[:, 0].copy(),
            right=children[:, 1].copy(),
            leaf=np.array(self.leaf, np.float64),
            root=trees[:, 0].copy(),
            tree_class=trees[:, 1].copy(),
            base=base,
        )


def _rounded_down(thresholds: NDArray[np.float64]) -> NDArray[np.float32]:
    """Round to the next float32 below, with which float32 features compare as before."""
    limits = np.finfo(np.float32)
    rounded = np.clip(thresholds, limits.min, limits.max).astype(np.float32)
    below = np.nextafter(rounded, np.float32(-np.inf))
    kept: NDArray[np.float32] = np.where(rounded > thresholds, below, rounded)
    return kept


def check_library() -> Any:
    """Import LightGBM.

    Returns:
        The module.

    Raises:
        ConfigError: if it is not installed, or has no OpenMP.
    """
    try:
        import lightgbm
    except (ImportError, OSError) as error:
        raise ConfigError(
            f"training trees needs the extra trees ({first_line(error)}): "
            "pip install 'av1part[trees]'"
        ) from None
    return lightgbm
