"""The calibration stored beside a checkpoint, `<stem>.calibration.json`, read strictly.

    fitting -> <stem>.calibration.json -> pipeline

It names the file it was fitted for by SHA-256, and the data by the hashes of manifest and split,
so that values fitted on val are never applied to the nodes they were fitted on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from av1part.metrics.calibration import TEMPERATURES
from av1part.options import ENSEMBLES, OBJECTIVES, Ensemble, Objective
from av1part.partition import SIZES
from av1part.runs.schema import calibration_path
from av1part.system.errors import CheckpointError
from av1part.system.files import read_json, sha256_file, write_json
from av1part.system.formats import refusal

CALIBRATION_FORMAT = 1
"""Version of the file."""


@dataclass(frozen=True)
class FittedValue:
    """A number fitted on val.

    Attributes:
        fitted: On all of val, for other nodes.
        cross_fitted: Val sequence to the number fitted on the other sequences.
    """

    fitted: float
    cross_fitted: Mapping[str, float]


@dataclass(frozen=True)
class StoredThreshold(FittedValue):
    """The threshold of the root, and the settings and files it was fitted for.

    Attributes:
        objective: What it maximises.
        ensemble: How members are joined.
        checkpoints: Stage name to the SHA-256 of its files, sorted: Stage 1 alone, or all stages of
            the cascade whose score the threshold maximises.
    """

    objective: Objective
    ensemble: Ensemble
    checkpoints: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class BeforeAfter:
    """A figure without and with temperatures, the latter cross-fitted by sequence."""

    before: float
    after: float


@dataclass(frozen=True)
class Calibration:
    """The record of one checkpoint.

    Attributes:
        file: Name of the checkpoint.
        file_sha256: Of its bytes.
        state_sha256: Of its tensors.
        stage: Its stage.
        taxonomy: Its taxonomy.
        manifest_sha256: Of the dataset it was fitted on.
        split_sha256: Of that dataset's split.
        protocol: Its split protocol.
        nodes: Number of val nodes that belong to the stage.
        sequences: Number of val sequences with such nodes.
        temperature: In 0.05 .. 20.
        threshold: Of Stage 1; None for any other.
        nll: Mean negative log-likelihood on these nodes, nats.
        ece: Expected calibration error on them, a fraction.
        by_size: Of the superblock network, node size to the temperature of its nodes; its other
            figures are of 16x16. None for any other stage.
    """

    file: str
    file_sha256: str
    state_sha256: str
    stage: str
    taxonomy: str
    manifest_sha256: str
    split_sha256: str
    protocol: str
    nodes: int
    sequences: int
    temperature: FittedValue
    threshold: StoredThreshold | None
    nll: BeforeAfter
    ece: BeforeAfter
    by_size: Mapping[str, FittedValue] | None = None


def write_calibration(path: Path, calibration: Calibration, versions: Mapping[str, str]) -> Path:
    """Write the calibration of a checkpoint beside it, atomically.

    Args:
        path: The checkpoint.
        calibration: The record.
        versions: Of av1part and what it computes with.

    Returns:
        The file written.
    """
    out = calibration_path(path)
    record = {"format": CALIBRATION_FORMAT, **asdict(calibration), "versions": dict(versions)}
    write_json(out, record)
    return out


def read_calibration(path: Path) -> Calibration | None:
    """Read the calibration stored beside a checkpoint.

    Args:
        path: The checkpoint.

    Returns:
        The calibration, or None if there is none.

    Raises:
        CheckpointError: if the stored file is damaged, has another format, or was fitted for
            other bytes than the checkpoint now has.
    """
    stored = calibration_path(path)
    if not stored.is_file():
        return None
    remedy = "run av1part calibrate again, or remove it"
    values = read_json(stored) or {}
    try:
        version = values["format"]
        if version != CALIBRATION_FORMAT:
            wrote = values.get("versions", {}).get("av1part")
            raise CheckpointError(refusal(str(stored), version, CALIBRATION_FORMAT, wrote, remedy))
        calibration = _parse(values)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        raise CheckpointError(f"{stored} is damaged: {remedy}") from None
    if calibration.file_sha256 != sha256_file(path):
        raise CheckpointError(
            f"{stored} was fitted for another file than {path.name} now is (its SHA-256 differs): "
            f"{remedy}"
        )
    return calibration


def _parse(values: Mapping[str, Any]) -> Calibration:
    threshold = values["threshold"]
    if threshold is not None:
        known = threshold["objective"] in OBJECTIVES and threshold["ensemble"] in ENSEMBLES
        if not known:
            raise ValueError(threshold)
        threshold = StoredThreshold(
            **_fitted_value(threshold, 0.0, 1.0),
            objective=threshold["objective"],
            ensemble=threshold["ensemble"],
            checkpoints={
                _text(stage): sorted(map(_text, files))
                for stage, files in threshold["checkpoints"].items()
            },
        )
    # A fit that ends at a bound may miss it by its last bit.
    bounds = TEMPERATURES[0] * 0.999, TEMPERATURES[1] * 1.001
    return Calibration(
        file=_text(values["file"]),
        file_sha256=_text(values["file_sha256"]),
        state_sha256=_text(values["state_sha256"]),
        stage=_text(values["stage"]),
        taxonomy=_text(values["taxonomy"]),
        manifest_sha256=_text(values["manifest_sha256"]),
        split_sha256=_text(values["split_sha256"]),
        protocol=_text(values["protocol"]),
        nodes=int(values["nodes"]),
        sequences=int(values["sequences"]),
        temperature=FittedValue(**_fitted_value(values["temperature"], *bounds)),
        threshold=threshold,
        nll=_before_after(values["nll"]),
        ece=_before_after(values["ece"]),
        by_size=_by_size(values.get("by_size"), bounds),
    )


def _by_size(values: Any, bounds: tuple[float, float]) -> dict[str, FittedValue] | None:
    if values is None:
        return None
    known = {str(size) for size in SIZES}
    if not values.keys() <= known:
        raise ValueError(values)
    return {size: FittedValue(**_fitted_value(value, *bounds)) for size, value in values.items()}


def _before_after(values: Mapping[str, Any]) -> BeforeAfter:
    return BeforeAfter(*(_number(values[key], 0.0, math.inf) for key in ("before", "after")))


def _fitted_value(values: Mapping[str, Any], low: float, high: float) -> dict[str, Any]:
    crossed = values["cross_fitted"].items()
    return {
        "fitted": _number(values["fitted"], low, high),
        "cross_fitted": {_text(name): _number(value, low, high) for name, value in crossed},
    }


def _number(value: Any, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise ValueError(value)
    return float(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value
