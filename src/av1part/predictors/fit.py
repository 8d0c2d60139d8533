"""Fitting a predictor without a network on the nodes of a dataset, all sizes of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from av1part import embedded
from av1part.data.serve.datamodule import BlockDataModule
from av1part.data.store.store import Store
from av1part.evaluation.attach import DataSource
from av1part.partition import Partition
from av1part.predictors.bundle import Bundle
from av1part.predictors.fitted import ClassPrior, VarianceRule
from av1part.predictors.trees import BoostedTrees
from av1part.trees.boosting import Boosting

FITTED: Mapping[str, type[ClassPrior] | type[VarianceRule]] = {
    "prior": ClassPrior,
    "variance": VarianceRule,
}
"""Kind of a bundle to the predictor that is fitted."""


def fit_bundle(kind: str, source: DataSource, *, split_seed: int = 42) -> Bundle:
    """Fit a predictor on the training nodes of a dataset.

    Args:
        kind: A key of `FITTED`.
        source: The dataset, None for the embedded one, with its split.
        split_seed: Seed of the split.

    Returns:
        The predictor, with the hashes of what it was fitted on.

    Raises:
        StoreError: if the dataset cannot be opened, or a size has no training nodes.
        ConfigError: if the protocol does not fit the split list.
    """
    store, of_size = open_splits(source, split_seed)
    nodes = [data.reader("train").nodes for data in of_size.values()]
    chosen = store.nodes[np.sort(np.concatenate(nodes))]
    sources = [_facts(data) for data in of_size.values()]
    return Bundle(FITTED[kind].fit(store, chosen), sources=sources)


def train_trees(source: DataSource, settings: Boosting, *, split_seed: int = 42) -> Bundle:
    """Train boosted trees on the training nodes of a dataset, stopped by its validation nodes.

    Args:
        source: The dataset, None for the embedded one, with its split.
        settings: How to train.
        split_seed: Seed of the split.

    Returns:
        The predictor, with the hashes of what it was trained on.

    Raises:
        StoreError: if the dataset cannot be opened, or a size has no nodes of train or val.
        ConfigError: if the protocol does not fit the split list, or LightGBM is not installed.
    """
    store, of_size = open_splits(source, split_seed)
    train, val = (
        {size: data.reader(split).nodes for size, data in of_size.items()}
        for split in ("train", "val")
    )
    trees = BoostedTrees.fit(store, train, val, settings)
    return Bundle(trees, sources=[_facts(data) for data in of_size.values()])


def open_splits(source: DataSource, split_seed: int) -> tuple[Store, dict[int, BlockDataModule]]:
    """Open a dataset, and its splits at each size.

    Args:
        source: The dataset, None for the embedded one, with its split.
        split_seed: Seed of the split.

    Returns:
        The dataset, and for each size of its nodes the data, not set up.

    Raises:
        StoreError: if the dataset cannot be opened.
    """
    store = Store.open(embedded.STORE if source.path is None else source.path)
    partition = store.nodes["partition"]
    taxonomy = "v6_1to4" if (partition >= Partition.HORZ_4).any() else "v6"
    return store, {
        int(size): BlockDataModule(
            source.path,
            size=int(size),
            taxonomy=taxonomy,
            protocol=source.protocol or "by_sequence",
            split_seed=split_seed,
            split_list=source.split_list,
        )
        for size in sorted(store.nodes["size"].unique())
    }


def _facts(data: BlockDataModule) -> dict[str, Any]:
    return {
        "dataset": data.path.resolve().name,
        "manifest_sha256": data.store.manifest_sha256,
        "split_sha256": data.split_sha256,
        "protocol": data.protocol,
        "size": data.size,
    }
