"""Training one stage: settings in, a verified run folder out.

settings -> BlockDataModule, StageModule, Trainer -> fit -> best.ckpt -> metrics on val -> files
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from av1part.checkpoints.load import load_stage, read_checkpoint
from av1part.config.limits import check_batches, max_steps, planned_epochs
from av1part.data.serve.datamodule import BlockDataModule
from av1part.data.serve.injection import describe
from av1part.defects import RELOADED, listed
from av1part.evaluation.nodes import choose_samples
from av1part.evaluation.scores import split_scores
from av1part.evaluation.trees import train_peers
from av1part.metrics.scores import Scores, from_predictions
from av1part.models.summary import count_parameters, count_trainable
from av1part.runs.read import read_metrics
from av1part.runs.samples import write_samples
from av1part.runs.schema import (
    LABEL,
    METRICS_FILE,
    PREDICTION,
    TIMING_FILE,
    best_checkpoint,
    last_checkpoint,
    sidecar_path,
)
from av1part.runs.settings import changed_settings, write_config
from av1part.runs.write import (
    write_confusion,
    write_environment,
    write_metrics,
    write_predictions,
    write_timing,
)
from av1part.stages.base import StageModule
from av1part.system.errors import CheckpointError, CheckpointMismatchError, ConfigError
from av1part.system.files import read_json
from av1part.training.build import (
    build_datamodule,
    build_module,
    check_batch_norm,
    check_processes,
    check_settings,
    check_splits,
    log_summary,
    log_tasks,
    warn_of_late_thaw,
    warn_of_missing_classes,
)
from av1part.training.callbacks.timing import Timing
from av1part.training.feature_cache import serve_features
from av1part.training.trainer import Settings, build_trainer, fit
from av1part.trees.boosting import Boosting

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainResult:
    """The result of a run.

    Attributes:
        folder: The run folder.
        best: Its best checkpoint.
        metrics: Contents of metrics.json.
    """

    folder: Path
    best: Path
    metrics: Scores


def train_stage(
    settings: Settings, folder: Path, draw: Callable[[Scores], None]
) -> TrainResult | None:
    """Train one stage and write its run folder.

    Args:
        settings: The composed configuration, plain values.
        folder: Run folder; must exist.
        draw: Called with the metrics when all files but metrics.json are written.

    Returns:
        The result, or None in the further processes of a distributed run.

    Raises:
        ConfigError: if the settings do not fit the data, each other or the machine. Nothing is
            written before this is checked, as for the errors below.
        Av1partError: if the data or a checkpoint cannot be used.
    """
    last = _resumable(settings, folder)
    pl.seed_everything(int(settings["seed"]), workers=True, verbose=False)
    data = build_datamodule(settings)
    check_splits(data)
    facts = data.facts()
    check_settings(settings, facts)
    if facts["injection"] is not None:
        log.info("%s", describe(facts["injection"]))
    module = build_module(settings, facts)
    if last is not None:
        _check_same_run(settings, read_checkpoint(last), module, last)
        finished = folder / METRICS_FILE
        if finished.is_file():
            log.info("%s holds this run, finished: it stays as it is", folder)
            metrics = read_metrics(finished)
            draw(metrics)
            return TrainResult(folder, best_checkpoint(folder), metrics)
    timing = Timing(folder / TIMING_FILE)
    trainer = build_trainer(settings, folder, timing)
    batches = data.batch_counts(ranks=trainer.world_size)
    check_batches(settings["trainer"], **batches)
    check_batch_norm(module, data.training_blocks, trainer.world_size)
    check_processes(module, trainer.world_size)
    if last is None:
        write_config(folder, settings)
    log_summary(module, facts.get("crop", facts["size"] + 2 * facts["context"]))
    log_tasks(data)
    warn_of_missing_classes(data)
    warn_of_late_thaw(module, planned_epochs(settings["trainer"], batches["train"]))
    started = time.perf_counter()
    serve_features(settings["cache"], module, data, trainer)
    timing.features_seconds = time.perf_counter() - started
    if settings["trainer"]["compile"]:
        module.classifier.compile_trained()
    module.max_steps = max_steps(settings["trainer"])
    fit(trainer, module, data, last)
    if not trainer.is_global_zero:
        return None
    result = _finish(settings, folder, data, facts, timing, trainer.strategy.root_device)
    draw(result.metrics)
    # Last: a sweep counts a folder that has it as done.
    write_metrics(folder, result.metrics)
    return result


def _resumable(settings: Settings, folder: Path) -> Path | None:
    """Return the checkpoint to resume from, or None for a new run.

    Raises:
        ConfigError: if the folder holds a run that is not to be resumed.
    """
    last = last_checkpoint(folder)
    finished = (folder / METRICS_FILE).exists()
    if settings["resume"]:
        if finished and not last.is_file():
            raise ConfigError(
                f"{folder} holds a finished run without its last.ckpt: there is nothing to go on "
                "with, use another name=..."
            )
        return last if last.is_file() else None
    if last.exists() or finished:
        raise ConfigError(
            f"{folder} already holds a run: use resume=true to go on with it, or another name=..."
        )
    return None


def _check_same_run(
    settings: Settings, checkpoint: Mapping[str, Any], module: StageModule, last: Path
) -> None:
    """Refuse to resume a run under another configuration, data or start than it was begun with.

    Raises:
        ConfigError: if the configuration differs.
        CheckpointError: if data or start differ.
    """
    changed = changed_settings(last.parent.parent, settings)
    if changed:
        raise ConfigError(
            f"{last.parent.parent} was begun with another {', '.join(changed)}: resume=true goes "
            "on with the same configuration; choose another name=... for a new one"
        )
    theirs, ours = (_without_paths(h) for h in (checkpoint["hyper_parameters"], module.hparams))
    differing = sorted(k for k in theirs.keys() | ours.keys() if theirs.get(k) != ours.get(k))
    if differing:
        raise CheckpointError(
            f"{last} was trained with another {', '.join(differing)}: resume=true goes on with the "
            "same configuration; choose another name=... for a new one"
        )


def _without_paths(hyper_parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return hyper-parameters without the paths of files, whose hashes are compared instead."""
    paths = ("path", "split_list", "stage1", "weights", "division_sha256")
    return {
        key: {k: v for k, v in value.items() if k not in paths}
        if key in ("data", "start") and value
        else value
        for key, value in hyper_parameters.items()
    }


def _finish(
    settings: Settings,
    folder: Path,
    data: BlockDataModule,
    facts: Mapping[str, Any],
    timing: Timing,
    device: torch.device,
) -> TrainResult:
    """Evaluate the best checkpoint, as read from disk, on all of val, and write the result.

    Raises:
        ConfigError: if the run was resumed after its time, which ended before a first validation.
    """
    best = best_checkpoint(folder)
    if not best.is_file():
        raise ConfigError(
            f"{folder}: trainer.max_time was over before the first validation: train again with "
            "more time, under another name=..."
        )
    record = read_checkpoint(best)
    module = load_stage(best, defects=settings["defects"]).to(device)
    peers = None
    if settings["baselines"] == "trees":
        peers = train_peers(data, Boosting(**settings["trees"]))
    scores, arrays = split_scores(module, data, "val", peers=peers)
    if settings["trainer"]["precision"] == "32-true":  # these scores are computed in float32
        _check_recorded(best, scores, arrays, module)
    evaluation, labels = arrays["evaluation"], arrays["labels"]
    names = module.class_names
    write_confusion(folder, names, scores["confusion_matrix"])
    predicted = {LABEL: labels, PREDICTION: evaluation.predictions}
    write_predictions(folder, arrays["nodes"], predicted, names, evaluation.probabilities)
    order = np.argsort(evaluation.node, kind="stable")  # frames are not in the order of the table
    samples = choose_samples(
        data.scored_reader("val"), labels[order], evaluation.predictions[order]
    )
    write_samples(folder, samples)
    write_environment(folder, seed=settings["seed"], dataset=facts)
    write_timing(folder, timing.summary())
    total, trainable = count_parameters(module.classifier), count_trainable(module.classifier)
    metrics = {
        "stage": module.stage_name,
        "method": settings["method"]["name"],
        "taxonomy": module.taxonomy.name,
        "class_names": list(names),
        **scores,
        "epoch": int(record["epoch"]),
        "trainable_parameters": trainable,
        "total_parameters": total,
        **({"defects": list(module.defects)} if module.defects else {}),
    }
    return TrainResult(folder, best, metrics)


def _check_recorded(
    best: Path, scores: Scores, arrays: Mapping[str, Any], module: StageModule
) -> None:
    """Compare the full validation of best.ckpt with what training recorded for it.

    What a training with limited validation recorded is compared on the same, first nodes. With a
    defect of reloading on purpose they differ, which is logged.

    Raises:
        CheckpointMismatchError: if they differ by more than the tolerance, or the record is gone.
    """
    record = read_json(sidecar_path(best))
    if record is None:
        raise CheckpointMismatchError(f"{sidecar_path(best)} cannot be read: train again")
    where, macro_f1, recorded = "all", scores["macro_f1"], record.get("macro_f1_full")
    if recorded is None:
        nodes, recorded = record["nodes_limited"], record["macro_f1_limited"]
        predictions = arrays["evaluation"].predictions[:nodes]
        labels = arrays["labels"][:nodes]
        macro_f1 = from_predictions(predictions, labels, module.class_names)["macro_f1"]
        where = f"the first {nodes} nodes"
    delta = 100 * (macro_f1 - recorded)
    if not abs(delta) <= record["tolerance_pp"]:
        message = (
            f"{best} scores {100 * macro_f1:.2f} % on {where} of val, training recorded "
            f"{100 * recorded:.2f} %: {delta:+.2f} pp"
        )
        if not set(module.defects) & set(RELOADED):
            raise CheckpointMismatchError(message)
        log.warning("DEFECTIVE ON PURPOSE, %s: %s", listed(module.defects), message)
