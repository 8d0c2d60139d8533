"""Near ties: which searched nodes are the stream's, their gaps, and whose answers were right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from av1part.encoder.counts import COSTS_DTYPE, FOUND, NOT_TRIED
from av1part.encoder.ties import bands, count_ties, gaps, stream_nodes
from av1part.partition import Partition
from av1part.report.chapters.ties import ties_tables
from av1part.runs.ties import read_ties
from av1part.system.errors import ReportError
from av1part.system.files import write_csv

NONE, HORZ, VERT, SPLIT = Partition.NONE, Partition.HORZ, Partition.VERT, Partition.SPLIT


def record(
    row: int, col: int, size: int, depth: int, costs: dict[int, int | None], chosen: int
) -> np.void:
    """Return a record at luma samples; None is a cost of a type that was abandoned."""
    made = np.zeros((), COSTS_DTYPE)
    made["mi_row"], made["mi_col"], made["size_log2"] = row // 4, col // 4, size.bit_length() - 1
    made["depth"], made["chosen"], made["flags"] = depth, chosen, FOUND
    made["tried"] = sum(1 << t for t in costs)
    made["cost"] = NOT_TRIED
    for t, cost in costs.items():
        if cost is not None:
            made["cost"][t] = cost
    return made[()]


def tree() -> np.ndarray:
    """Two superblocks of 16: one split, one not although its children were searched."""
    return np.array(
        [
            *(record(r, c, 8, 1, {NONE: 100, HORZ: 103}, NONE) for r in (0, 8) for c in (0, 8)),
            record(0, 0, 16, 0, {NONE: 500, SPLIT: 499}, SPLIT),
            *(record(r, c, 8, 1, {NONE: 100}, NONE) for r in (0, 8) for c in (16, 24)),
            record(0, 16, 16, 0, {NONE: 900, SPLIT: 1000}, SPLIT),
            # Searched once more: this one counts.
            record(0, 16, 16, 0, {NONE: 900, SPLIT: None, VERT: None}, NONE),
        ],
        COSTS_DTYPE,
    )


def test_nodes_of_the_stream_have_ancestors_that_were_split() -> None:
    nodes = stream_nodes(tree())
    places = sorted(zip(nodes["size_log2"], nodes["mi_row"], nodes["mi_col"], strict=True))
    assert places == [(3, 0, 0), (3, 0, 2), (3, 2, 0), (3, 2, 2), (4, 0, 0), (4, 0, 4)]


def test_a_gap_is_relative_to_the_best_and_unknown_where_abandoned() -> None:
    records = np.array(
        [
            record(0, 0, 16, 0, {NONE: 1000, HORZ: 1001, VERT: 1200}, NONE),
            record(0, 0, 16, 0, {NONE: 1000, HORZ: None}, NONE),
            record(0, 0, 16, 0, {NONE: 1000}, NONE),
            record(0, 0, 16, 0, {NONE: 1100, SPLIT: 1000}, SPLIT),
        ],
        COSTS_DTYPE,
    )
    found = gaps(records)
    np.testing.assert_allclose(found, [0.001, np.inf, np.nan, 0.1], atol=1e-12)
    assert bands(np.array([0.0, 0.0009, 0.004, 0.01, 0.019, 0.02, np.inf, np.nan])).tolist() == [
        *("0.1", "0.1", "0.5", "2", "2", "clear", "abandoned", "alone")
    ]


def test_counts_join_the_answers_of_predictors() -> None:
    always_none = np.zeros((2, 4, 10), np.float32)
    always_none[..., NONE] = 1
    split = np.zeros((1, 2, 10), np.float32)
    split[..., SPLIT] = 1
    rows = count_ties(tree(), (16, 32), {"net": {8: always_none, 16: split}})
    assert rows == [
        {"size": 8, "band": "clear", "nodes": 4, "right_net": 4},
        {"size": 16, "band": "0.5", "nodes": 1, "right_net": 1},
        {"size": 16, "band": "abandoned", "nodes": 1, "right_net": 0},
    ]
    # The right half of a frame of 28 columns is not whole.
    assert sum(row["nodes"] for row in count_ties(tree(), (16, 28), {})) == 5
    with pytest.raises(ValueError, match="net has no nodes of 8x8"):
        count_ties(tree(), (16, 32), {"net": {16: split}})


def test_tables_sum_over_pictures(tmp_path: Path) -> None:
    rows = [{"picture": "1", "qindex": 80, **row} for row in count_ties(tree(), (16, 32), {})] + [
        {"picture": "2", "qindex": 80, "size": 16, "band": "0.1", "nodes": 2}
    ]
    rows = [row | {"right_net": row["nodes"] // 2} for row in rows]
    write_csv(tmp_path / "ties.csv", rows)
    tables = ties_tables(read_ties(tmp_path / "ties.csv"))
    assert tables["near-ties"].rows[1] == (
        *("16x16", "4", "50.00", "75.00", "75.00", "75.00", "0.00", "25.00", "0.00"),
    )
    assert tables["accuracy-net"].rows[1] == (
        *("16x16", "25.00", "50.00", "0.00", "–", "–", "–", "0.00", "–"),
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "picture,qindex,size,band\n",
        "picture,qindex,size,band,nodes\n",
        "picture,qindex,size,band,nodes\na,80,16,near,3\n",
        "picture,qindex,size,band,nodes\na,80,16,0.1,3.5\n",
        "picture,qindex,size,band,nodes,more\na,80,16,0.1,3,4\n",
        "picture,qindex,size,band,nodes\na,80,16,0.1,3\na,80,16,0.1,3\n",
    ],
)
def test_another_csv_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "ties.csv").write_text(text)
    with pytest.raises(ReportError, match=r"ties\.csv"):
        read_ties(tmp_path / "ties.csv")


def test_pictures_may_be_called_by_numbers(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("picture,qindex,size,band,nodes\n1025469,80,16,0.1,3\n")
    assert read_ties(tmp_path / "t.csv").schema["picture"] == pl.String
