"""The cascade from checkpoints: load, check that they belong together, run, analyse, write.

checkpoints -> every stage on every node -> cascade.analyse -> result folder
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from av1part.cascade import CascadeResult, Nodes, analyse, fit_choices
from av1part.checkpoint import load_stage
from av1part.data.datamodule import BlockDataModule
from av1part.errors import CheckpointError
from av1part.evaluation import Evaluation, evaluate
from av1part.files import sha256_file, write_json
from av1part.results import (
    node_columns,
    write_config,
    write_confusion,
    write_environment,
    write_predictions,
    write_samples,
)
from av1part.stages.base import StageModule
from av1part.validation import attach_data, check_pixels, device_of

Members = Mapping[str, Sequence[StageModule]]
"""Stage name to its ensemble, one module or several."""

SHARED_FACTS = ("size", "context", "bit_depth", "taxonomy", "manifest_sha256", "split_sha256")
"""What all stages of a cascade must have been trained with alike."""


def load_members(checkpoints: Mapping[str, Sequence[Path]]) -> dict[str, list[StageModule]]:
    """Load the stages of a cascade.

    Args:
        checkpoints: Stage name to the files of its ensemble.

    Returns:
        Stage name to its members, on the CPU in eval mode.

    Raises:
        CheckpointError: if a file is refused, a stage of the taxonomy is missing, or the stages
            were trained on different data, block sizes or splits.
    """
    members = {
        stage: [load_stage(path, stage=stage) for path in paths]
        for stage, paths in checkpoints.items()
        if paths
    }
    first = members["stage1"][0]
    wanted = [stage.name for stage in first.taxonomy.stages]
    missing = [f"{stage}=CKPT" for stage in wanted if stage not in members]
    if missing:
        raise CheckpointError(f"the cascade also needs {', '.join(missing)}")
    extra = [stage for stage in members if stage not in wanted]
    if extra:
        size = first.hparams["data"]["size"]
        raise CheckpointError(
            f"taxonomy {first.taxonomy.name} has no {', '.join(extra)} at {size}x{size}: leave out "
            f"{', '.join(f'{stage}=' for stage in extra)}"
        )
    for stage, modules in members.items():
        for module, path in zip(modules, checkpoints[stage], strict=True):
            ours, theirs = first.hparams["data"], module.hparams["data"]
            differing = [key for key in SHARED_FACTS if ours[key] != theirs[key]]
            if differing:
                raise CheckpointError(
                    f"{path} was trained with another {', '.join(differing)} than stage1: val "
                    "nodes of one would be training nodes of the other; train the stages alike"
                )
    return members


def run_pipeline(
    checkpoints: Mapping[str, Sequence[Path]],
    folder: Path,
    *,
    config: Mapping[str, Any],
    data_path: str | None = None,
    protocol: str | None = None,
    split_list: str | None = None,
    split: str = "val",
    device: str = "cpu",
) -> CascadeResult:
    """Evaluate a cascade on a split and write its result folder.

    Threshold and temperatures are fitted on val: cross-fitted where val is reported, as they are
    where test is.

    Args:
        checkpoints: Stage name to the files of its ensemble.
        folder: Result folder, made if missing.
        config: What to write as config.yaml.
        data_path: Another dataset than the one the stages were trained on.
        protocol: Its split protocol.
        split_list: Its split list.
        split: `val`, or `test` if it is really meant.
        device: Where to run.

    Returns:
        What was written: answers, choices and report.

    Raises:
        CheckpointError: as `load_members`.
        StoreError: if the data is missing or does not fit.
    """
    started = time.perf_counter()
    device_of(device)
    members = load_members(checkpoints)
    data = attach_data(members["stage1"][0], path=data_path, split=protocol, split_list=split_list)
    check_pixels(members["stage1"][0], data, split)
    nodes, evaluation = _outputs(members, data, split, device)
    choices = None
    if split != "val":
        choices = fit_choices(_outputs(members, data, "val", device)[0])
    result = analyse(
        nodes,
        train_counts=np.array(members["stage1"][0].hparams["data"]["type_counts"]),
        split=split,
        protocol=data.split,
        choices=choices,
    )
    files = {
        stage: [{"path": str(p), "sha256": sha256_file(p)} for p in paths]
        for stage, paths in checkpoints.items()
        if paths
    }
    write_config(folder, config)
    seconds = time.perf_counter() - started
    speed = {"seconds": seconds, "blocks_per_second": len(evaluation.node) / seconds}
    write_json(folder / "timing.json", speed)
    _write(folder, result, data, evaluation, {**result.to_json(), "checkpoints": files})
    return result


def _outputs(
    members: Members, data: BlockDataModule, split: str, device: str
) -> tuple[Nodes, Evaluation]:
    """Ask every stage about every node of a split."""
    logits: dict[str, list[Any]] = {}
    for stage, modules in members.items():
        for module in modules:
            evaluation = evaluate(module.to(device), data.batches(split))
            logits.setdefault(stage, []).append(evaluation.logits)
    columns = node_columns(data.store, evaluation.node)
    nodes = Nodes.build(
        data.taxonomy,
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
        {"partition": evaluation.partition, "prediction": result.prediction},
        names,
        result.probabilities,
    )
    write_samples(folder, data.reader(report["split"]), evaluation.partition, result.prediction)
    dataset = {"path": str(data.path.resolve()), "manifest_sha256": data.store.manifest_sha256}
    write_environment(folder, seed=None, dataset=dataset)
    write_json(folder / "pipeline.json", report)
    write_json(folder / "metrics.json", _flat(report))


def _flat(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the cascade's own figures in the flat keys of metrics.json."""
    flat = {**report["overall"]}
    for guesser, figures in report["baselines"].items():
        flat |= {f"baselines.{guesser}.{name}": value for name, value in figures.items()}
    for metric, kinds in report["intervals"].items():
        for kind, interval in kinds.items():
            limits = {key: interval[key] for key in ("estimate", "low", "high")}
            flat |= {f"intervals.{metric}.{kind}.{key}": value for key, value in limits.items()}
            flat["clusters"] = interval["clusters"]
    return flat | {key: report[key] for key in ("class_names", "taxonomy", "split", "protocol")}
