"""The cascade on a split, from checkpoints to a result folder.

checkpoints -> logits of every stage for every node -> analyse -> result folder
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from av1part.cascade.analysis import CascadeResult, analyse
from av1part.cascade.choices import Choices, fit_choices
from av1part.cascade.members import Checkpoints, evaluate_members, load_members
from av1part.cascade.routing import type_index
from av1part.cascade.stored import StoredChoices, stored_choices
from av1part.config.defects import check_cascade
from av1part.data.serve.datamodule import BlockDataModule
from av1part.defects import CHOSEN_ON_SCORED, TWO_ORDERS, banner
from av1part.evaluation.attach import (
    CPU,
    RECORDED,
    Compute,
    DataSource,
    attach_data,
    check_pixels,
    device_of,
)
from av1part.evaluation.evaluate import Evaluation
from av1part.evaluation.nodes import choose_samples, node_columns
from av1part.evaluation.trees import PeerAnswers, ask_peers, train_peers
from av1part.options import CalibrationSource, Ensemble
from av1part.runs.samples import write_samples
from av1part.runs.schema import PARTITION, PREDICTION
from av1part.runs.settings import write_config
from av1part.runs.write import (
    write_confusion,
    write_environment,
    write_metrics,
    write_pipeline,
    write_predictions,
    write_timing,
)
from av1part.stages.base import StageModule
from av1part.system.errors import CalibrationError
from av1part.system.files import sha256_file
from av1part.trees.boosting import Boosting, check_library

log = logging.getLogger(__name__)


def run_pipeline(
    checkpoints: Checkpoints,
    folder: Path,
    *,
    config: Mapping[str, Any],
    source: DataSource = RECORDED,
    split: str = "val",
    ensemble: Ensemble = "mean",
    calibration: CalibrationSource = "auto",
    compute: Compute = CPU,
    trees: Boosting | None = None,
    defects: Sequence[str] = (),
) -> CascadeResult:
    """Evaluate a cascade on a split and write its result folder.

    Threshold and temperatures are those stored beside the checkpoints, or fitted on val here:
    cross-fitted by sequence where they apply to the val nodes they were fitted on.

    Args:
        checkpoints: Stage name to the files of its ensemble.
        folder: Result folder, made if missing.
        config: Contents of config.yaml.
        source: The dataset.
        split: `val`, or `test` if it is really meant.
        ensemble: How the members of a stage are joined: `mean` of their probabilities or `vote`.
        calibration: `stored` beside the checkpoints; `fit` here; `auto`, stored if there is one
            that suits, else fitted; `none`, threshold 0.5 and temperatures 1.
        compute: Device and precision.
        trees: How to train boosted trees on Stage 1's training nodes, as a further baseline.
        defects: The study's defects that the cascade has on purpose, those of its checkpoints
            among them.

    Returns:
        Predictions, choices and report, as written.

    Raises:
        CheckpointError: as `load_members`, or if a stored calibration is damaged or of another
            file, or does not suit and `stored` is asked for.
        StoreError: if the data is missing or does not fit.
        ConfigError: if trees are asked for and LightGBM is not installed, or a defect does not go
            with the other settings.
    """
    check_cascade(defects, split=split, calibration=calibration)
    started = time.perf_counter()
    if trees is not None:
        check_library()
    device_of(compute.device)
    members = load_members(checkpoints, defects)
    paths = {stage: checkpoints[stage] for stage in members}
    root = next(iter(members))
    first = members[root][0]
    data = attach_data(first, source, stage=first.stage_name)
    check_pixels(first, data, split)
    stored, record = _stored(
        "fit" if CHOSEN_ON_SCORED in defects else calibration, paths, root, data, split, ensemble
    )
    if defects:
        log.warning("%s", banner(defects))
    nodes, evaluation = evaluate_members(members, data, split, compute)
    choices = None if stored is None else stored.fitted
    if calibration == "none":
        choices = Choices.neutral(nodes.logits)
    elif stored is None and split != "val":
        fitted_on = evaluate_members(members, data, "val", compute)[0]
        choices = fit_choices(fitted_on, ensemble=ensemble)
    elif CHOSEN_ON_SCORED in defects:
        choices = fit_choices(nodes, ensemble=ensemble)
    result = analyse(
        nodes,
        train_counts=np.array(first.hparams["data"]["type_counts"]),
        split=split,
        protocol=data.protocol,
        objective="macro_f1" if stored is None else stored.threshold.objective,
        ensemble=ensemble,
        choices=choices,
        cross_fitted=None if stored is None else stored.cross_fitted,
        peer=None if trees is None else _peer(trees, first, source, data, evaluation),
        two_orders=TWO_ORDERS in defects,
    )
    files = {
        stage: [{"path": str(path), "sha256": sha256_file(path)} for path in ensemble_paths]
        for stage, ensemble_paths in paths.items()
    }
    write_config(folder, config)
    seconds = time.perf_counter() - started
    speed = {"seconds": seconds, "blocks_per_second": len(evaluation.node) / seconds}
    write_timing(folder, speed)
    report = {**result.to_json(), "calibration": record, "checkpoints": files}
    if defects:
        report["defects"] = list(defects)
    _write(folder, result, data, evaluation, report)
    return result


def _peer(
    settings: Boosting,
    first: StageModule,
    source: DataSource,
    data: BlockDataModule,
    evaluation: Evaluation,
) -> PeerAnswers:
    """Train trees on the data that Stage 1 was trained on, and ask them for the nodes scored."""
    training = data if source == RECORDED else attach_data(first, stage=first.stage_name)
    peers = train_peers(training, settings, type_index(first.taxonomy))
    return ask_peers(peers, data, {data.size: evaluation.node})[data.size]


def _stored(
    source: CalibrationSource,
    paths: Checkpoints,
    root: str,
    data: BlockDataModule,
    split: str,
    ensemble: Ensemble,
) -> tuple[StoredChoices | None, dict[str, Any]]:
    """Return the stored choices if they apply, and a record of where the choices come from.

    Raises:
        CalibrationError: if one does not suit and `stored` is asked for.
        CheckpointError: if one is damaged or of another file.
    """
    stored, reason = None, ""
    if source in ("auto", "stored"):
        try:
            stored = stored_choices(paths, root, data, split, ensemble)
        except CalibrationError as error:
            if source == "stored":
                raise
            reason = str(error)
    if stored is not None:
        crossed = "cross-fitted by sequence" if stored.cross_fitted else "as fitted on their val"
        scope = " and ".join(stored.threshold.checkpoints)
        log.info("calibration: stored beside the checkpoints, %s", crossed)
        return stored, {"source": "stored", "applied": crossed, "threshold_of": scope}
    if source == "none":
        log.info("calibration: none, threshold 0.5 and temperatures 1")
        return None, {"source": "none"}
    log.info("calibration: fitted on val%s", f" ({reason})" if reason else "")
    return None, {"source": "fit", **({"reason": reason} if reason else {})}


def _write(
    folder: Path,
    result: CascadeResult,
    data: BlockDataModule,
    evaluation: Evaluation,
    report: Mapping[str, Any],
) -> None:
    names = report["class_names"]
    write_confusion(folder, names, report["overall"]["confusion_matrix"])
    write_predictions(
        folder,
        node_columns(data.store, evaluation.node),
        {PARTITION: evaluation.partition, PREDICTION: result.prediction},
        names,
        result.probabilities,
    )
    reader = data.reader(report["split"])
    write_samples(folder, choose_samples(reader, evaluation.partition, result.prediction))
    dataset = {"path": str(data.path.resolve()), "manifest_sha256": data.store.manifest_sha256}
    write_environment(folder, seed=None, dataset=dataset)
    write_pipeline(folder, report)
    write_metrics(folder, _scores(report))


def _scores(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the cascade's scores under the keys that metrics.json has for a stage."""
    keys = ["baselines", "intervals", "class_names", "taxonomy", "split", "protocol"]
    keys += ["defects"] if "defects" in report else []
    return {**report["overall"], **{key: report[key] for key in keys}}
