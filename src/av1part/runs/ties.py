"""ties.csv: how far the encoder's second choice is from its first, and who was right there.

A row a picture, qindex, node size and band of the gap, with counts of nodes: `nodes`, and for each
predictor `right_NAME`, of those whose type it predicted.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from av1part.system.errors import ReportError

TIES_FILE = "ties.csv"

LIMITS = (0.001, 0.005, 0.01, 0.02)
"""Gaps, as fractions of the cost of the best type, that end a band."""

CLEAR, ABANDONED, ALONE = "clear", "abandoned", "alone"
BANDS = (*(f"{100 * limit:g}" for limit in LIMITS), CLEAR, ABANDONED, ALONE)
"""A gap below so many percent and not below the limit before; no such gap; every other type was
abandoned once it cost more, so that the gap is not known; no other type was tried."""

RIGHT = "right_"
_KEY = ("picture", "qindex", "size", "band")


def read_ties(file: Path) -> pl.DataFrame:
    """Read the file.

    Args:
        file: The file.

    Returns:
        Its rows.

    Raises:
        ReportError: if it is not of this form.
    """
    try:
        # A picture may be called by a number.
        rows = pl.read_csv(file, schema_overrides={"picture": pl.String, "band": pl.String})
    except (pl.exceptions.PolarsError, OSError) as error:
        raise ReportError(f"{file} is no CSV ({str(error).splitlines()[0]})") from None
    counts = [name for name in rows.columns if name not in _KEY]
    named = counts[:1] == ["nodes"] and all(name.startswith(RIGHT) for name in counts[1:])
    whole = named and all(rows.schema[n] == pl.Int64 for n in ("qindex", "size", *counts))
    if not whole or rows.columns[:4] != list(_KEY) or not set(rows["band"]) <= set(BANDS):
        raise ReportError(f"{file} needs {', '.join(_KEY)}, nodes and counts {RIGHT}NAME")
    if rows.is_empty() or rows.select(_KEY).is_duplicated().any():
        raise ReportError(f"{file} needs rows, each place once")
    return rows
