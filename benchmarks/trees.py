"""Boosted trees on a 1080p frame: our walk over plain arrays against LightGBM's own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict
from functools import cache
from typing import Any

import numpy as np
from inference import rate
from measure import compare
from threadpoolctl import threadpool_limits

from av1part.config.schema import Trees
from av1part.data.serve.datamodule import BlockDataModule
from av1part.partition import SIZES, legal_partitions
from av1part.predictors.interface import Domain
from av1part.predictors.trees import BoostedTrees, TreesOfSize
from av1part.trees.boosting import Boosting, Samples, to_forest, train_booster
from av1part.trees.features import node_features
from av1part.trees.forest import Forest
from av1part.trees.samples import store_features

QINDEX = 128


def run(*, repeats: int = 3) -> Iterator[Any]:
    """Yield a row a node size.

    Args:
        repeats: Pairs of each.
    """
    data = BlockDataModule(size=SIZES[0])
    data.setup()
    for size in SIZES:
        booster, best, forest = train(size)
        with threadpool_limits(1):
            started = time.process_time()
            features = node_features(frame(data), 8, size).at(QINDEX)
            of_features = time.process_time() - started
            samples = features.reshape(-1, features.shape[-1])
            started = time.process_time()
            forest.probabilities(samples)
            of_trees = time.process_time() - started
            count = len(samples)
            result = compare(
                lambda f=forest, x=samples: rate(lambda: f.probabilities(x), blocks=len(x)),
                lambda b=booster, x=samples, n=best: rate(
                    lambda: b.predict(x, num_iteration=n, num_threads=1), blocks=len(x)
                ),
                repeats=repeats,
            )
        yield {
            "what": f"{size}x{size}: plain arrays against LightGBM",
            "nodes": count,
            "trees": len(forest.root),
            **vars(result),
            "features_cpu_s": of_features,
            "trees_cpu_s": of_trees,
        }


@cache
def train(size: int) -> tuple[Any, int, Forest]:
    """Train trees on the embedded dataset, once for all parts.

    Returns:
        LightGBM's booster, its iterations that are best on val, and these as plain arrays.
    """
    data = BlockDataModule(size=size)
    data.setup()
    types = legal_partitions(size, one_to_four=False)
    of_type = np.searchsorted(types, data.store.nodes["partition"].to_numpy())
    train, val = (
        Samples(store_features(data.store, nodes, size), of_type[nodes])
        for nodes in (data.reader(split).nodes for split in ("train", "val"))
    )
    settings = Boosting(**asdict(Trees()))
    booster, base, history = train_booster(train, val, len(types), settings)
    best = int(np.argmin(history)) + 1
    return booster, best, to_forest(booster, base, best)


def trained_trees() -> BoostedTrees:
    """Return the trees of all sizes as a predictor."""
    by_size = {}
    for size in SIZES:
        _, best, forest = train(size)
        by_size[size] = TreesOfSize(forest, best, val_loss=0.0)
    return BoostedTrees(Domain(one_to_four=False), by_size, Trees().class_weights)


def frame(data: BlockDataModule, height: int = 1080, width: int = 1920) -> Any:
    """Return a luma plane: a picture of the dataset, mirrored as often as needed."""
    data.setup()
    plane = data.store.plane(data.store.sequences[0])[0]
    missing = (max(0, height - plane.shape[0]), max(0, width - plane.shape[1]))
    return np.pad(plane, ((0, missing[0]), (0, missing[1])), mode="symmetric")[:height, :width]
