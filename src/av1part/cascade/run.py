"""The cascade from checkpoints: load, check that they belong together, run, analyse, write.

checkpoints -> every stage on every node -> cascade.analyse -> result folder
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
from av1part.cascade.routing import Nodes
from av1part.cascade.stored import StoredChoices, stored_choices
from av1part.checkpoints.load import load_stage
from av1part.data.serve.datamodule import BlockDataModule
from av1part.evaluation.attach import SHARED_FACTS, attach_data, check_pixels, device_of
from av1part.evaluation.evaluate import Evaluation, evaluate_together
from av1part.evaluation.nodes import choose_samples, node_columns
from av1part.models.freeze import state_sha256
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
from av1part.system.errors import CalibrationError, CheckpointError
from av1part.system.files import sha256_file

log = logging.getLogger(__name__)

Checkpoints = Mapping[str, Sequence[Path]]
"""Stage name to the files of its ensemble."""

Members = Mapping[str, Sequence[StageModule]]
"""Stage name to its ensemble, one module or several."""


def load_members(checkpoints: Checkpoints) -> dict[str, list[StageModule]]:
    """Load the stages of a cascade.

    Args:
        checkpoints: Stage name to the files of its ensemble.

    Returns:
        Stage name to its members, on the CPU in eval mode, in the order of the cascade.

    Raises:
        CheckpointError: if a file is refused, the stages are not those of their taxonomy, they
            were trained on different data, block sizes or splits, or an ensemble holds the same
            model twice.
    """
    given = {stage: paths for stage, paths in checkpoints.items() if paths}
    members = {
        stage: [load_stage(path, stage=stage) for path in paths] for stage, paths in given.items()
    }
    tree = next(iter(members.values()))[0].taxonomy
    wanted = [stage.name for stage in tree.stages]
    missing = [f"{stage}=CKPT" for stage in wanted if stage not in members]
    if missing:
        raise CheckpointError(f"the cascade also needs {', '.join(missing)}")
    extra = [stage for stage in members if stage not in wanted]
    if extra:
        at = f" at {tree.size}x{tree.size}" if tree.size else ""
        raise CheckpointError(
            f"taxonomy {tree.name} has no {', '.join(extra)}{at}: leave out "
            f"{', '.join(f'{stage}=' for stage in extra)}"
        )
    first = members[tree.root.name][0]
    for stage, modules in members.items():
        for module, path in zip(modules, given[stage], strict=True):
            ours, theirs = first.hparams["data"], module.hparams["data"]
            differing = [key for key in SHARED_FACTS if ours[key] != theirs[key]]
            if differing:
                raise CheckpointError(
                    f"{path} was trained with another {', '.join(differing)} than "
                    f"{tree.root.name}: val nodes of one would be training nodes of the other; "
                    "train the stages alike"
                )
        _refuse_twins(stage, modules, given[stage])
    return {name: members[name] for name in wanted}


def _refuse_twins(stage: str, modules: Sequence[StageModule], paths: Sequence[Path]) -> None:
    """Refuse an ensemble of a model with itself, also as another file (`last` may be `best`).

    Raises:
        CheckpointError: naming the two files.
    """
    seen: dict[str, Path] = {}
    for module, path in zip(modules, paths, strict=True):
        identity = state_sha256(module.state_dict())
        if identity in seen:
            raise CheckpointError(
                f"{stage}: {path} holds the same model as {seen[identity]}: an ensemble of a "
                "model with itself says nothing, give each once"
            )
        seen[identity] = path


def run_pipeline(
    checkpoints: Checkpoints,
    folder: Path,
    *,
    config: Mapping[str, Any],
    data_path: str | None = None,
    protocol: str | None = None,
    split_list: str | None = None,
    split: str = "val",
    ensemble: Ensemble = "mean",
    calibration: CalibrationSource = "auto",
    device: str = "cpu",
    precision: str = "32-true",
) -> CascadeResult:
    """Evaluate a cascade on a split and write its result folder.

    Threshold and temperatures are those stored beside the checkpoints, or fitted on val here:
    cross-fitted by sequence where they apply to the val nodes they were fitted on.

    Args:
        checkpoints: Stage name to the files of its ensemble.
        folder: Result folder, made if missing.
        config: What to write as config.yaml.
        data_path: Another dataset than the one the stages were trained on.
        protocol: Its split protocol.
        split_list: Its split list.
        split: `val`, or `test` if it is really meant.
        ensemble: How the members of a stage are joined: `mean` of their probabilities or `vote`.
        calibration: `stored` beside the checkpoints; `fit` here; `auto`, stored if there is one
            that suits, else fitted; `none`, threshold 0.5 and temperatures 1.
        device: Where to run.
        precision: To compute in, a key of `AUTOCASTS`.

    Returns:
        What was written: answers, choices and report.

    Raises:
        CheckpointError: as `load_members`, or if a stored calibration is damaged or of another
            file, or with `stored` does not suit.
        StoreError: if the data is missing or does not fit.
    """
    started = time.perf_counter()
    device_of(device)
    members = load_members(checkpoints)
    paths = {stage: checkpoints[stage] for stage in members}
    root = next(iter(members))
    first = members[root][0]
    data = attach_data(first, path=data_path, split=protocol, split_list=split_list)
    check_pixels(first, data, split)
    stored, said = _stored(calibration, paths, root, data, split, ensemble)
    nodes, evaluation = ask_every_stage(members, data, split, device, precision)
    choices = None if stored is None else stored.fitted
    if calibration == "none":
        choices = Choices.neutral(nodes)
    elif stored is None and split != "val":
        fitted_on = ask_every_stage(members, data, "val", device, precision)[0]
        choices = fit_choices(fitted_on, ensemble=ensemble)
    result = analyse(
        nodes,
        train_counts=np.array(first.hparams["data"]["type_counts"]),
        split=split,
        protocol=data.protocol,
        objective="macro_f1" if stored is None else stored.threshold.objective,
        ensemble=ensemble,
        choices=choices,
        cross_fitted=None if stored is None else stored.cross_fitted,
    )
    files = {
        stage: [{"path": str(p), "sha256": sha256_file(p)} for p in each]
        for stage, each in paths.items()
    }
    write_config(folder, config)
    seconds = time.perf_counter() - started
    speed = {"seconds": seconds, "blocks_per_second": len(evaluation.node) / seconds}
    write_timing(folder, speed)
    report = {**result.to_json(), "calibration": said, "checkpoints": files}
    _write(folder, result, data, evaluation, report)
    return result


def _stored(
    source: CalibrationSource,
    paths: Checkpoints,
    root: str,
    data: BlockDataModule,
    split: str,
    ensemble: Ensemble,
) -> tuple[StoredChoices | None, dict[str, Any]]:
    """Return the stored choices if they are to be used, and what to say of where choices are from.

    Raises:
        CalibrationError: if one does not suit though it is asked for.
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


def ask_every_stage(
    members: Members,
    data: BlockDataModule,
    split: str,
    device: str,
    precision: str = "32-true",
) -> tuple[Nodes, Evaluation]:
    """Ask every member of every stage about every node of a split.

    Args:
        members: Stage name to its modules.
        data: Set up for the root stage, whose population is every node.
        split: `train`, `val` or `test`.
        device: Where to run.
        precision: To compute in, a key of `AUTOCASTS`.

    Returns:
        The nodes with all logits, and a member's evaluation for the nodes' columns.
    """
    modules = [module.to(device) for each in members.values() for module in each]
    evaluations = evaluate_together(modules, data.batches(split), precision=precision)
    said = iter(evaluations)
    logits = {stage: [next(said).logits for _ in each] for stage, each in members.items()}
    evaluation = evaluations[0]
    columns = node_columns(data.store, evaluation.node)
    nodes = Nodes.build(
        next(iter(members.values()))[0].taxonomy,
        evaluation.partition,
        columns["sequence"].to_numpy(),
        evaluation.qindex,
        logits,
    )
    return nodes, evaluation


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
    """Return the cascade's own scores as metrics.json holds those of a stage."""
    keys = ("baselines", "intervals", "class_names", "taxonomy", "split", "protocol")
    return {**report["overall"], **{key: report[key] for key in keys}}
