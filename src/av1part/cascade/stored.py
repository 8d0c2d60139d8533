"""Stored calibrations as the choices of a cascade, if they were fitted for these files and data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from av1part.cascade.choices import Choices
from av1part.checkpoints.calibration import Calibration, Fitted, StoredThreshold, read_calibration
from av1part.data.serve.datamodule import BlockDataModule
from av1part.evaluation.nodes import node_columns
from av1part.options import Ensemble
from av1part.system.errors import CalibrationError, CheckpointError

AGAIN = "run av1part calibrate with the same stages and data"
"""What mends a calibration that does not suit."""


@dataclass(frozen=True)
class StoredChoices:
    """Choices read from beside the checkpoints.

    Attributes:
        fitted: For nodes they were not fitted on.
        cross_fitted: Sequence to choices, where nodes are among those they were fitted on.
        threshold: As it was stored.
    """

    fitted: Choices
    cross_fitted: Mapping[str, Choices] | None
    threshold: StoredThreshold


def stored_choices(
    checkpoints: Mapping[str, Sequence[Path]],
    root: str,
    data: BlockDataModule,
    split: str,
    ensemble: Ensemble,
) -> StoredChoices:
    """Read the choices stored beside the checkpoints of a cascade.

    Args:
        checkpoints: Stage name to the files of its ensemble.
        root: Name of the stage that has the threshold.
        data: What the cascade is evaluated on.
        split: Which of its splits.
        ensemble: How members are joined.

    Returns:
        The choices, those that apply to these nodes among them.

    Raises:
        CalibrationError: if a checkpoint has none, or it was fitted for another cascade, on
            different data for different members, or on another split of this dataset.
        CheckpointError: if one is damaged or of another file.
    """
    found = _read_all(checkpoints)
    threshold = _threshold(found, root, ensemble)
    first = found[root][0]
    same = first.manifest_sha256 == data.store.manifest_sha256
    if same and first.split_sha256 != data.split_sha256:
        raise CalibrationError(
            f"the checkpoints were calibrated on another split of {data.path}, whose nodes would "
            f"be scored here: {AGAIN}"
        )
    fitted = _fitted(threshold, found)
    names = node_columns(data.store, data.reader(split).nodes)["sequence"].unique().to_list()
    # In other data a sequence of the same name is taken for the same pictures, encoded anew.
    known = set(names) & set(threshold.cross_fitted) if not same else set(names)
    crossed = None
    if known and (split == "val" or not same):
        crossed = {n: _at(n, threshold, found) if n in known else fitted for n in sorted(names)}
    return StoredChoices(fitted, crossed, threshold)


def fitted_choices(
    checkpoints: Mapping[str, Sequence[Path]], root: str, ensemble: Ensemble
) -> Choices:
    """Read the choices stored beside the checkpoints of a cascade, for nodes of other data.

    Args:
        checkpoints: Stage name to the files of its ensemble.
        root: Name of the stage that has the threshold.
        ensemble: How members are joined.

    Returns:
        The choices as fitted on all of val.

    Raises:
        CalibrationError: if a checkpoint has none, or it was fitted for another cascade.
        CheckpointError: if one is damaged or of another file.
    """
    found = _read_all(checkpoints)
    return _fitted(_threshold(found, root, ensemble), found)


def _read_all(checkpoints: Mapping[str, Sequence[Path]]) -> dict[str, list[Calibration]]:
    found = {stage: [_read(path) for path in paths] for stage, paths in checkpoints.items()}
    if len({(c.manifest_sha256, c.split_sha256) for cs in found.values() for c in cs}) > 1:
        raise CalibrationError(f"the checkpoints were calibrated on different data: {AGAIN}")
    return found


def _fitted(threshold: StoredThreshold, found: Mapping[str, Sequence[Calibration]]) -> Choices:
    temperatures = {s: tuple(c.temperature.fitted for c in cs) for s, cs in found.items()}
    return Choices(threshold.fitted, temperatures)


def _read(path: Path) -> Calibration:
    calibration = read_calibration(path)
    if calibration is None:
        raise CalibrationError(f"{path} has no calibration stored beside it: {AGAIN}")
    return calibration


def _threshold(
    found: Mapping[str, Sequence[Calibration]], root: str, ensemble: Ensemble
) -> StoredThreshold:
    threshold = found[root][0].threshold
    if threshold is None:
        raise CheckpointError(f"the calibration of {root} has no threshold: {AGAIN}")
    files = {stage: sorted(c.file_sha256 for c in each) for stage, each in found.items()}
    other = [s for s, wanted in threshold.checkpoints.items() if files.get(s) != list(wanted)]
    if other or any(c.threshold != threshold for c in found[root]):
        raise CalibrationError(
            f"the threshold of {root} was fitted with other checkpoints of "
            f"{', '.join(sorted(other)) or root}: {AGAIN}"
        )
    several = any(len(each) > 1 for each in threshold.checkpoints.values())
    if several and threshold.ensemble != ensemble:
        raise CalibrationError(
            f"the threshold was fitted for ensemble={threshold.ensemble}, not {ensemble}: {AGAIN}"
        )
    return threshold


def _at(
    sequence: str, threshold: StoredThreshold, found: Mapping[str, Sequence[Calibration]]
) -> Choices:
    def value(of: Fitted) -> float:
        if sequence not in of.cross_fitted:
            raise CheckpointError(f"a stored calibration knows no sequence {sequence}: {AGAIN}")
        return of.cross_fitted[sequence]

    return Choices(
        value(threshold),
        {stage: tuple(value(c.temperature) for c in each) for stage, each in found.items()},
    )
