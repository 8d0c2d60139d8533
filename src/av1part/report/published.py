"""A sweep in three small files that a repository can keep, and the sweep read back from them.

`sweep.json`; `runs.jsonl`, a line a run with commit, hashes of configuration and dataset, and the
content of its small files; `predictions.parquet`, true and predicted class of every node, so that
each score can be computed again, or instead of it in each line a confusion matrix a picture. No
checkpoint and no picture; of private paths the last part.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import polars as pl
import yaml

from av1part.runs.fields import REMEDY, Fields
from av1part.runs.read import StageRun, check_counts
from av1part.runs.samples import NO_SAMPLES
from av1part.runs.schema import current_metrics
from av1part.runs.settings import read_text
from av1part.runs.sweeps import SWEEP_FILE, TEST_FILE, config_sha256
from av1part.runs.tables import Predictions, check_history
from av1part.system.errors import ReportError
from av1part.system.files import atomic_path, write_json, write_text

RUNS = "runs.jsonl"
PREDICTIONS = "predictions.parquet"
KEPT = (SWEEP_FILE, TEST_FILE)
"""Files of a sweep's folder that are kept, paths of the machine aside."""


def is_published(folder: Path) -> bool:
    """Return whether a folder holds a sweep in this form."""
    return (folder / RUNS).is_file()


def publish(folder: Path, runs: Mapping[str, StageRun], out: Path, *, predictions: bool) -> None:
    """Write the files.

    Args:
        folder: The sweep.
        runs: Its finished runs by their places below it.
        out: Folder to write to; made if needed.
        predictions: Whether predictions.parquet may be published; without it the confusion matrices
            of the pictures are the only record of the predictions.

    Raises:
        OSError: if a file cannot be written.
    """
    records = [_line(place, run, pictures=not predictions) for place, run in runs.items()]
    lines = [json.dumps(record, ensure_ascii=False) for record in records]
    out.mkdir(parents=True, exist_ok=True)
    if predictions:
        with atomic_path(out / PREDICTIONS) as part:
            _predictions(runs).write_parquet(part, compression="zstd", compression_level=19)
    else:
        (out / PREDICTIONS).unlink(missing_ok=True)
    write_text(out / RUNS, "".join(f"{line}\n" for line in lines))
    for name in KEPT:
        if (folder / name).is_file():
            write_json(out / name, _without_places(Fields.read(folder / name).data))
        else:
            (out / name).unlink(missing_ok=True)


def _line(place: str, run: StageRun, *, pictures: bool) -> dict[str, Any]:
    environment = _without_places(run.environment.data)
    config = yaml.safe_load(run.config)
    return {
        "folder": place,
        "git_commit": environment.get("git_commit"),
        "config_sha256": config_sha256(run.path, config),
        "dataset_sha256": environment["dataset"]["manifest_sha256"],
        "sequences": run.predictions.sequences,
        **({"pictures": _picture_counts(run)} if pictures else {}),
        "metrics": dict(run.metrics.data),
        "history": run.history.to_dict(as_series=False),
        "verified": {stem: dict(record.data) for stem, record in run.verified.items()},
        "timing": None if run.timing is None else dict(run.timing.data),
        "environment": environment,
        "config": _without_places(config),
    }


def _picture_counts(run: StageRun) -> dict[str, Any]:
    names, counts = run.picture_confusions
    return dict(zip(names, counts.tolist(), strict=True))


def _without_places(config: Any) -> Any:
    """Shorten paths that identify a machine (`/`, `~`, `..`) to their last part."""
    if isinstance(config, Mapping):
        return {key: _without_places(value) for key, value in config.items()}
    if isinstance(config, list):
        return [_without_places(value) for value in config]
    if not isinstance(config, str):
        return config
    key, equals, value = config.rpartition("=")  # an override, among the words of a job
    path = PurePath(value.strip("'\""))
    private = path.is_absolute() or value.lstrip("'\"").startswith("~") or ".." in path.parts
    return f"{key}{equals}{path.name}" if private else config


def _predictions(runs: Mapping[str, StageRun]) -> pl.DataFrame:
    return pl.concat(
        pl.DataFrame(
            {
                "node": run.predictions.node,
                "sequence": run.predictions.sequence,
                "qindex": run.predictions.qindex.astype(np.int16),
                "label": run.predictions.label.astype(np.int8),
                "prediction": run.predictions.prediction.astype(np.int8),
            }
        ).insert_column(0, pl.lit(place).alias("folder"))
        for place, run in runs.items()
    ).with_columns(pl.col("folder", "sequence").cast(pl.Categorical))


def read_published(folder: Path) -> Iterator[tuple[str, StageRun]]:
    """Read the runs back.

    Args:
        folder: Holds the files.

    Yields:
        Place below the sweep's folder and run; without probabilities and pictures.

    Raises:
        ReportError: if a file is damaged, or a run's figures are not those of its predictions.
    """
    file = folder / RUNS
    tables = _read_predictions(folder / PREDICTIONS)
    seen: set[str] = set()
    for number, text in enumerate(read_text(file).splitlines(), 1):
        try:
            record = json.loads(text)
        except ValueError as error:
            raise ReportError(f"{file}, line {number} is not JSON ({error}): {REMEDY}") from None
        if not isinstance(record, dict):
            raise ReportError(f"{file}, line {number} is not an object: {REMEDY}")
        fields = Fields(record, file, f"line {number}")
        place = fields.text("folder")
        if place in seen:
            raise ReportError(f"{file}, line {number} is a second run of {place}: {REMEDY}")
        seen.add(place)
        try:
            yield place, _run(folder, fields, tables)
        except (ValueError, TypeError, KeyError, pl.exceptions.PolarsError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ReportError(f"{file}, line {number}: {place} is damaged ({reason})") from None


def _run(folder: Path, fields: Fields, tables: dict[str, pl.DataFrame] | None) -> StageRun:
    place = fields.text("folder")
    if tables is not None and place not in tables:
        raise ReportError(f"{folder / PREDICTIONS} lacks {place}: {REMEDY}")
    recorded = fields.child("metrics")
    metrics = Fields(
        current_metrics(recorded.data, recorded.file, REMEDY), recorded.file, recorded.prefix
    )
    confusion = np.asarray(metrics.get("confusion_matrix"), dtype=np.int64)
    sequences = fields.integer("sequences")
    if tables is not None:
        predictions = _of_nodes(tables[place], sequences)
    elif fields.get("pictures") is None:  # as releases before wrote it
        predictions = _counted({"": confusion}, sequences)
    else:
        counts = dict(fields.child("pictures").data)
        predictions = _counted(counts, len(counts))
    check_counts(folder / place, metrics, predictions, confusion)
    history = check_history(fields.file, pl.DataFrame(dict(fields.child("history").data)))
    verified = fields.children("verified")
    verified["best"].text("sha256")
    return StageRun(
        path=folder / place,
        name=place,
        class_names=metrics.texts("class_names"),
        metrics=metrics,
        environment=fields.child("environment"),
        timing=None if fields.get("timing") is None else fields.child("timing"),
        config=yaml.safe_dump(fields.get("config"), sort_keys=False),
        confusion=confusion,
        predictions=predictions,
        samples=NO_SAMPLES,
        stage=metrics.text("stage"),
        history=history,
        verified=verified,
    )


def _read_predictions(file: Path) -> dict[str, pl.DataFrame] | None:
    if not file.is_file():
        return None
    try:
        table = pl.read_parquet(file).with_columns(pl.col("folder", "sequence").cast(pl.String))
        return {str(key[0]): part for key, part in table.group_by("folder", maintain_order=True)}
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ReportError(f"{file} is not readable Parquet ({reason}): {REMEDY}") from None


def _of_nodes(table: pl.DataFrame, sequences: int) -> Predictions:
    label = table["label"].cast(pl.Int64).to_numpy()
    return Predictions(
        label=label,
        prediction=table["prediction"].cast(pl.Int64).to_numpy(),
        probability=np.empty((len(label), 0)),
        qindex=table["qindex"].cast(pl.Int64).to_numpy(),
        sequences=sequences,
        node=table["node"].cast(pl.Int64).to_numpy(),
        sequence=table["sequence"].to_numpy(),
    )


def _counted(confusions: Mapping[str, Any], sequences: int) -> Predictions:
    """Return confusion matrices, one a picture, as nodes whose position and qindex are not known.

    Raises:
        ValueError: if one is no square, or counts below zero.
    """
    pairs, names = [], []
    for name, counts in confusions.items():
        matrix = np.asarray(counts, dtype=np.int64)
        k = len(matrix)
        if matrix.shape != (k, k) or matrix.min(initial=0) < 0:
            raise ValueError(f"a confusion matrix of shape {matrix.shape}, or of less than nothing")
        pairs.append(np.repeat(np.indices((k, k)).reshape(2, -1), matrix.ravel(), axis=1))
        names.append(np.full(pairs[-1].shape[1], name, dtype=object))
    label, prediction = np.concatenate(pairs, axis=1).astype(np.int64)
    return Predictions(
        label=label,
        prediction=prediction,
        probability=np.empty((len(label), 0)),
        qindex=np.full(len(label), -1),
        sequences=sequences,
        node=np.full(len(label), -1),
        sequence=np.concatenate(names),
    )
