"""Stored calibrations as the choices of a cascade, if they were fitted for these files and data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from av1part.cascade.choices import Choices
from av1part.cascade.members import Checkpoints
from av1part.checkpoints.calibration import (
    Calibration,
    FittedValue,
    StoredThreshold,
    read_calibration,
)
from av1part.data.serve.datamodule import BlockDataModule
from av1part.evaluation.nodes import node_columns
from av1part.options import Ensemble
from av1part.system.errors import CalibrationError, CheckpointError

AGAIN = "run av1part calibrate with the same stages and data"
"""The remedy for a calibration that does not suit."""


@dataclass(frozen=True)
class StoredChoices:
    """Choices stored beside the checkpoints, and those that apply to the nodes of a split.

    Attributes:
        fitted: For nodes on which they were not fitted.
        cross_fitted: Sequence to choices, if the nodes are among those they were fitted on.
        threshold: As stored.
    """

    fitted: Choices
    cross_fitted: Mapping[str, Choices] | None
    threshold: StoredThreshold


@dataclass(frozen=True)
class StoredCalibrations:
    """Calibrations of a cascade that were fitted on the same data, the threshold for its files.

    Attributes:
        members: Stage name to the calibration of each member.
        threshold: Of the root.
    """

    members: Mapping[str, Sequence[Calibration]]
    threshold: StoredThreshold

    @property
    def fitted(self) -> Choices:
        """The choices fitted on all of val, for other nodes."""
        temperatures = {
            stage: tuple(calibration.temperature.fitted for calibration in calibrations)
            for stage, calibrations in self.members.items()
        }
        return Choices(self.threshold.fitted, temperatures)


def read_calibrations(
    checkpoints: Checkpoints, root: str, ensemble: Ensemble
) -> StoredCalibrations:
    """Read the calibrations stored beside the checkpoints of a cascade.

    Args:
        checkpoints: Stage name to the files of its ensemble.
        root: Name of the stage that has the threshold.
        ensemble: How members are joined.

    Returns:
        The calibrations.

    Raises:
        CalibrationError: if a checkpoint has none, or it was fitted for another cascade, or on
            different data for different members.
        CheckpointError: if one is damaged or of another file.
    """
    members = {stage: [_read(path) for path in paths] for stage, paths in checkpoints.items()}
    data = {(c.manifest_sha256, c.split_sha256) for stored in members.values() for c in stored}
    if len(data) > 1:
        raise CalibrationError(f"the checkpoints were calibrated on different data: {AGAIN}")
    return StoredCalibrations(members, _threshold(members, root, ensemble))


def stored_choices(
    checkpoints: Checkpoints,
    root: str,
    data: BlockDataModule,
    split: str,
    ensemble: Ensemble,
) -> StoredChoices:
    """Read the choices stored beside the checkpoints of a cascade, as they apply to a split.

    Args:
        checkpoints: Stage name to the files of its ensemble.
        root: Name of the stage that has the threshold.
        data: The data that the cascade is evaluated on.
        split: Which of its splits.
        ensemble: How members are joined.

    Returns:
        The choices, with those that apply to these nodes.

    Raises:
        CalibrationError: as `read_calibrations`, or if they were fitted on another split of this
            dataset.
    """
    stored = read_calibrations(checkpoints, root, ensemble)
    threshold, fitted = stored.threshold, stored.fitted
    first = stored.members[root][0]
    same = first.manifest_sha256 == data.store.manifest_sha256
    if same and first.split_sha256 != data.split_sha256:
        raise CalibrationError(
            f"the checkpoints were calibrated on another split of {data.path}, whose nodes would "
            f"be scored here: {AGAIN}"
        )
    names = node_columns(data.store, data.reader(split).nodes)["sequence"].unique().to_list()
    # In other data, a sequence of the same name counts as the same pictures, encoded again.
    known = set(names) & set(threshold.cross_fitted) if not same else set(names)
    crossed = None
    if known and (split == "val" or not same):
        crossed = {n: _cross_fitted(stored, n) if n in known else fitted for n in sorted(names)}
    return StoredChoices(fitted, crossed, threshold)


def _read(path: Path) -> Calibration:
    calibration = read_calibration(path)
    if calibration is None:
        raise CalibrationError(f"{path} has no calibration stored beside it: {AGAIN}")
    return calibration


def _threshold(
    members: Mapping[str, Sequence[Calibration]], root: str, ensemble: Ensemble
) -> StoredThreshold:
    threshold = members[root][0].threshold
    if threshold is None:
        raise CheckpointError(f"the calibration of {root} has no threshold: {AGAIN}")
    files = {stage: sorted(c.file_sha256 for c in stored) for stage, stored in members.items()}
    other = [s for s, wanted in threshold.checkpoints.items() if files.get(s) != list(wanted)]
    if other or any(c.threshold != threshold for c in members[root]):
        raise CalibrationError(
            f"the threshold of {root} was fitted with other checkpoints of "
            f"{', '.join(sorted(other)) or root}: {AGAIN}"
        )
    several = any(len(hashes) > 1 for hashes in threshold.checkpoints.values())
    if several and threshold.ensemble != ensemble:
        raise CalibrationError(
            f"the threshold was fitted for ensemble={threshold.ensemble}, not {ensemble}: {AGAIN}"
        )
    return threshold


def _cross_fitted(stored: StoredCalibrations, sequence: str) -> Choices:
    def value(fitted: FittedValue) -> float:
        if sequence not in fitted.cross_fitted:
            raise CheckpointError(f"a stored calibration knows no sequence {sequence}: {AGAIN}")
        return fitted.cross_fitted[sequence]

    temperatures = {
        stage: tuple(value(calibration.temperature) for calibration in calibrations)
        for stage, calibrations in stored.members.items()
    }
    return Choices(value(stored.threshold), temperatures)
