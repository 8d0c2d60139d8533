"""The names and shapes of a run folder: what the writers write and the readers read.

    runs/<name>/
      config.yaml         the composed configuration            settings.py
      history.csv         a row an epoch (training only)
      checkpoints/        best.ckpt, last.ckpt, each with <stem>.verified.json beside it
      metrics.json        scores, baselines, intervals           write.py, read.py
      confusion.csv       counts, rows true, columns predicted
      predictions.parquet a row a node of the evaluated split
      samples.npz         blocks and one frame                   samples.py
      timing.json, environment.json
      pipeline.json       a cascade's analysis (pipeline only)

A sweep's folder holds `sweep.json` and, once its test split was opened, `test.json`; each of its
jobs has a `job.json` (sweeps.py). `metrics.json` is written last: a folder that has it is complete.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from av1part.system.errors import ConfigError, ReportError
from av1part.system.formats import refusal

METRICS_FORMAT = 2
"""Version of metrics.json: 2 nests what 1 (av1part 0.1) wrote under dotted keys."""

_NESTED = ("per_class", "baselines", "intervals")
"""First parts of the dotted keys of format 1."""

_NAME = re.compile(r"[A-Za-z0-9_.-]+")


def check_run_name(name: str) -> str:
    """Check that `name` may name a run.

    Args:
        name: As the user gave it.

    Returns:
        The name.

    Raises:
        ConfigError: if it holds anything but `[A-Za-z0-9_.-]`, or is a dot name.
    """
    if not _NAME.fullmatch(name) or set(name) == {"."}:
        raise ConfigError(f"name={name!r}: run names are made of [A-Za-z0-9_.-] only")
    return name


def sidecar_path(checkpoint: Path) -> Path:
    """Return where the verification record of a checkpoint lies."""
    return checkpoint.with_name(f"{checkpoint.stem}.verified.json")


def calibration_path(checkpoint: Path) -> Path:
    """Return where the stored calibration of a checkpoint lies."""
    return checkpoint.with_name(f"{checkpoint.stem}.calibration.json")


def nested(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return scores as format 2 nests them.

    Args:
        record: Scores of format 1, whose keys are dotted (`baselines.prior.accuracy`), or of
            format 2.

    Returns:
        The scores, nested; a record of format 2 comes back as it is.
    """
    result: dict[str, Any] = {}
    for key, value in record.items():
        parts = key.split(".")
        if len(parts) == 1 or parts[0] not in _NESTED:
            result[key] = value
            continue
        here = result
        for part in parts[:-1]:
            below = here.get(part)
            if not isinstance(below, dict):
                below = here[part] = {}
            here = below
        here[parts[-1]] = value
    return result


def current_metrics(record: Mapping[str, Any], file: Path, remedy: str) -> dict[str, Any]:
    """Bring the contents of a metrics.json to today's format.

    Args:
        record: What the file holds.
        file: The file, for messages.
        remedy: What mends a file of another format.

    Returns:
        The scores, nested.

    Raises:
        ReportError: if the file has a format that this release does not read.
    """
    found = record.get("format", 1)
    if type(found) is not int or not 1 <= found <= METRICS_FORMAT:
        raise ReportError(refusal(str(file), found, METRICS_FORMAT, None, remedy))
    return nested(record)
