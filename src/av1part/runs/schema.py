"""The names of a run folder's files and columns, for those that write and those that read them.

    runs/<name>/
      config.yaml         the composed configuration            settings.py
      history.csv         a row a validation (training)         write.py, read.py
      checkpoints/        best.ckpt, last.ckpt, each with <stem>.verified.json beside it
      metrics.json        scores, baselines, intervals          write.py, read.py
      confusion.csv       counts, rows true, columns predicted  write.py, read.py
      predictions.parquet a row a node of the evaluated split   write.py, read.py
      samples.npz         blocks and one frame                  samples.py
      timing.json, environment.json
      pipeline.json       a cascade's analysis (pipeline only)

A sweep's folder holds `sweep.json` and, once its test split was opened, `test.json`; each of its
jobs has a `job.json` (sweeps.py). `metrics.json` is written last: a folder that has it is complete.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from av1part.system.errors import ConfigError, ReportError
from av1part.system.formats import refusal

CONFIG_FILE = "config.yaml"
HISTORY_FILE = "history.csv"
METRICS_FILE = "metrics.json"
CONFUSION_FILE = "confusion.csv"
PREDICTIONS_FILE = "predictions.parquet"
SAMPLES_FILE = "samples.npz"
TIMING_FILE = "timing.json"
ENVIRONMENT_FILE = "environment.json"
PIPELINE_FILE = "pipeline.json"
TRAIN_LOG = "train.log"
CHECKPOINTS = "checkpoints"
"""Folder of the checkpoints in a run's."""

CHECKPOINT_STEMS = ("best", "last")
"""Checkpoints of a run: the epoch that is best on val, and the one that a run is resumed from."""

RESULT_FILES = (
    *(CONFIG_FILE, METRICS_FILE, CONFUSION_FILE, PREDICTIONS_FILE, SAMPLES_FILE),
    *(TIMING_FILE, ENVIRONMENT_FILE),
)
"""What a training and a pipeline both leave."""

HISTORY_COLUMNS = ("epoch", "train_loss", "val_loss", "macro_f1")
"""Columns that every history.csv has."""

NODE_COLUMNS = ("node", "sequence", "qindex")
"""Columns of predictions.parquet that say which node a row is of."""

LABEL, PARTITION, PREDICTION = "label", "partition", "prediction"
"""Columns of predictions.parquet: true class of a stage, true type of a cascade; predicted."""

LOG_LOSS = "log_loss"
"""Score of metrics.json and column of history.csv: the superblock network's log loss, in nats.

The mean of the node sizes' own, so that every size counts the same.
"""
BY_SIZE = "by_size"
"""Scores of metrics.json by node size, of the superblock network."""

METRICS_FORMAT = 2
"""Version of metrics.json: 2 nests what 1 (av1part 0.1) wrote under dotted keys."""

_NESTED = ("per_class", "baselines", "intervals")
"""First parts of the dotted keys of format 1."""

_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_LONGEST_NAME = 255
"""Characters that file systems allow a folder's name."""
_RATE = "lr."


def check_run_name(name: str) -> str:
    """Check that `name` may name a run.

    Args:
        name: As the user gave it.

    Returns:
        The name.

    Raises:
        ConfigError: if it holds anything but `[A-Za-z0-9_.-]`, is a dot name, or is too long for
            a folder.
    """
    if len(name) > _LONGEST_NAME:
        raise ConfigError(
            f"name={name[:20]}... has {len(name)} characters: a run name has at most "
            f"{_LONGEST_NAME}"
        )
    if not _NAME.fullmatch(name) or set(name) == {"."}:
        raise ConfigError(f"name={name!r}: run names are made of [A-Za-z0-9_.-] only")
    return name


def best_checkpoint(folder: Path) -> Path:
    """Return the path of a run's best checkpoint."""
    return folder / CHECKPOINTS / "best.ckpt"


def last_checkpoint(folder: Path) -> Path:
    """Return the path of the checkpoint that a run is resumed from."""
    return folder / CHECKPOINTS / "last.ckpt"


def training_files() -> frozenset[str]:
    """Return the files of a finished training, relative to its folder, without logs and plots."""
    checkpoints = (Path(CHECKPOINTS, f"{stem}.ckpt") for stem in CHECKPOINT_STEMS)
    pairs = (path.as_posix() for file in checkpoints for path in (file, sidecar_path(file)))
    return frozenset((*RESULT_FILES, HISTORY_FILE, *pairs))


def f1_column(class_name: str) -> str:
    """Return the column of history.csv with the F1 of a class."""
    return f"f1.{class_name}"


def size_column(score: str, size: str | int) -> str:
    """Return the column of history.csv with a score of the nodes of one size."""
    return f"{score}.{size}"


def rate_column(group: str) -> str:
    """Return the column of history.csv with the learning rate of a parameter group."""
    return f"{_RATE}{group}"


def rate_groups(columns: Iterable[str]) -> dict[str, str]:
    """Return the parameter group of each column of history.csv that has a learning rate."""
    return {name: name.removeprefix(_RATE) for name in columns if name.startswith(_RATE)}


def probability_column(class_name: str) -> str:
    """Return the column of predictions.parquet with the probability of a class."""
    return f"p.{class_name}"


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
    version = record.get("format", 1)
    if type(version) is not int or not 1 <= version <= METRICS_FORMAT:
        raise ReportError(refusal(str(file), version, METRICS_FORMAT, None, remedy))
    return nested(record)
