"""Boosted trees on a 1080p frame: our walk over plain arrays against LightGBM's own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
from inference import rate
from measure import compare
from threadpoolctl import threadpool_limits

from av1part.config.schema import Trees
from av1part.data.serve.datamodule import BlockDataModule
from av1part.partition import SIZES, legal_partitions
from av1part.trees.boosting import Boosting, Samples, to_forest, train_booster
from av1part.trees.features import node_features
from av1part.trees.samples import store_features

QINDEX = 128


def run(*, repeats: int = 3) -> Iterator[Any]:
    """Yield a row a node size.

    Args:
        repeats: Pairs of each.
    """
    settings = Boosting(**asdict(Trees()))
    for size in SIZES:
        data = BlockDataModule(size=size)
        types = legal_partitions(size, one_to_four=False)
        of_type = np.searchsorted(types, data_types(data))
        train, val = (
            Samples(store_features(data.store, nodes, size), of_type[nodes])
            for nodes in (data.reader(split).nodes for split in ("train", "val"))
        )
        booster, base, history = train_booster(train, val, len(types), settings)
        best = int(np.argmin(history)) + 1
        forest = to_forest(booster, base, best)
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


def data_types(data: BlockDataModule) -> Any:
    """Return the type of every node of a dataset."""
    data.setup()
    return data.store.nodes["partition"].to_numpy()


def frame(data: BlockDataModule) -> Any:
    """Return a luma plane of 1080x1920: a picture of the dataset, mirrored as often as needed."""
    plane = data.store.plane(data.store.sequences[0])[0]
    height, width = plane.shape
    return np.pad(plane, ((0, max(0, 1080 - height)), (0, max(0, 1920 - width))), mode="symmetric")[
        :1080, :1920
    ]
