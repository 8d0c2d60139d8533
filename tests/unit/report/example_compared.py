"""A folder of `av1part compare`, made by hand of drawn distributions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from av1part.metrics.distributions import SUMS, distribution_sums, part_of
from av1part.metrics.scores import confusion_matrix
from av1part.runs.compared import FORMAT, write_compared
from av1part.runs.compared_scores import PICTURE_SCHEMA, STAGE2

SHARPNESS = {"net": 6.0, "trees": 3.0, "prior": 0.5}
"""Predictor to how much it prefers the true type."""

CLASSES = list(STAGE2.classes.values())


def write_compared_example(
    folder: Path,
    pictures: int = 6,
    *,
    weighted: bool = True,
    sharpness: Mapping[str, float] = SHARPNESS,
) -> Path:
    """Write a folder whose first predictor the others are compared with."""
    rng, rows = np.random.default_rng(4), []
    for picture in range(pictures):
        for qindex in (80, 200):
            for size in (16, 64):
                labels = rng.choice(8, 40, p=[0.3, 0.1, 0.1, 0.3, 0.05, 0.05, 0.05, 0.05])
                noise = rng.gumbel(size=(40, 8))
                for name, own in sharpness.items():
                    logits = noise + own * np.eye(8)[labels] * rng.random((40, 1))
                    rows.append(row(f"p{picture}", qindex, name, size, logits, labels, weighted))
    columns = {k: pl.Series(k, [r[k] for r in rows]).cast(d) for k, d in PICTURE_SCHEMA.items()}
    table = pl.DataFrame(columns)
    folder.mkdir(parents=True)
    write_compared(folder, record(pictures, weighted, list(sharpness)), table)
    return folder


def row(
    picture: str, qindex: int, name: str, size: int, logits: Any, labels: Any, weighted: bool
) -> dict[str, Any]:
    probabilities = np.zeros((len(labels), 10))
    probabilities[:, :8] = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    sums = distribution_sums(probabilities, labels)
    values: dict[str, Any] = {
        "picture": picture,
        "qindex": qindex,
        "predictor": name,
        "size": size,
        "removed": 0.0,
    }
    for key, shape in SUMS.items():
        part = part_of(sums, key).ravel().tolist()
        values[key] = part if shape else part[0]
    own = STAGE2.labels[labels] >= 0
    of_class = np.stack([probabilities[own][:, list(types)].sum(1) for types in CLASSES], 1)
    matrices = [
        confusion_matrix((of_class * w).argmax(1), STAGE2.labels[labels[own]], 3).ravel().tolist()
        for w in (np.ones(3), np.array([1, 1, 2]))
    ]
    values["stage2_argmax"] = matrices[0] if size == 16 else None
    values["stage2_weighted"] = matrices[1] if size == 16 and weighted else None
    return values


def record(pictures: int, weighted: bool, names: Sequence[str]) -> dict[str, Any]:
    domain = {"sizes": [16, 64], "qindexes": [80, 200], "bit_depths": [8], "one_to_four": False}
    weights = {"weights": {"SPLIT": 1.0, "RECT": 1.0, "AB": 2.0}, "macro_f1": 0.5}
    return {
        "format": FORMAT,
        "av1part": "0.1.0",
        "settings": {},
        "data": {
            "dataset": "store",
            "manifest_sha256": "a" * 64,
            "split": "val",
            "protocol": "by_sequence",
            "split_seed": 42,
            "split_list": None,
            "pictures": pictures,
            "views": 2 * pictures,
            "qindexes": [80, 200],
        },
        "against": names[0],
        "predictors": {
            name: {"kind": name, "domain": domain, "seconds": 0.1}
            | ({"file": f"{name}.av1part", "sha256": "b" * 64} if name != "prior" else {})
            for name in names
        },
        "left_out": {"16": {"nodes": {"HORZ_4": 12, "VERT_4": 3}, "lacking": ["trees", "prior"]}},
        "floor": 1e-12,
        "taus": [0.8, 0.9, 0.95, 0.99],
        "bootstrap": {},
        "weights": {
            "fitted_on": {"dataset": "other"},
            "predictors": dict.fromkeys(names, weights),
        }
        if weighted
        else None,
    }
