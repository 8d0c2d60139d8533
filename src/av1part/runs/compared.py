"""The folder of `av1part compare`: what predictors score on the same nodes of the same pictures.

    scores.json       all scores with their intervals, what was scored, and by which predictors
    pictures.parquet  sums over the nodes of each picture, qindex, predictor and size

Every score follows from pictures.parquet (`scores_of`), which holds no samples and no predictions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from av1part.metrics.scores import DIGITS
from av1part.runs.compared_scores import PICTURE_SCHEMA, scores_of
from av1part.runs.fields import Fields
from av1part.system.errors import ReportError, first_line
from av1part.system.files import atomic_path, write_json
from av1part.system.formats import refusal

SCORES_FILE = "scores.json"
PICTURES_FILE = "pictures.parquet"
FORMAT = 1
"""Version of both files."""

BASE, ADAPTED = "base", "adapted"
"""Names of both predictors in a folder of `av1part adapt`, whose record has `adapting`."""

REMEDY = "restore it, or compare again"

_DRAWN = ("low", "high")
"""Keys of limits, which depend on drawn resamples: another numpy may draw others."""


@dataclass(frozen=True)
class Compared:
    """What a folder of `av1part compare` holds.

    Attributes:
        folder: The folder.
        record: scores.json.
        table: pictures.parquet, columns of `PICTURE_SCHEMA`.
    """

    folder: Path
    record: Fields
    table: pl.DataFrame

    @property
    def predictors(self) -> tuple[str, ...]:
        """Names of the predictors, in their order."""
        return tuple(self.record.children("predictors"))

    @property
    def against(self) -> str:
        """The predictor that the others are compared with."""
        return self.record.text("against")


def write_compared(folder: Path, record: Mapping[str, Any], table: pl.DataFrame) -> None:
    """Write both files.

    Args:
        folder: An existing folder.
        record: scores.json without the scores; `against` among it.
        table: Columns of `PICTURE_SCHEMA`.
    """
    with atomic_path(folder / PICTURES_FILE) as part:
        table.write_parquet(part)
    write_json(folder / SCORES_FILE, {**record, **scores_of(table, record["against"])})


def is_compared(folder: Path) -> bool:
    """Return whether a folder is that of `av1part compare`."""
    return (folder / SCORES_FILE).is_file() and (folder / PICTURES_FILE).is_file()


def read_compared(folder: Path) -> Compared:
    """Read a folder, and compute its scores again from the sums of its pictures.

    Args:
        folder: The folder.

    Returns:
        What it holds.

    Raises:
        ReportError: if a file is missing, damaged or of another format, or both contradict each
            other.
    """
    record = Fields.read(folder / SCORES_FILE)
    version = record.get("format")
    if version != FORMAT:
        wrote = record.get("av1part")
        raise ReportError(refusal(str(record.file), version, FORMAT, wrote, REMEDY))
    file = folder / PICTURES_FILE
    try:
        with file.open("rb") as handle:
            table = pl.read_parquet(handle)
    except FileNotFoundError:
        raise ReportError(f"{file} is missing: {REMEDY}") from None
    # A panic of polars on a damaged file is no subclass of Exception.
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise ReportError(f"{file} cannot be read ({first_line(error)}): {REMEDY}") from None
    if dict(table.schema) != dict(PICTURE_SCHEMA) or table.is_empty():
        raise ReportError(f"{file} does not have the columns of such a file: {REMEDY}")
    try:
        computed = scores_of(table, record.text("against"))
    except (ArithmeticError, IndexError, LookupError, TypeError, ValueError) as error:
        raise ReportError(f"{file} holds no sums ({first_line(error)}): {REMEDY}") from None
    held = {key: value for key in ("sizes", "stage2") if (value := record.get(key)) is not None}
    if key := _difference(held, computed):
        raise ReportError(f"{file} and {SCORES_FILE} contradict each other ({key}): {REMEDY}")
    return Compared(folder, record, table)


def _difference(held: Any, computed: Any, key: str = "") -> str | None:
    """Return the key of the first value that is not what was computed, None if all are."""
    prefix = f"{key}." if key else ""
    if isinstance(computed, Mapping):
        if not isinstance(held, Mapping) or held.keys() != computed.keys():
            return key or "scores"
        children: Iterable[tuple[Any, Any, str]] = (
            (held[name], value, f"{prefix}{name}")
            for name, value in computed.items()
            if name not in _DRAWN
        )
    elif isinstance(computed, list):
        if not isinstance(held, list) or len(held) != len(computed):
            return key
        pairs = zip(held, computed, strict=True)
        children = ((one, other, f"{prefix}{i}") for i, (one, other) in enumerate(pairs))
    else:
        return None if _same(held, computed) else key
    return next((found for child in children if (found := _difference(*child))), None)


def _same(held: Any, value: Any) -> bool:
    if isinstance(value, float) and type(held) in (int, float):
        return bool(abs(held - value) <= 10**-DIGITS)
    return type(held) is type(value) and bool(held == value)
