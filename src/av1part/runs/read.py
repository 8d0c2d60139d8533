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
    HISTORY_FILE,
    METRICS_FILE,
    PIPELINE_FILE,
    PREDICTIONS_FILE,
    SAMPLES_FILE,
    TIMING_FILE,
    current_metrics,
    nested,
    sidecar_path,
)
from av1part.runs.settings import flat_settings, read_text
from av1part.runs.tables import Predictions, read_confusion, read_history, read_predictions
from av1part.system.errors import ReportError

_ROUNDING = 5e-5
"""How far a recorded score may be from its matrix: half of what a table prints."""


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

    @cached_property
    def picture_confusions(self) -> tuple[tuple[str, ...], NDArray[np.int64]]:
        """The pictures in sorted order, and their counts, shape (g, k, k)."""
        nodes = self.predictions
        names, codes = np.unique(nodes.sequence, return_inverse=True)
        counts = confusion_matrix(nodes.prediction, nodes.label, len(self.class_names), codes)
        return tuple(map(str, names)), counts

    @property
    def defects(self) -> tuple[str, ...]:
        """The study's defects that it has on purpose; of a normal run none."""
        return () if self.metrics.get("defects") is None else self.metrics.texts("defects")


@dataclass(frozen=True)
class StageRun(Run):
    """A training run of one stage.

    Attributes:
        stage: Its name, `stage1`, ...
        history: history.csv, a row a validation.
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
        "confusion": read_confusion(path / CONFUSION_FILE, names),
        "predictions": read_predictions(path / PREDICTIONS_FILE, names, pipeline is not None),
        "samples": read_samples(path / SAMPLES_FILE),
    }
    check_counts(path, scores, common["predictions"], common["confusion"])
    codes = range(len(names)) if pipeline is None else [Partition[name] for name in names]
    _check_frame(path, common["samples"], common["predictions"], np.array(codes))
    if pipeline is not None:
        return PipelineRun(**common, pipeline=pipeline)
    return StageRun(
        **common,
        stage=scores.text("stage"),
        history=read_history(path / HISTORY_FILE),
        verified={
            stem: Fields.read(file)
            for stem in CHECKPOINT_STEMS
            if (file := sidecar_path(path / CHECKPOINTS / f"{stem}.ckpt")).exists()
        },
    )


def _check_frame(
    path: Path, samples: Samples, predictions: Predictions, codes: NDArray[np.int64]
) -> None:
    """Check the nodes of a frame against the predictions, where the file has their numbers.

    Args:
        path: The run folder, for messages.
        samples: Its samples.
        predictions: Its predictions.
        codes: What stands for each class in samples.npz, shape (k,).

    Raises:
        ReportError: if a node is not among the predictions, or has another class there.
    """
    nodes = samples.nodes
    if nodes.node is None:
        return
    rows = predictions.rows_of(nodes.node)
    same = rows >= 0
    for column in ("label", "prediction"):
        same &= codes[getattr(predictions, column)[rows]] == getattr(nodes, column)
    if not same.all():
        raise ReportError(
            f"{path / SAMPLES_FILE} has a node that {PREDICTIONS_FILE} beside it lacks or has with "
            f"other classes: {REMEDY}"
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
