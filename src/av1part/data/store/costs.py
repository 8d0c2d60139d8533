"""A file of costs: what losing a node's type would cost the encoder, a row a node of a dataset.

`encoder.regrets` computes them, `data.serve` weighs training nodes by them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from av1part.data.store.schema import NODE_KEY, NODE_SCHEMA, read_table
from av1part.data.store.store import Store
from av1part.system.errors import StoreError
from av1part.system.files import atomic_path

COSTS_SCHEMA: Mapping[str, Any] = {
    **{name: NODE_SCHEMA[name] for name in NODE_KEY},
    "regret": pl.Float32,
    "dataset": pl.String,
}
"""Columns of the file: a node's key; its regret, null where it is not known, as a share of the
frame's cost; and the SHA-256 of the dataset's manifest, which any version of polars can read from a
column but not from a file's metadata."""


def write_costs(path: Path, regrets: pl.DataFrame, manifest_sha256: str) -> None:
    """Write a file of costs atomically.

    Args:
        path: The file.
        regrets: Columns of `NODE_KEY`, and `regret`.
        manifest_sha256: Of the dataset.
    """
    table = regrets.with_columns(dataset=pl.lit(manifest_sha256))
    table = table.select(pl.col(name).cast(kind) for name, kind in COSTS_SCHEMA.items())
    with atomic_path(path) as part:
        table.write_parquet(part, compression="zstd")


def read_regrets(path: Path, store: Store, nodes: NDArray[np.int64]) -> NDArray[np.float32]:
    """Read the regrets of nodes of a dataset.

    Args:
        path: The file.
        store: The dataset.
        nodes: Node numbers.

    Returns:
        Float32 (n,), NaN where the file knows none.

    Raises:
        StoreError: if the file cannot be read, is of another dataset, or lacks a node.
    """
    table = _read(path, len(store.nodes))
    again = f"make it with `av1part data costs {store.path} SOURCE... out=FILE`"
    if (table["dataset"] != store.manifest_sha256).any():
        raise StoreError(f"{path} has the costs of another dataset than {store.path}: {again}")
    wanted = store.nodes.select(NODE_KEY)[nodes]
    found = wanted.join(
        table.with_columns(there=True), on=NODE_KEY, how="left", maintain_order="left"
    )
    missing = found.filter(pl.col("there").is_null())
    if missing.height:
        names = missing["sequence"].unique().sort().to_list()
        raise StoreError(
            f"{path} lacks {missing.height:,} of {len(nodes):,} training nodes, of "
            f"{len(names)} sequences, {names[0]} the first: {again} from the sources of all "
            "sequences that are trained on"
        )
    regret: NDArray[np.float32] = found["regret"].fill_null(np.nan).to_numpy()
    return regret


def _read(path: Path, most: int) -> pl.DataFrame:
    """Read and check the table.

    Raises:
        StoreError: if it is no such file, or has a value that none can have.
    """
    table = read_table(path, COSTS_SCHEMA, most, f"its dataset {most}: make it again")
    regret = table["regret"]
    valid = not table.select(pl.exclude("regret")).null_count().sum_horizontal().item()
    valid &= bool((regret.drop_nulls().is_finite() & (regret.drop_nulls() >= 0)).all())
    if not valid or table.select(NODE_KEY).is_duplicated().any():
        raise StoreError(
            f"{path} has an empty cell, a node twice or a regret that is not finite and at least 0"
        )
    return table
