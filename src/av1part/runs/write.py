"""Writing a run folder, so that a report needs neither dataset nor model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from av1part.runs.schema import (
    CONFUSION_FILE,
    ENVIRONMENT_FILE,
    METRICS_FILE,
    METRICS_FORMAT,
    NODE_COLUMNS,
    PIPELINE_FILE,
    PREDICTIONS_FILE,
    TIMING_FILE,
    probability_column,
)
from av1part.system.environment import git_commit, hardware, versions
from av1part.system.files import atomic_path, write_csv, write_json


def write_confusion(folder: Path, names: Sequence[str], matrix: ArrayLike) -> None:
    """Write confusion.csv: a row a true class, a column a predicted one."""
    counts = np.asarray(matrix).tolist()
    rows = [
        {"true": name, **dict(zip(names, row, strict=True))}
        for name, row in zip(names, counts, strict=True)
    ]
    write_csv(folder / CONFUSION_FILE, rows)


def write_predictions(
    folder: Path,
    nodes: pl.DataFrame,
    columns: Mapping[str, NDArray[Any]],
    names: Sequence[str],
    probabilities: NDArray[Any],
) -> None:
    """Write predictions.parquet.

    Args:
        folder: Run folder.
        nodes: `NODE_COLUMNS` of the nodes, in the order of the arrays.
        columns: `PREDICTION` and, of a stage, `LABEL`, of a cascade, `PARTITION`.
        names: Classes of the probabilities.
        probabilities: Shape (n, k), stored as float32.
    """
    shares = {
        probability_column(name): probabilities[:, i].astype(np.float32)
        for i, name in enumerate(names)
    }
    table = nodes.select(NODE_COLUMNS).with_columns(
        **{k: pl.Series(v) for k, v in {**columns, **shares}.items()}
    )
    with atomic_path(folder / PREDICTIONS_FILE) as part:
        table.write_parquet(part, compression="zstd")


def write_metrics(folder: Path, scores: Mapping[str, Any]) -> None:
    """Write metrics.json, the last file of a run: a folder that has it is complete."""
    write_json(folder / METRICS_FILE, {"format": METRICS_FORMAT, **scores})


def write_timing(folder: Path, timing: Mapping[str, Any]) -> None:
    """Write timing.json: seconds, blocks a second and, of a training, peak memory."""
    write_json(folder / TIMING_FILE, timing)


def write_pipeline(folder: Path, report: Mapping[str, Any]) -> None:
    """Write pipeline.json, a cascade's analysis."""
    write_json(folder / PIPELINE_FILE, report)


def write_environment(folder: Path, *, seed: int | None, dataset: Mapping[str, Any]) -> None:
    """Write environment.json: versions, commit, seed, dataset and hardware."""
    write_json(
        folder / ENVIRONMENT_FILE,
        {
            "versions": versions(),
            "git_commit": git_commit(),
            "seed": seed,
            "dataset": dict(dataset),
            "hardware": hardware(),
        },
    )
