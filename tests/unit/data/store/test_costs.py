"""A file of costs: read for the nodes of its dataset, and for no others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from av1part.data.store.costs import read_regrets, write_costs
from av1part.data.store.schema import NODE_KEY
from av1part.data.store.store import Store
from av1part.system.errors import StoreError


@pytest.fixture
def store(one_to_four_store: Path) -> Store:
    return Store.open(one_to_four_store)


def regrets(store: Store) -> pl.DataFrame:
    """The node's number as its regret, every seventh unknown."""
    number = np.arange(store.nodes.height)
    values = pl.Series([None if i % 7 == 0 else float(i) for i in number], dtype=pl.Float32)
    return store.nodes.select(NODE_KEY).with_columns(regret=values)


def test_each_node_gets_its_own(store: Store, tmp_path: Path) -> None:
    shuffled = regrets(store).sample(fraction=1, shuffle=True, seed=1)
    write_costs(tmp_path / "c.parquet", shuffled, store.manifest_sha256)
    nodes = np.random.default_rng(0).permutation(store.nodes.height)[:500]
    expected = np.where(nodes % 7 == 0, np.nan, nodes)
    found = read_regrets(tmp_path / "c.parquet", store, nodes)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


def test_what_does_not_fit_is_refused(store: Store, tmp_path: Path) -> None:
    file, table = tmp_path / "c.parquet", regrets(store)
    every = np.arange(store.nodes.height)

    def refused(made: pl.DataFrame, reason: str, dataset: str = store.manifest_sha256) -> None:
        write_costs(file, made, dataset)
        with pytest.raises(StoreError, match=reason) as error:
            read_regrets(file, store, every)
        assert str(file) in str(error.value)

    refused(table, "costs of another dataset .*av1part data costs", "0" * 64)
    first = store.sequences[0]
    count = store.nodes.filter(sequence=first).height
    lacking = table.filter(pl.col("sequence") != first)
    refused(lacking, f"lacks {count:,} of .* 1 sequences, {first} the first.*av1part data costs")
    refused(pl.concat([table[:1], table[:-1]]), "a node twice")
    refused(pl.concat([table, table[:1]]), f"has {len(table) + 1} nodes, its dataset {len(table)}")
    for wrong in (-1.0, float("inf"), float("nan")):
        refused(table.with_columns(regret=pl.lit(wrong, pl.Float32)), "not finite")
    # Rows of nodes that are not asked for may be missing.
    write_costs(file, lacking, store.manifest_sha256)
    others = np.flatnonzero((store.nodes["sequence"] != first).to_numpy())
    assert len(read_regrets(file, store, others)) == len(others)


def test_another_file_is_refused(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "c.parquet"
    with pytest.raises(StoreError, match=r"not a readable Parquet file .*No such file"):
        read_regrets(file, store, np.arange(3))
    file.write_bytes(b"PAR1 or not")
    with pytest.raises(StoreError, match="not a readable Parquet"):
        read_regrets(file, store, np.arange(3))
    store.nodes.write_parquet(file)
    with pytest.raises(StoreError, match=r"has columns .*, not .*regret"):
        read_regrets(file, store, np.arange(3))
