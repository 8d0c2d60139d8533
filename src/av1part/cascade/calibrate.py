"""Fitting temperatures and the threshold on val, and storing them beside the checkpoints.

checkpoints -> logits for every val node -> fitted, and cross-fitted by sequence
    -> <stem>.calibration.json
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from av1part.cascade.choices import cross_fit_choices, fit_choices, stage_temperature
from av1part.cascade.fits import cross_fit, fit_threshold
from av1part.cascade.members import (
    Checkpoints,
    evaluate_members,
    load_members,
    warn_of_start,
)
from av1part.checkpoints.calibration import (
    BeforeAfter,
    Calibration,
    FittedValue,
    StoredThreshold,
    write_calibration,
)
from av1part.checkpoints.load import load_stage
from av1part.data.serve.datamodule import BlockDataModule
from av1part.evaluation.attach import (
    CPU,
    RECORDED,
    Compute,
    DataSource,
    attach_data,
    check_pixels,
    device_of,
)
from av1part.evaluation.evaluate import evaluate, evaluate_sizes
from av1part.evaluation.nodes import node_columns
from av1part.metrics.calibration import negative_log_likelihood, reliability, softmax
from av1part.metrics.scores import figure
from av1part.models.freeze import state_sha256
from av1part.options import Ensemble, Objective
from av1part.partition import IGNORED, Stage, taxonomy
from av1part.stages.base import StageModule
from av1part.stages.superblock import SuperblockStage
from av1part.system.environment import versions
from av1part.system.errors import StoreError
from av1part.system.files import sha256_file


def calibrate_alone(
    path: Path,
    *,
    objective: Objective = "macro_f1",
    source: DataSource = RECORDED,
    compute: Compute = CPU,
) -> Calibration:
    """Fit a checkpoint's temperature, and Stage 1's threshold for its own two classes; store them.

    Args:
        path: The checkpoint.
        objective: What the threshold maximises over the two classes of Stage 1.
        source: The dataset.
        compute: Device and precision.

    Returns:
        The stored record.

    Raises:
        CheckpointError: if the file is refused.
        StoreError: if the data is missing, does not fit, or val has no node of the stage.
    """
    sha256 = sha256_file(path) if path.is_file() else ""
    module = load_stage(path)
    if isinstance(module, SuperblockStage):
        return _calibrate_superblock(path, sha256, module, source, compute)
    warn_of_start(str(path), module)
    stage, root = module.stage, module.taxonomy.root
    data = attach_data(module, source, stage=root.name)
    check_pixels(module, data, "val")
    module.to(device_of(compute.device))
    evaluation = evaluate(module, data.batches("val"), precision=compute.precision)
    sequences = node_columns(data.store, evaluation.node)["sequence"].to_numpy().astype(str)
    partition, logits = evaluation.partition, evaluation.logits.astype(np.float64)

    temperature = partial(_temperature_of, stage, partition, logits)

    def cut(mask: NDArray[np.bool_]) -> float:
        scores = softmax(logits[mask], temperature(mask))[:, 1]
        above = np.ones(len(scores), dtype=np.int64)
        return fit_threshold(scores, stage.labels[partition[mask]], above, 2, objective)

    threshold = None
    if stage.name == root.name:
        threshold = StoredThreshold(
            **vars(_fit(sequences, cut)),
            objective=objective,
            ensemble="mean",
            checkpoints={stage.name: [sha256]},
        )
    member = _Member(path, sha256, module, partition, sequences, logits)
    _refuse_empty(stage, partition, data)
    return _store(member, data, _fit(sequences, temperature), threshold)


def _calibrate_superblock(
    path: Path, sha256: str, module: SuperblockStage, source: DataSource, compute: Compute
) -> Calibration:
    """Fit a temperature for the nodes of every size that val has, and store them.

    Raises:
        StoreError: if val has none of 16x16.
    """
    data = attach_data(module, source)
    check_pixels(module, data, "val")
    module.to(device_of(compute.device))
    found = evaluate_sizes(module, data.batches("val"), precision=compute.precision)
    by_size, reference = {}, None
    for size, evaluation in found.items():
        if not len(evaluation.node):
            continue
        sequences = node_columns(data.store, evaluation.node)["sequence"].to_numpy().astype(str)
        logits = evaluation.logits.astype(np.float64)
        stage = taxonomy(module.taxonomy.name).at(size).superblock
        choose = partial(_temperature_of, stage, evaluation.partition, logits)
        by_size[str(size)] = _fit(sequences, choose)
        if size == data.size:
            reference = _Member(path, sha256, module, evaluation.partition, sequences, logits)
    if reference is None:
        raise StoreError(f"{data.path}: the val split has no {data.size}x{data.size} node")
    return _store(reference, data, by_size[str(data.size)], None, by_size)


def _temperature_of(
    stage: Stage,
    partition: NDArray[np.int64],
    logits: NDArray[np.float64],
    mask: NDArray[np.bool_],
) -> float:
    return stage_temperature(stage, partition[mask], logits[mask])


def calibrate_cascade(
    checkpoints: Checkpoints,
    *,
    objective: Objective = "macro_f1",
    ensemble: Ensemble = "mean",
    source: DataSource = RECORDED,
    compute: Compute = CPU,
) -> list[Calibration]:
    """Fit what `av1part pipeline` would fit for a cascade, and store it with each checkpoint.

    Args:
        checkpoints: Stage name to the files of its ensemble.
        objective: What the threshold maximises over all types, with the later stages as they are.
        ensemble: How the members of a stage are joined.
        source: The dataset.
        compute: Device and precision.

    Returns:
        The stored record of each checkpoint, in the order of the cascade.

    Raises:
        CheckpointError: as `load_members`.
        StoreError: if the data is missing, does not fit, or val has no node of a stage.
    """
    device_of(compute.device)
    hashes = {
        stage: [sha256_file(path) if path.is_file() else "" for path in paths]
        for stage, paths in checkpoints.items()
    }
    members = load_members(checkpoints)
    root = next(iter(members))
    first = members[root][0]
    data = attach_data(first, source, stage=root)
    check_pixels(first, data, "val")
    nodes, _ = evaluate_members(members, data, "val", compute)
    chosen = fit_choices(nodes, objective, ensemble)
    crossed = cross_fit_choices(nodes, objective, ensemble)
    threshold = StoredThreshold(
        chosen.threshold,
        {sequence: choice.threshold for sequence, choice in crossed.items()},
        objective,
        ensemble,
        {stage: sorted(hashes[stage]) for stage in members},
    )
    for stage in nodes.taxonomy.stages:
        _refuse_empty(stage, nodes.partition, data)
    stored = []
    for name, modules in members.items():
        for i, module in enumerate(modules):
            temperature = FittedValue(
                chosen.temperatures[name][i],
                {sequence: choice.temperatures[name][i] for sequence, choice in crossed.items()},
            )
            member = _Member(
                checkpoints[name][i],
                hashes[name][i],
                module,
                nodes.partition,
                nodes.sequence,
                nodes.logits[name][i],
            )
            stored.append(_store(member, data, temperature, threshold if name == root else None))
    return stored


@dataclass(frozen=True)
class _Member:
    """A checkpoint with every val node: logits (n, k), true ids (n,) and sequences (n,)."""

    path: Path
    sha256: str
    module: StageModule
    partition: NDArray[np.int64]
    sequence: NDArray[np.str_]
    logits: NDArray[np.float64]


def _fit(sequences: NDArray[np.str_], choose: Callable[[NDArray[np.bool_]], float]) -> FittedValue:
    return FittedValue(choose(np.ones(len(sequences), dtype=bool)), cross_fit(sequences, choose))


def _refuse_empty(stage: Stage, partition: NDArray[np.int64], data: BlockDataModule) -> None:
    if not (stage.labels[partition] != IGNORED).any():
        raise StoreError(
            f"{data.path}: the val split has no node of {stage.name} to calibrate on "
            f"(data.protocol={data.protocol}): add sources or choose another protocol"
        )


def _store(
    member: _Member,
    data: BlockDataModule,
    temperature: FittedValue,
    threshold: StoredThreshold | None,
    by_size: Mapping[str, FittedValue] | None = None,
) -> Calibration:
    """Score the temperatures on the nodes of the stage, cross-fitted, and write the record."""
    module = member.module
    labels = module.stage.labels[member.partition]
    belongs = labels != IGNORED
    labels, logits, sequence = labels[belongs], member.logits[belongs], member.sequence[belongs]
    applied = np.array([temperature.cross_fitted[name] for name in sequence.tolist()])
    nll = (negative_log_likelihood(logits, labels, t) for t in (1.0, applied))
    ece = (reliability(softmax(logits, t), labels).error for t in (1.0, applied))
    calibration = Calibration(
        file=member.path.name,
        file_sha256=member.sha256,
        state_sha256=state_sha256(module.state_dict()),
        stage=module.stage_name,
        taxonomy=module.taxonomy.name,
        manifest_sha256=data.store.manifest_sha256,
        split_sha256=data.split_sha256,
        protocol=data.protocol,
        nodes=int(belongs.sum()),
        sequences=int(np.unique(sequence).size),
        temperature=temperature,
        threshold=threshold,
        nll=BeforeAfter(*map(figure, nll)),
        ece=BeforeAfter(*map(figure, ece)),
        by_size=by_size,
    )
    write_calibration(member.path, calibration, versions())
    return calibration
