"""Fitting temperatures and the threshold on val, and storing them beside the checkpoints.

checkpoints -> every val node -> fitted, and cross-fitted by sequence -> <stem>.calibration.json
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from av1part.cascade.choices import cross_fit_choices, fit_choices, stage_temperature
from av1part.cascade.fits import cross_fit, fit_threshold
from av1part.cascade.run import ask_every_stage, load_members
from av1part.checkpoints.calibration import (
    BeforeAfter,
    Calibration,
    Fitted,
    StoredThreshold,
    write_calibration,
)
from av1part.checkpoints.load import load_stage
from av1part.data.serve.datamodule import BlockDataModule
from av1part.evaluation.attach import attach_data, check_pixels, device_of
from av1part.evaluation.evaluate import evaluate
from av1part.evaluation.nodes import node_columns
from av1part.metrics.calibration import negative_log_likelihood, reliability, softmax
from av1part.metrics.scores import figure
from av1part.models.freeze import state_sha256
from av1part.options import Ensemble, Objective
from av1part.partition import IGNORED, Stage
from av1part.stages.base import StageModule
from av1part.system.environment import versions
from av1part.system.errors import StoreError
from av1part.system.files import sha256_file


def calibrate_alone(
    path: Path,
    *,
    objective: Objective = "macro_f1",
    data_path: str | None = None,
    protocol: str | None = None,
    split_list: str | None = None,
    device: str = "cpu",
) -> Calibration:
    """Fit a checkpoint's temperature, and Stage 1's threshold for its own two classes; store them.

    Args:
        path: The checkpoint.
        objective: What the threshold maximises over the two classes of Stage 1.
        data_path: Another dataset than the one it was trained on.
        protocol: Its split protocol.
        split_list: Its split list.
        device: Where to run.

    Returns:
        What was stored.

    Raises:
        CheckpointError: if the file is refused.
        StoreError: if the data is missing, does not fit, or val has no node of the stage.
    """
    sha256 = sha256_file(path) if path.is_file() else ""
    module = load_stage(path)
    stage, root = module.stage, module.taxonomy.root
    data = attach_data(
        module, stage=root.name, path=data_path, split=protocol, split_list=split_list
    )
    check_pixels(module, data, "val")
    evaluation = evaluate(module.to(device_of(device)), data.batches("val"))
    sequences = node_columns(data.store, evaluation.node)["sequence"].to_numpy().astype(str)
    partition, logits = evaluation.partition, evaluation.logits.astype(np.float64)

    def temperature(mask: NDArray[np.bool_]) -> float:
        return stage_temperature(stage, partition[mask], logits[mask])

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
    answers = _Answers(path, sha256, module, partition, sequences, logits)
    _refuse_empty(stage, partition, data)
    return _store(answers, data, _fit(sequences, temperature), threshold)


def calibrate_cascade(
    checkpoints: Mapping[str, Sequence[Path]],
    *,
    objective: Objective = "macro_f1",
    ensemble: Ensemble = "mean",
    data_path: str | None = None,
    protocol: str | None = None,
    split_list: str | None = None,
    device: str = "cpu",
) -> list[Calibration]:
    """Fit what `av1part pipeline` would fit for a cascade, and store it with each checkpoint.

    Args:
        checkpoints: Stage name to the files of its ensemble.
        objective: What the threshold maximises over all types, with the later stages as they are.
        ensemble: How the members of a stage are joined.
        data_path: Another dataset than the one the stages were trained on.
        protocol: Its split protocol.
        split_list: Its split list.
        device: Where to run.

    Returns:
        What was stored, a record for each checkpoint in the order of the cascade.

    Raises:
        CheckpointError: as `pipeline.load_members`.
        StoreError: if the data is missing, does not fit, or val has no node of a stage.
    """
    device_of(device)
    hashes = {
        stage: [sha256_file(path) if path.is_file() else "" for path in paths]
        for stage, paths in checkpoints.items()
    }
    members = load_members(checkpoints)
    root = next(iter(members))
    first = members[root][0]
    data = attach_data(first, path=data_path, split=protocol, split_list=split_list)
    check_pixels(first, data, "val")
    nodes, _ = ask_every_stage(members, data, "val", device)
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
            temperature = Fitted(
                chosen.temperatures[name][i],
                {sequence: choice.temperatures[name][i] for sequence, choice in crossed.items()},
            )
            answers = _Answers(
                checkpoints[name][i],
                hashes[name][i],
                module,
                nodes.partition,
                nodes.sequence,
                nodes.logits[name][i],
            )
            stored.append(_store(answers, data, temperature, threshold if name == root else None))
    return stored


@dataclass(frozen=True)
class _Answers:
    """What one checkpoint says of every val node: logits (n, k), true ids and sequences (n,)."""

    path: Path
    sha256: str
    module: StageModule
    partition: NDArray[np.int64]
    sequence: NDArray[np.str_]
    logits: NDArray[np.float64]


def _fit(sequences: NDArray[np.str_], choose: Callable[[NDArray[np.bool_]], float]) -> Fitted:
    everyone = np.ones(len(sequences), dtype=bool)
    return Fitted(choose(everyone), cross_fit(sequences, choose))


def _refuse_empty(stage: Stage, partition: NDArray[np.int64], data: BlockDataModule) -> None:
    if not (stage.labels[partition] != IGNORED).any():
        raise StoreError(
            f"{data.path}: the val split has no node of {stage.name} to calibrate on "
            f"(data.protocol={data.protocol}): add sources or choose another protocol"
        )


def _store(
    answers: _Answers,
    data: BlockDataModule,
    temperature: Fitted,
    threshold: StoredThreshold | None,
) -> Calibration:
    """Score the temperatures on the nodes of the stage, cross-fitted, and write the record."""
    module = answers.module
    labels = module.stage.labels[answers.partition]
    belongs = labels != IGNORED
    labels, logits, sequence = labels[belongs], answers.logits[belongs], answers.sequence[belongs]
    applied = np.array([temperature.cross_fitted[name] for name in sequence.tolist()])
    nll = (negative_log_likelihood(logits, labels, t) for t in (1.0, applied))
    ece = (reliability(softmax(logits, t), labels).error for t in (1.0, applied))
    calibration = Calibration(
        file=answers.path.name,
        file_sha256=answers.sha256,
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
    )
    write_calibration(answers.path, calibration, versions())
    return calibration
