"""What the patched encoder writes of its partition search: counts as JSON, costs as records.

docs/encoder.md describes both files for other tools.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from av1part.partition import Partition
from av1part.system.errors import HintsError
from av1part.system.files import load_json

VERSION = 1
MI = 4
"""Luma samples of a unit of position."""
TYPES = len(Partition)

CALLS_SCHEMA = {
    "width": pl.Int32,
    "height": pl.Int32,
    "partition": pl.Int8,
    "calls": pl.Int64,
    "samples": pl.Int64,
}
"""A row a size and type: how often the leaf search was called, on how many luma samples."""

COSTS_MAGIC = b"A1PC\1\0\0\0"
NOT_TRIED = np.iinfo(np.int64).max
"""Cost of a type that was not tried, or was abandoned when it cost more than the best one."""

COSTS_DTYPE = np.dtype(
    [
        ("frame", "<u4"),
        ("mi_row", "<u2"),  # in units of `MI`
        ("mi_col", "<u2"),
        ("size_log2", "u1"),
        ("depth", "u1"),  # below the superblock
        ("above_log2", "u1"),  # width of the block above, 0: none
        ("left_log2", "u1"),  # height of the block to the left, 0: none
        ("chosen", "u1"),
        ("flags", "u1"),
        ("tried", "<u2"),  # a bit a type
        ("cost", "<i8", TYPES),
    ]
)
FOUND, RETRIED, HINTED = 1, 2, 4
"""Bits of `flags`: a type was found; the search was repeated without limits; a hint acted."""


@dataclass(frozen=True)
class Counts:
    """Calls of the leaf search in an encode.

    Attributes:
        calls: Table of `CALLS_SCHEMA`.
    """

    calls: pl.DataFrame

    @property
    def work(self) -> int:
        """Luma samples over all calls: the same in every run of the same encode."""
        return int(self.calls["samples"].sum())


def read_counts(path: Path) -> Counts:
    """Read a file of counts.

    Args:
        path: The file.

    Returns:
        Its table.

    Raises:
        HintsError: if it cannot be read, or holds anything else.
    """
    try:
        record = load_json(path)
    except OSError as error:
        raise HintsError(f"{path} cannot be read ({error.strerror})") from None
    except ValueError:
        raise HintsError(f"{path} is not a file of counts: encode again") from None
    if not isinstance(record, dict) or not isinstance(record.get("calls"), list):
        raise HintsError(f"{path} is not a file of counts: encode again")
    if record.get("version") != VERSION:
        raise HintsError(f"{path} has counts of another version than {VERSION}: encode again")
    rows = record["calls"]
    if not all(_is_count(row) for row in rows):
        raise HintsError(f"{path} has a count that is not valid: encode again")
    return Counts(pl.DataFrame(rows, CALLS_SCHEMA, orient="row"))


def _is_count(row: Any) -> bool:
    if not isinstance(row, dict) or row.keys() != CALLS_SCHEMA.keys():
        return False
    if any(type(number) is not int for number in row.values()):
        return False
    sides = {4 << k for k in range(6)}
    return (
        {row["width"], row["height"]} <= sides
        and 0 <= row["partition"] < TYPES
        and 0 < row["calls"] < 1 << 48
        and row["samples"] == row["calls"] * row["width"] * row["height"]
    )


def read_costs(path: Path) -> NDArray[np.void]:
    """Read a file of costs.

    Args:
        path: The file.

    Returns:
        `COSTS_DTYPE` `[nodes]`, in the order in which the searches of the nodes ended.

    Raises:
        HintsError: if it cannot be read, or holds anything else.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            magic = file.read(len(COSTS_MAGIC))
            whole = (size - len(COSTS_MAGIC)) % COSTS_DTYPE.itemsize == 0
            if magic != COSTS_MAGIC or not whole:
                raise HintsError(f"{path} is not a whole file of costs: encode again")
            records: NDArray[np.void] = np.fromfile(file, COSTS_DTYPE)
    except OSError as error:
        raise HintsError(f"{path} cannot be read ({error.strerror})") from None
    size_log2 = records["size_log2"].astype(np.int32)
    off_grid = ((records["mi_row"] | records["mi_col"]) << 2) & ((1 << size_log2) - 1)
    valid = (size_log2 >= 2) & (size_log2 <= 7) & (off_grid == 0) & (records["depth"] <= 5)
    valid &= (records["chosen"] < TYPES) & (records["flags"] < 8) & (records["tried"] < 1 << TYPES)
    valid &= (records["above_log2"] <= 7) & (records["left_log2"] <= 7)
    if not valid.all():
        raise HintsError(f"{path} has a record that is not valid: encode again")
    return records


def costs_table(records: NDArray[np.void]) -> pl.DataFrame:
    """Return costs as a table that can be written as parquet.

    Args:
        records: From `read_costs`.

    Returns:
        Columns frame, row, col, size, depth, above, left (luma samples; 0 where there is no
        neighbour), chosen, found, retried, hinted, tried, and c0 to c9, null for types without a
        cost.
    """
    sides = {name: records[f"{name}_log2"] for name in ("size", "above", "left")}
    columns: dict[str, Any] = {
        "frame": records["frame"],
        "row": records["mi_row"].astype(np.int32) * MI,
        "col": records["mi_col"].astype(np.int32) * MI,
        **{k: np.where(v > 0, 1 << v.astype(np.int32), 0) for k, v in sides.items()},
        "depth": records["depth"],
        "chosen": records["chosen"],
        "found": (records["flags"] & FOUND) > 0,
        "retried": (records["flags"] & RETRIED) > 0,
        "hinted": (records["flags"] & HINTED) > 0,
        "tried": records["tried"],
        **{f"c{k}": records["cost"][:, k] for k in range(TYPES)},
    }
    costs = [pl.col(f"c{k}").replace(NOT_TRIED, None) for k in range(TYPES)]
    return pl.DataFrame(columns).with_columns(costs)
