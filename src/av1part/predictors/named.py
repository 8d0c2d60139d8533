"""Predictors from files: a bundle, or a checkpoint of the superblock network."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from av1part.evaluation.attach import CPU, Compute
from av1part.options import CalibrationSource
from av1part.predictors.bundle import Bundle, bundle_path, read_bundle
from av1part.predictors.bundle_stages import source_of
from av1part.predictors.interface import Predictor
from av1part.predictors.superblock import load_superblock
from av1part.runs.schema import CHECKPOINTS
from av1part.system.errors import ConfigError
from av1part.system.files import sha256_file

_LONGEST_NAME = 60


@dataclass(frozen=True)
class NamedPredictor:
    """A predictor under the name that tables show.

    Attributes:
        name: The name.
        predictor: The predictor.
        sources: What it was trained or fitted on, as `Bundle` has it.
        identity: What a result records of its file, or of what it was fitted on.
    """

    name: str
    predictor: Predictor
    sources: Sequence[Mapping[str, Any]]
    identity: Mapping[str, Any]


def open_predictor(
    path: str | Path,
    name: str | None = None,
    *,
    calibration: CalibrationSource = "auto",
    compute: Compute = CPU,
) -> NamedPredictor:
    """Open a bundle, or a checkpoint of the superblock network.

    Args:
        path: The file; `pretrained` names a bundle as for `bundle_path`.
        name: What to call it; None takes that of the file, of `<run>/checkpoints/best.ckpt` that
            of the run.
        calibration: Of a checkpoint, see `load_superblock`.
        compute: Device and precision of networks.

    Returns:
        The predictor.

    Raises:
        BundleError: if a bundle is refused.
        CheckpointError: if a checkpoint is refused, or is of another stage.
        ConfigError: if the name cannot be printed in a table.
    """
    file = bundle_path(path)
    name = _default_name(file) if name is None else name
    if not name.isprintable() or not 0 < len(name) <= _LONGEST_NAME:
        raise ConfigError(
            f"{name[:_LONGEST_NAME]!a} is no name for a predictor: give one of at most "
            f"{_LONGEST_NAME} printable characters, NAME=PATH"
        )
    bundle: Bundle
    if file.is_file() and zipfile.is_zipfile(file):  # as torch writes checkpoints
        network = load_superblock(file, calibration=calibration, compute=compute)
        bundle = Bundle(network, sources=[source_of(network.module)], file=file)
    else:
        bundle = read_bundle(file, compute)
    identity = {"kind": bundle.name, "file": file.name, "sha256": sha256_file(file)}
    return NamedPredictor(name, bundle, bundle.sources, identity)


def fitted_predictor(name: str, bundle: Bundle) -> NamedPredictor:
    """Return a predictor that was fitted here, under a name."""
    identity = {"kind": bundle.name, "fitted_on": [dict(source) for source in bundle.sources]}
    return NamedPredictor(name, bundle, bundle.sources, identity)


def _default_name(file: Path) -> str:
    if file.parent.name == CHECKPOINTS:
        return file.resolve().parent.parent.name
    return file.stem
