"""Scores of predictors from their sums over the nodes of each picture: what scores.json holds.

Shapes: p rows of the table, g pictures, w sums, k classes of Stage 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from av1part.metrics.calibration import reliability_of
from av1part.metrics.distributions import SCORES, SUMS, part_of
from av1part.metrics.intervals import METRICS, Bootstrap
from av1part.metrics.paired import PairedDifference, Resampled, Score, compare_with
from av1part.metrics.scores import best_constant, constant_confusion, f1_from_confusion, figure
from av1part.partition import Partition, taxonomy

STAGE2_SIZE = 16
"""Node size whose distributions are scored as a Stage 2."""

STAGE2 = taxonomy("v6").at(STAGE2_SIZE).stage("stage2")
"""SPLIT, RECT and AB, among the nodes that are one of these."""

DECISIONS = ("argmax", "weighted")
"""How a class of Stage 2 is chosen: the most probable one, or with fitted class weights."""

_FLOATS = ("log_loss", "bin_confidence")

PICTURE_SCHEMA: Mapping[str, Any] = {
    "picture": pl.String,
    "qindex": pl.Int16,
    "predictor": pl.String,
    "size": pl.Int16,
    "removed": pl.Float64,
    **{
        name: dtype if not shape else pl.List(dtype)
        for name, shape in SUMS.items()
        for dtype in (pl.Float64 if name in _FLOATS else pl.Int64,)
    },
    **{f"stage2_{decision}": pl.List(pl.Int64) for decision in DECISIONS},
}
"""Columns of pictures.parquet: `removed` is the sum of the probabilities of types that were left
out; those of `SUMS`; and confusion matrices of Stage 2, row by row, at its size alone."""


def scores_of(
    table: pl.DataFrame, against: str, bootstrap: Bootstrap | None = None
) -> dict[str, Any]:
    """Compute all scores.

    Args:
        table: Columns of `PICTURE_SCHEMA`, of at least one node a row.
        against: The predictor that the others are compared with.
        bootstrap: How pictures are resampled.

    Returns:
        `sizes`: by node size, and `stage2` where its size has a node of its classes.
    """
    bootstrap = bootstrap or Bootstrap()
    sizes = {
        str(size): _size_scores(rows, against, bootstrap)
        for (size,), rows in table.sort("size", maintain_order=True).group_by(
            "size", maintain_order=True
        )
    }
    rows = table.filter(pl.col("stage2_argmax").list.sum() > 0)
    return (
        {"sizes": sizes}
        if rows.is_empty()
        else {
            "sizes": sizes,
            "stage2": _stage2_scores(rows, against, bootstrap),
        }
    )


def resampled_at(
    table: pl.DataFrame, size: int, bootstrap: Bootstrap | None = None
) -> dict[str, Resampled]:
    """Compute the scores of each predictor that has a node size, with their resamples.

    Args:
        table: Columns of `PICTURE_SCHEMA`.
        size: The node size.
        bootstrap: How pictures are resampled.

    Returns:
        By predictor, each of the scores `SCORES`.
    """
    sums = _picture_sums(table.filter(pl.col("size") == size))
    return {name: Resampled.of(own, SCORES, bootstrap) for name, own in sums.items()}


def resampled_stage2(
    table: pl.DataFrame, decision: str, bootstrap: Bootstrap | None = None
) -> dict[str, Resampled]:
    """Compute the scores of Stage 2 of each predictor that has it, with their resamples.

    Args:
        table: Columns of `PICTURE_SCHEMA`.
        decision: One of `DECISIONS`.
        bootstrap: How pictures are resampled.

    Returns:
        By predictor: accuracy, macro-F1, and `f1_` of each class.
    """
    rows = table.filter(pl.col("stage2_argmax").list.sum() > 0)
    matrices = _stage2_matrices(rows, decision)
    return {name: Resampled.of(own, _STAGE2_SCORES, bootstrap) for name, own in matrices.items()}


def _of_predictors(rows: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Return the rows of each predictor, in the order of the table."""
    groups = rows.group_by("predictor", maintain_order=True)
    return {str(name): of_predictor for (name,), of_predictor in groups}


def _by(rows: pl.DataFrame, column: str, values: NDArray[Any]) -> tuple[NDArray[Any], list[Any]]:
    """Add up values (p, ...) of rows with the same entry of a column; return the entries too."""
    entries, codes = np.unique(rows[column].to_numpy(), return_inverse=True)
    sums = np.zeros((len(entries), *values.shape[1:]), values.dtype)
    np.add.at(sums, codes, values)
    return sums, entries.tolist()


def _vectors(rows: pl.DataFrame) -> NDArray[np.float64]:
    """Return the sums of rows, float64 (p, w)."""
    parts = [np.asarray(rows[name].to_list(), np.float64).reshape(len(rows), -1) for name in SUMS]
    return np.concatenate(parts, axis=1)


def _picture_sums(rows: pl.DataFrame) -> dict[str, NDArray[np.float64]]:
    """Return the sums of each picture, (g, w), by predictor."""
    return {name: _by(of, "picture", _vectors(of))[0] for name, of in _of_predictors(rows).items()}


def _stage2_matrices(rows: pl.DataFrame, decision: str) -> dict[str, NDArray[np.int64]]:
    """Return the confusion matrices of each picture, (g, k, k), by predictor that has them."""
    column, k = f"stage2_{decision}", len(STAGE2.class_names)
    return {
        name: _by(of, "picture", np.asarray(of[column].to_list()).reshape(-1, k, k))[0]
        for name, of in _of_predictors(rows).items()
        if of[column].null_count() == 0
    }


def _size_scores(rows: pl.DataFrame, against: str, bootstrap: Bootstrap) -> dict[str, Any]:
    pictures = _picture_sums(rows)
    resampled = {name: Resampled.of(sums, SCORES, bootstrap) for name, sums in pictures.items()}
    differences = compare_with(resampled, against) if against in resampled else {}
    support = part_of(next(iter(pictures.values())), "confusion").sum(-1)
    found: dict[str, Any] = {
        "nodes": int(support.sum()),
        "pictures": len(support),
        "types": {p.name: int(support[:, p].sum()) for p in Partition if support[:, p].any()},
        "constant": _constant(support, [p.name for p in Partition], bootstrap),
        "predictors": {},
    }
    for name, of in _of_predictors(rows).items():
        total = pictures[name].sum(0)
        bins = reliability_of(*(part_of(total, f"bin_{k}") for k in ("nodes", *_BIN_SUMS)))
        record = {
            "scores": _intervals(resampled[name]),
            "floored": int(part_of(total, "floored")),
            "removed": figure(of["removed"].to_numpy().sum() / part_of(total, "nodes")),
            "confusion_matrix": part_of(total, "confusion").astype(int).tolist(),
            "reliability": {
                "nodes": bins.count.tolist(),
                "confidence": _listed(bins.confidence),
                "accuracy": _listed(bins.accuracy),
            },
            "by_qindex": _by_qindex(of),
        }
        if name in differences:
            record["difference"] = _differences(differences[name])
        found["predictors"][name] = record
    return found


_BIN_SUMS = ("confidence", "correct")


def _stage2_scores(rows: pl.DataFrame, against: str, bootstrap: Bootstrap) -> dict[str, Any]:
    names, k = STAGE2.class_names, len(STAGE2.class_names)
    support = np.zeros((0, k), np.int64)
    found: dict[str, dict[str, Any]] = {}
    for decision in DECISIONS:
        matrices = _stage2_matrices(rows, decision)
        resampled = {
            n: Resampled.of(sums, _STAGE2_SCORES, bootstrap) for n, sums in matrices.items()
        }
        differences = compare_with(resampled, against) if against in resampled else {}
        for name, sums in matrices.items():
            support = sums.sum(-1)
            record: dict[str, Any] = {
                "scores": _intervals(resampled[name]),
                "confusion_matrix": sums.sum(0).tolist(),
            }
            if name in differences:
                record["difference"] = _differences(differences[name])
            found.setdefault(name, {})[decision] = record
    return {
        "size": STAGE2_SIZE,
        "nodes": int(support.sum()),
        "pictures": len(support),
        "classes": dict(zip(names, support.sum(0).tolist(), strict=True)),
        "constant": _constant(support, names, bootstrap),
        "predictors": found,
    }


def _class_f1(index: int) -> Score:
    return lambda matrices: f1_from_confusion(matrices)[..., index]


_STAGE2_SCORES: Mapping[str, Score] = {
    **METRICS,
    **{f"f1_{name}": _class_f1(index) for index, name in enumerate(STAGE2.class_names)},
}


def _constant(support: NDArray[Any], names: Any, bootstrap: Bootstrap) -> dict[str, Any]:
    """Return the scores of the constant answer that is best on these nodes, (g, k)."""
    best = best_constant(support.sum(0))
    resampled = Resampled.of(constant_confusion(support, best), METRICS, bootstrap)
    return {"class": names[best], **_intervals(resampled)}


def _by_qindex(rows: pl.DataFrame) -> dict[str, dict[str, Any]]:
    sums, qindexes = _by(rows, "qindex", _vectors(rows))
    return {
        str(qindex): {
            "nodes": int(part_of(own, "nodes")),
            **{name: figure(SCORES[name](own)) for name in ("log_loss", "accuracy")},
        }
        for qindex, own in zip(qindexes, sums, strict=True)
    }


def _intervals(resampled: Resampled) -> dict[str, dict[str, Any]]:
    return {name: interval.to_json() for name, interval in resampled.intervals().items()}


def _differences(differences: Mapping[str, PairedDifference]) -> dict[str, dict[str, Any]]:
    return {name: difference.to_json() for name, difference in differences.items()}


def _listed(values: NDArray[np.float64]) -> list[float | None]:
    """Return values as JSON has them: null for what is not a number."""
    return [None if np.isnan(value) else figure(value) for value in values]
