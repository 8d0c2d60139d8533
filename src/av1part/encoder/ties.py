"""Near ties: how much more the second-best type of a node costs in the encoder than the best.

costs -> nodes of the stream -> gap of each -> counts by band, beside a predictor's answers

A label whose runner-up costs 0.1 % more is hardly wrong to miss. The encoder abandons a type once
it costs more than the best so far, so that some gaps are not known, and one that it does end may
be too low where its search was cut short: gaps are what the search said, no more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from av1part.encoder.counts import COSTS_DTYPE, FOUND, MI, NOT_TRIED
from av1part.partition import SIZES, Partition
from av1part.predictors.interface import Distributions
from av1part.runs.ties import ABANDONED, ALONE, BANDS, LIMITS, RIGHT


def stream_nodes(records: NDArray[np.void]) -> NDArray[np.void]:
    """Keep the nodes that the stream of one frame has, of all that were searched.

    Args:
        records: Of `read_costs`, of one frame.

    Returns:
        The last record of each node whose ancestors were all split, from large to small.
    """
    found = records[(records["flags"] & FOUND) > 0]
    last = {
        (int(r["mi_row"]), int(r["mi_col"]), int(r["size_log2"])): i for i, r in enumerate(found)
    }
    level = [key for key, i in last.items() if found[i]["depth"] == 0]
    kept: list[int] = []
    while level:
        own = [last[key] for key in level]
        kept += own
        level = [
            child
            for i in own
            if found[i]["chosen"] == Partition.SPLIT
            for child in _children(found[i])
            if child in last
        ]
    nodes: NDArray[np.void] = found[kept]
    return nodes


def _children(record: np.void) -> list[tuple[int, int, int]]:
    row, col, size_log2 = (int(record[name]) for name in ("mi_row", "mi_col", "size_log2"))
    half = (1 << size_log2) // 2 // MI
    return [(row + i * half, col + j * half, size_log2 - 1) for i in (0, 1) for j in (0, 1)]


def best_two(records: NDArray[np.void]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return what the chosen type of each node costs, and the cheapest other one.

    Args:
        records: Of `COSTS_DTYPE` `[nodes]`.

    Returns:
        Float64 `[nodes]` each; infinity where no other type has a cost.
    """
    nodes = np.arange(len(records))
    cost = records["cost"].astype(np.float64)
    cost[records["cost"] == NOT_TRIED] = np.inf
    best = cost[nodes, records["chosen"]]
    cost[nodes, records["chosen"]] = np.inf
    return best, cost.min(1, initial=np.inf)


def gaps(records: NDArray[np.void]) -> NDArray[np.float64]:
    """Compute how much more the cheapest other type costs than the chosen one.

    Args:
        records: Of `COSTS_DTYPE` `[nodes]`.

    Returns:
        Float64 `[nodes]`, a fraction of the chosen type's cost; infinity where others were tried
        and abandoned, NaN where none was tried.
    """
    best, second = best_two(records)
    gap: NDArray[np.float64] = second / best - 1
    chosen = 1 << records["chosen"].astype(np.int64)
    alone = (records["tried"] & ~chosen) == 0
    gap[alone & np.isinf(gap)] = np.nan
    return gap


def bands(gap: NDArray[np.float64]) -> NDArray[np.str_]:
    """Name the band of each gap, one of `BANDS`."""
    index = np.searchsorted(LIMITS, gap, side="right")
    index[np.isinf(gap)] = BANDS.index(ABANDONED)
    index[np.isnan(gap)] = BANDS.index(ALONE)
    return np.array(BANDS)[index]


def count_ties(
    records: NDArray[np.void], shape: tuple[int, int], answers: Mapping[str, Distributions]
) -> list[dict[str, Any]]:
    """Count the stream's nodes by size and band, and predictors' right answers among them.

    Args:
        records: Of `read_costs`, of one frame.
        shape: Height and width of the frame; only nodes that lie wholly inside count.
        answers: Predictor to its distributions of the same frame and quantiser.

    Returns:
        Rows with `size`, `band`, `nodes` and `right_NAME`, the last of sizes that all predictors
        have; a size without nodes has none.

    Raises:
        ValueError: if a predictor lacks a size that has nodes.
    """
    if records.dtype != COSTS_DTYPE or len(np.unique(records["frame"])) > 1:
        raise ValueError("give the records of one frame")
    nodes = stream_nodes(records)
    size = 1 << nodes["size_log2"].astype(np.int64)
    row, col = (nodes[name].astype(np.int64) * MI for name in ("mi_row", "mi_col"))
    inside = (row + size <= shape[0]) & (col + size <= shape[1]) & np.isin(size, SIZES)
    nodes, size, row, col = nodes[inside], size[inside], row[inside], col[inside]
    columns: dict[str, Any] = {"size": size, "band": bands(gaps(nodes))}
    for name, answer in answers.items():
        right = np.zeros(len(nodes), np.int64)
        for side in np.unique(size).tolist():
            if side not in answer:
                raise ValueError(f"{name} has no nodes of {side}x{side}")
            own = size == side
            first = answer[side].argmax(-1)[row[own] // side, col[own] // side]
            right[own] = first == nodes["chosen"][own]
        columns[RIGHT + name] = right
    counts = [pl.len().cast(pl.Int64).alias("nodes"), *(pl.sum(RIGHT + n) for n in answers)]
    order = pl.col("band").cast(pl.Enum(BANDS))
    table = pl.DataFrame(columns).group_by("size", "band").agg(counts)
    return table.sort("size", order).to_dicts()
