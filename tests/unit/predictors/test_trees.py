"""Boosted trees as a predictor: AV1's types, whole nodes, and better than the prior."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from av1part import embedded
from av1part.data.store.store import Store
from av1part.partition import Partition, legal_partitions
from av1part.predictors.fitted import ClassPrior
from av1part.predictors.interface import TYPES, Domain
from av1part.predictors.trees import BoostedTrees, Nodes

from .small import small_boosting

pytest.importorskip("lightgbm")


def nodes_of(store: Store, names: list[str]) -> Nodes:
    table = store.nodes.with_row_index("node").filter(pl.col("sequence").is_in(names))
    return {
        int(size): group["node"].to_numpy().astype(np.int64)
        for (size,), group in table.group_by("size")
    }


@pytest.fixture(scope="module")
def store() -> Store:
    return Store.open(embedded.STORE)


@pytest.fixture(scope="module")
def trees(store: Store) -> BoostedTrees:
    names = [name for name in store.sequences if name not in ("brick", "chelsea")]
    train, val = nodes_of(store, names), nodes_of(store, ["brick"])
    few = small_boosting(iterations=40, leaf_nodes=40, leaves=6, learning_rate=0.1)
    return BoostedTrees.fit(store, train, val, few)


def test_every_whole_node_has_a_distribution_over_its_sizes_types(
    store: Store, trees: BoostedTrees
) -> None:
    plane = store.plane("chelsea")[0][:200, :150]
    found = trees.predict(plane, 8, 128)
    assert trees.domain == Domain((8, 16, 32, 64), (80, 220), (8,), one_to_four=False)
    assert set(found) == {8, 16, 32, 64}
    for size, probabilities in found.items():
        assert probabilities.shape == (200 // size, 150 // size, TYPES)
        assert probabilities.dtype == np.float32
        assert np.allclose(probabilities.sum(-1), 1, atol=1e-5)
        legal = legal_partitions(size, one_to_four=False)
        assert (probabilities[..., legal] > 0).all()
        assert not probabilities[..., [t for t in Partition if t not in legal]].any()
    assert trees.predict(plane[:7], 8, 128) == {}
    assert set(trees.predict(plane[:40, :20], 8, 128)) == {8, 16}


def test_they_beat_the_prior_on_another_picture(store: Store, trees: BoostedTrees) -> None:
    prior = ClassPrior.fit(store, store.nodes.filter(pl.col("sequence") != "chelsea"))
    plane = store.plane("chelsea")[0]
    for size in (8, 16, 32):
        own = store.nodes.filter(sequence="chelsea", size=size, qindex=128)
        at = own["row"].to_numpy() // size, own["col"].to_numpy() // size, own["partition"]
        losses = [-np.log(p.predict(plane, 8, 128)[size][at]).mean() for p in (trees, prior)]
        assert losses[0] < losses[1] - 0.02, size


def test_ten_bits_of_the_same_picture_are_the_same(store: Store, trees: BoostedTrees) -> None:
    plane = store.plane("chelsea")[0][:128, :128]
    eight = trees.predict(plane, 8, 172)
    ten = trees.predict(plane.astype(np.uint16) * 4, 10, 172)
    assert all((eight[size] == ten[size]).all() for size in eight)


def test_one_to_four_types_are_known_where_the_data_has_them(one_to_four_store: Path) -> None:
    store = Store.open(one_to_four_store)
    nodes = nodes_of(store, list(store.sequences))
    trees = BoostedTrees.fit(store, nodes, nodes, small_boosting(iterations=3))
    assert trees.domain.one_to_four
    found = trees.predict(store.plane(store.sequences[0])[0], 8, 128)
    assert all((p[..., Partition.HORZ_4] > 0).all() == (size > 8) for size, p in found.items())
