"""Reading the tables of a run folder: confusion.csv, history.csv and predictions.parquet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from av1part.partition import Partition
from av1part.runs.fields import REMEDY
from av1part.runs.schema import (
    HISTORY_COLUMNS,
    LABEL,
    NODE_COLUMNS,
    PARTITION,
    PREDICTION,
    probability_column,
)
from av1part.system.errors import ReportError


@dataclass(frozen=True)
class Predictions:
    """The predictions of a run for the nodes it was evaluated on.

    Attributes:
        label: True class indices, int64 of shape (n,).
        prediction: Predicted class indices, int64 of shape (n,).
        probability: Of each class, float64 of shape (n, k); rows sum to 1.
        qindex: Of each node's frame, int64 of shape (n,).
        sequences: Number of pictures and clips the nodes are of.
        node: Rows of the node table, int64 of shape (n,).
        sequence: Name of each node's picture or clip, shape (n,).
    """

    label: NDArray[np.int64]
    prediction: NDArray[np.int64]
    probability: NDArray[np.float64]
    qindex: NDArray[np.int64]
    sequences: int
    node: NDArray[np.int64]
    sequence: NDArray[np.object_]

    def rows_of(self, node: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows of nodes.

        Args:
            node: Numbers of nodes, shape (m,).

        Returns:
            Rows, int64 of shape (m,), -1 where a node was not predicted.
        """
        order = np.argsort(self.node, kind="stable")
        places = np.searchsorted(self.node, node, sorter=order).clip(max=len(order) - 1)
        rows: NDArray[np.int64] = order[places]
        return np.where(self.node[rows] == node, rows, -1)


def read_confusion(file: Path, names: tuple[str, ...]) -> NDArray[np.int64]:
    """Read confusion.csv.

    Args:
        file: The file.
        names: Classes, in index order.

    Returns:
        Counts, shape (k, k), rows true, columns predicted.

    Raises:
        ReportError: if the file is missing, damaged or not of these classes.
    """
    data = _read_csv(file)
    if data.columns != ["true", *names] or data["true"].cast(pl.String).to_list() != list(names):
        raise ReportError(f"{file} does not have the rows and columns {', '.join(names)}: {REMEDY}")
    if not all(dtype.is_integer() for dtype in data.dtypes[1:]) or sum(data.null_count().row(0)):
        raise ReportError(f"{file} holds something else than counts: {REMEDY}")
    return data.drop("true").to_numpy().astype(np.int64)


_MOST_EPOCHS = 1e6


def read_history(file: Path) -> pl.DataFrame:
    """Read history.csv, as `check_history` returns it."""
    return check_history(file, _read_csv(file))


def check_history(file: Path, data: pl.DataFrame) -> pl.DataFrame:
    """Check a table of epochs.

    Args:
        file: Where it is from, for messages.
        data: The table.

    Returns:
        All of it as float64.

    Raises:
        ReportError: if a column or all rows are missing, one holds text, or the epochs are not
            whole numbers in ascending order.
    """
    missing = set(HISTORY_COLUMNS) - set(data.columns)
    if missing or not data.height:
        lacks = ", ".join(sorted(missing)) or "its epochs"
        raise ReportError(f"{file} lacks {lacks}: {REMEDY}")
    text = [c for c, t in data.schema.items() if not t.is_numeric() and t != pl.Null]
    if text:
        raise ReportError(f"{file} holds text in column {text[0]}: {REMEDY}")
    data = data.with_columns(pl.all().cast(pl.Float64))
    epochs = data["epoch"].to_numpy()
    ascending = (np.diff(epochs, prepend=0) >= 0).all() and (epochs % 1 == 0).all()
    if not ascending or epochs[-1] > _MOST_EPOCHS:
        raise ReportError(f"{file} has epochs that do not ascend from 0: {REMEDY}")
    return data


def by_epoch(history: pl.DataFrame, column: str) -> NDArray[np.float64]:
    """Return a column of history.csv as known after each epoch, shape (epochs,).

    An epoch may have several rows, of which the last counts, or none: then the row before it
    holds on, and the first row stands for the epochs before it.
    """
    last = history.group_by("epoch", maintain_order=True).last()
    epochs = pl.DataFrame({"epoch": np.arange(last["epoch"][-1] + 1)})
    known = epochs.join(last, on="epoch", how="left", maintain_order="left")[column]
    return known.fill_null(strategy="forward").fill_null(strategy="backward").to_numpy()


def read_predictions(file: Path, names: tuple[str, ...], are_ids: bool) -> Predictions:
    """Read predictions.parquet.

    Args:
        file: The file.
        names: Classes, in index order.
        are_ids: Whether classes are written as partition ids, as a cascade does, or as indices.

    Returns:
        The predictions, as class indices.

    Raises:
        ReportError: if the file is missing, damaged or not of these classes.
    """
    if not file.is_file():
        raise ReportError(f"{file} is missing: {REMEDY}")
    try:
        data = pl.read_parquet(file)
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ReportError(f"{file} is not readable Parquet ({reason}): {REMEDY}") from None
    truth = PARTITION if are_ids else LABEL
    shares = [probability_column(name) for name in names]
    columns = [*NODE_COLUMNS, truth, PREDICTION, *shares]
    missing = [c for c in columns if c not in data.columns]
    if missing or not data.height or sum(data.null_count().row(0)):
        lacks = f"column {missing[0]}" if missing else "rows or has empty cells"
        raise ReportError(f"{file} lacks {lacks}: {REMEDY}")
    codes = [Partition[n] for n in names] if are_ids else list(range(len(names)))
    index = {code: i for i, code in enumerate(codes)}
    unknown = set(data[truth].unique()) | set(data[PREDICTION].unique())
    if not unknown <= set(index):
        raise ReportError(f"{file} has a class that is none of {', '.join(names)}: {REMEDY}")
    to_index = {
        c: data[c].replace_strict(index, return_dtype=pl.Int64).to_numpy()
        for c in (truth, PREDICTION)
    }
    probability = data.select(shares).cast(pl.Float64).to_numpy()
    if not np.allclose(probability.sum(1), 1, atol=1e-3):
        raise ReportError(f"{file} has probabilities that do not sum to 1: {REMEDY}")
    return Predictions(
        label=to_index[truth],
        prediction=to_index[PREDICTION],
        probability=probability,
        qindex=data["qindex"].cast(pl.Int64).to_numpy(),
        sequences=data["sequence"].n_unique(),
        node=data["node"].cast(pl.Int64).to_numpy(),
        sequence=data["sequence"].to_numpy(),
    )


def _read_csv(file: Path) -> pl.DataFrame:
    if not file.is_file():
        raise ReportError(f"{file} is missing: {REMEDY}")
    try:
        return pl.read_csv(file, infer_schema_length=None)
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ReportError(f"{file} is not readable CSV ({reason}): {REMEDY}") from None
