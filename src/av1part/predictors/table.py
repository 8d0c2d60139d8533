"""Predictions of a source as a Parquet file, written a frame at a time.

Columns: sequence, frame, row, col, size, qindex as in a dataset's nodes.parquet, and p0 to p9,
float32, the probabilities of AV1's types. Rows are in the order of frame, qindex, size, row, col.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import polars as pl

from av1part.data.store.schema import NODE_SCHEMA
from av1part.predictors.interface import TYPES, Distributions
from av1part.system.files import atomic_path

PROBABILITIES = tuple(f"p{i}" for i in range(TYPES))
"""Names of the columns of probabilities, in the order of AV1's ids."""

TABLE_SCHEMA: dict[str, Any] = {
    **{name: type_ for name, type_ in NODE_SCHEMA.items() if name != "partition"},
    **dict.fromkeys(PROBABILITIES, pl.Float32),
}
"""Columns of a table of predictions."""


def to_table(
    distributions: Distributions, *, sequence: str, frame: int, qindex: int
) -> pl.DataFrame:
    """Return the predictions of a frame at a qindex, a row a node."""
    parts = []
    for size, probabilities in sorted(distributions.items()):
        rows, cols, _ = probabilities.shape
        row, col = np.mgrid[:rows, :cols] * size
        columns: dict[str, Any] = {
            "frame": np.full(rows * cols, frame),
            "row": row.ravel(),
            "col": col.ravel(),
            "size": np.full(rows * cols, size),
            "qindex": np.full(rows * cols, qindex),
        }
        flat = probabilities.reshape(-1, TYPES)
        columns |= {name: flat[:, i] for i, name in enumerate(PROBABILITIES)}
        table = pl.DataFrame(columns).with_columns(sequence=pl.lit(sequence, pl.String))
        parts.append(table.select(pl.col(k).cast(v) for k, v in TABLE_SCHEMA.items()))
    return pl.concat(parts) if parts else pl.DataFrame(schema=TABLE_SCHEMA)


class TableWriter:
    """Writes a table frame by frame, with one frame in memory; use as a context."""

    def __init__(self, path: Path) -> None:
        """Begin a table that gets its name when the block ends without an error."""
        self.path = path
        self._parts: list[Path] = []

    def __enter__(self) -> TableWriter:
        self._folder = tempfile.TemporaryDirectory(dir=self.path.parent)
        return self

    def add(self, table: pl.DataFrame) -> None:
        """Append rows."""
        part = Path(self._folder.name) / f"{len(self._parts):08d}.parquet"
        table.write_parquet(part)
        self._parts.append(part)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._folder:
            if kind is None:
                rows = pl.scan_parquet(self._parts, schema=TABLE_SCHEMA, glob=False)
                with atomic_path(self.path) as part:
                    rows.sink_parquet(part, maintain_order=True)
