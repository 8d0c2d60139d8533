"""Finding run folders and reading them: every file is checked, alone and against the others.

A folder with `pipeline.json` is a pipeline's result, one with `metrics.json` alone a stage's run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from av1part.metrics.scores import (
    accuracy_from_confusion,
    confusion_matrix,
    macro_f1_from_confusion,
)
from av1part.partition import Partition
from av1part.runs.fields import REMEDY, Fields
from av1part.runs.samples import Samples, read_samples
from av1part.runs.schema import (
    CHECKPOINT_STEMS,
    CHECKPOINTS,
    CONFIG_FILE,
    CONFUSION_FILE,
    ENVIRONMENT_FILE,
    HISTORY_COLUMNS,
    HISTORY_FILE,
    LABEL,
    METRICS_FILE,
    NODE_COLUMNS,
    PARTITION,
    PIPELINE_FILE,
    PREDICTION,
    PREDICTIONS_FILE,
    SAMPLES_FILE,
    TIMING_FILE,
    current_metrics,
    nested,
    probability_column,
    sidecar_path,
)
from av1part.runs.settings import flat_settings, read_text
from av1part.system.errors import ReportError

_ROUNDING = 5e-5
"""How far a recorded score may be from its matrix: half of what a table prints."""


@dataclass(frozen=True)
class Predictions:
    """The predictions of a run for the nodes it was evaluated on.

    Attributes:
        label: True class indices, int64 of shape (n,).
        prediction: Predicted class indices, int64 of shape (n,).
        probability: Of each class, float64 of shape (n, k); rows sum to 1.
        qindex: Of each node's frame, int64 of shape (n,).
        sequences: Number of pictures and clips the nodes are of.
        node: Rows of the node table, int64 of shape (n,).
        sequence: Name of each node's picture or clip, shape (n,).
    """

    label: NDArray[np.int64]
    prediction: NDArray[np.int64]
    probability: NDArray[np.float64]
    qindex: NDArray[np.int64]
    sequences: int
    node: NDArray[np.int64]
    sequence: NDArray[np.object_]


@dataclass(frozen=True)
class Run:
    """What stage runs and pipeline results have in common.

    Attributes:
        path: The folder.
        name: Its name in the report.
        class_names: In index order.
        metrics: metrics.json.
        environment: environment.json.
        timing: timing.json, if it is there.
        config: config.yaml as text.
        confusion: Counts of shape (k, k), rows true, columns predicted.
        predictions: predictions.parquet in class indices.
        samples: samples.npz.
    """

    path: Path
    name: str
    class_names: tuple[str, ...]
    metrics: Fields
    environment: Fields
    timing: Fields | None
    config: str
    confusion: NDArray[np.int64]
    predictions: Predictions
    samples: Samples

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The configuration as flat keys (`model.width`) to values."""
        return flat_settings(self.config, self.path / CONFIG_FILE)


@dataclass(frozen=True)
class StageRun(Run):
    """A training run of one stage.

    Attributes:
        stage: Its name, `stage1`, ...
        history: history.csv, a row an epoch.
        verified: Per checkpoint (`best`, `last`), the record of its being read back.
    """

    stage: str
    history: pl.DataFrame
    verified: dict[str, Fields]


@dataclass(frozen=True)
class PipelineRun(Run):
    """The result of a cascade.

    Attributes:
        pipeline: pipeline.json.
    """

    pipeline: Fields


@dataclass(frozen=True)
class FoundRuns:
    """Run folders in or below the folders that were named, sorted.

    Attributes:
        runs: Folders of finished runs.
        unfinished: Folders of runs that have begun but left no metrics.json.
    """

    runs: tuple[Path, ...]
    unfinished: tuple[Path, ...]


def find_runs(folders: Sequence[Path]) -> FoundRuns:
    """Find the runs in folders that are runs or hold runs at any depth.

    Args:
        folders: Run folders, or folders above some.

    Returns:
        The runs, each once.

    Raises:
        ReportError: if a folder is missing, holds no finished run, or is itself unfinished.
    """
    runs: set[Path] = set()
    unfinished: set[Path] = set()
    for folder in folders:
        if not folder.is_dir():
            raise ReportError(
                f"{folder} is not a folder: name a run folder, or one that holds runs"
            )
        here = _visible(folder, folder.rglob(METRICS_FILE))
        begun = _visible(folder, folder.rglob(HISTORY_FILE))
        begun |= _visible(folder, folder.rglob(ENVIRONMENT_FILE))
        if folder in begun - here:
            raise ReportError(
                f"{folder} is unfinished: it has no metrics.json; finish the run first"
            )
        if not here:
            raise ReportError(
                f"{folder} holds no run: expected metrics.json in it or in a folder below; "
                "make one with `av1part train` or `av1part pipeline`"
            )
        runs |= here
        unfinished |= begun - here
    unique = {path.resolve(): path for path in sorted(runs, reverse=True)}
    return FoundRuns(tuple(sorted(unique.values())), tuple(sorted(unfinished)))


def _visible(root: Path, files: Iterable[Path]) -> set[Path]:
    """Return the files' folders, without those below a hidden folder or a `*.partial` one."""
    parents = {file.parent for file in files}
    return {
        path
        for path in parents
        if not any(
            part.startswith(".") or part.endswith(".partial")
            for part in path.relative_to(root).parts
        )
    }


def load_run(
    path: Path, name: str | None = None, *, metrics: Mapping[str, Any] | None = None
) -> StageRun | PipelineRun:
    """Read a run folder and check that its files agree with each other.

    Args:
        path: The folder.
        name: Its name in the report; the folder's name unless given.
        metrics: What its metrics.json will hold, if that is not written yet.

    Returns:
        The run, of a stage or of a pipeline.

    Raises:
        ReportError: naming the first file that is missing, damaged or contradicted by another.
    """
    is_pipeline = (path / PIPELINE_FILE).exists()
    file = path / METRICS_FILE
    recorded = Fields.read(file).data if metrics is None else metrics
    scores = Fields(current_metrics(recorded, file, REMEDY), file)
    pipeline = read_pipeline(path / PIPELINE_FILE) if is_pipeline else None
    names = (pipeline or scores).texts("class_names")
    common: dict[str, Any] = {
        "path": path,
        "name": name or path.resolve().name,
        "class_names": names,
        "metrics": scores,
        "environment": Fields.read(path / ENVIRONMENT_FILE),
        "timing": Fields.read(path / TIMING_FILE) if (path / TIMING_FILE).exists() else None,
        "config": read_text(path / CONFIG_FILE),
        "confusion": _read_confusion(path / CONFUSION_FILE, names),
        "predictions": _read_predictions(path / PREDICTIONS_FILE, names, pipeline is not None),
        "samples": read_samples(path / SAMPLES_FILE),
    }
    check_counts(path, scores, common["predictions"], common["confusion"])
    if pipeline is not None:
        return PipelineRun(**common, pipeline=pipeline)
    return StageRun(
        **common,
        stage=scores.text("stage"),
        history=_read_history(path / HISTORY_FILE),
        verified={
            stem: Fields.read(file)
            for stem in CHECKPOINT_STEMS
            if (file := sidecar_path(path / CHECKPOINTS / f"{stem}.ckpt")).exists()
        },
    )


def read_metrics(file: Path) -> dict[str, Any]:
    """Read a metrics.json of any format.

    Args:
        file: The file.

    Returns:
        The scores, nested.

    Raises:
        ReportError: if the file is missing, damaged, or of a later format.
    """
    return current_metrics(Fields.read(file).data, file, REMEDY)


def read_pipeline(file: Path) -> Fields:
    """Read pipeline.json; the scores of `overall` are nested as in metrics.json."""
    fields = Fields.read(file)
    overall = fields.get("overall")
    if not isinstance(overall, Mapping):
        return fields
    return Fields({**fields.data, "overall": nested(overall)}, file)


def check_counts(
    path: Path, metrics: Fields, predictions: Predictions, confusion: NDArray[np.int64]
) -> None:
    """Check the figures of a run against a count of its predictions.

    Args:
        path: The run folder, for messages.
        metrics: Its metrics.json.
        predictions: Its predictions.
        confusion: Its confusion.csv.

    Raises:
        ReportError: naming the file that contradicts the predictions.
    """
    counted = confusion_matrix(predictions.prediction, predictions.label, len(confusion))
    for what, matrix in (
        (CONFUSION_FILE, confusion.tolist()),
        (METRICS_FILE, metrics.get("confusion_matrix")),
    ):
        if matrix != counted.tolist():
            raise ReportError(
                f"{path / what} does not have the counts of {PREDICTIONS_FILE} beside it: {REMEDY}"
            )
    for key, of in (("accuracy", accuracy_from_confusion), ("macro_f1", macro_f1_from_confusion)):
        recorded, correct = metrics.number(key), float(of(counted))
        if abs(recorded - correct) > _ROUNDING:
            raise ReportError(
                f"{metrics.file} says {key} {recorded:.4f}, its confusion matrix "
                f"{correct:.4f}: {REMEDY}"
            )


def _read_confusion(file: Path, names: tuple[str, ...]) -> NDArray[np.int64]:
    data = _read_csv(file)
    if data.columns != ["true", *names] or data["true"].cast(pl.String).to_list() != list(names):
        raise ReportError(f"{file} does not have the rows and columns {', '.join(names)}: {REMEDY}")
    if not all(dtype.is_integer() for dtype in data.dtypes[1:]) or sum(data.null_count().row(0)):
        raise ReportError(f"{file} holds something else than counts: {REMEDY}")
    return data.drop("true").to_numpy().astype(np.int64)


def _read_history(file: Path) -> pl.DataFrame:
    return check_history(file, _read_csv(file))


def check_history(file: Path, data: pl.DataFrame) -> pl.DataFrame:
    """Check a table of epochs.

    Args:
        file: Where it is from, for messages.
        data: The table.

    Returns:
        All of it as float64.

    Raises:
        ReportError: if a column or all rows are missing, or one holds text.
    """
    missing = set(HISTORY_COLUMNS) - set(data.columns)
    if missing or not data.height:
        lacks = ", ".join(sorted(missing)) or "its epochs"
        raise ReportError(f"{file} lacks {lacks}: {REMEDY}")
    text = [c for c, t in data.schema.items() if not t.is_numeric() and t != pl.Null]
    if text:
        raise ReportError(f"{file} holds text in column {text[0]}: {REMEDY}")
    return data.with_columns(pl.all().cast(pl.Float64))


def _read_predictions(file: Path, names: tuple[str, ...], are_ids: bool) -> Predictions:
    """Read predictions; with `are_ids` they are partition ids, else class indices.

    Raises:
        ReportError: naming the file, if it is missing, damaged or not of these classes.
    """
    if not file.is_file():
        raise ReportError(f"{file} is missing: {REMEDY}")
    try:
        data = pl.read_parquet(file)
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ReportError(f"{file} is not readable Parquet ({reason}): {REMEDY}") from None
    truth = PARTITION if are_ids else LABEL
    shares = [probability_column(name) for name in names]
    columns = [*NODE_COLUMNS, truth, PREDICTION, *shares]
    missing = [c for c in columns if c not in data.columns]
    if missing or not data.height or sum(data.null_count().row(0)):
        lacks = f"column {missing[0]}" if missing else "rows or has empty cells"
        raise ReportError(f"{file} lacks {lacks}: {REMEDY}")
    codes = [Partition[n] for n in names] if are_ids else list(range(len(names)))
    index = {code: i for i, code in enumerate(codes)}
    unknown = set(data[truth].unique()) | set(data[PREDICTION].unique())
    if not unknown <= set(index):
        raise ReportError(f"{file} has a class that is none of {', '.join(names)}: {REMEDY}")
    to_index = {
        c: data[c].replace_strict(index, return_dtype=pl.Int64).to_numpy()
        for c in (truth, PREDICTION)
    }
    probability = data.select(shares).cast(pl.Float64).to_numpy()
    if not np.allclose(probability.sum(1), 1, atol=1e-3):
        raise ReportError(f"{file} has probabilities that do not sum to 1: {REMEDY}")
    return Predictions(
        label=to_index[truth],
        prediction=to_index[PREDICTION],
        probability=probability,
        qindex=data["qindex"].cast(pl.Int64).to_numpy(),
        sequences=data["sequence"].n_unique(),
        node=data["node"].cast(pl.Int64).to_numpy(),
        sequence=data["sequence"].to_numpy(),
    )


def _read_csv(file: Path) -> pl.DataFrame:
    if not file.is_file():
        raise ReportError(f"{file} is missing: {REMEDY}")
    try:
        return pl.read_csv(file, infer_schema_length=None)
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ReportError(f"{file} is not readable CSV ({reason}): {REMEDY}") from None
