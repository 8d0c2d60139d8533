"""Scores of a stage on a split, beside guessers and trees on the same nodes, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from av1part.data.serve.datamodule import BlockDataModule
from av1part.evaluation.evaluate import Evaluation, evaluate_sizes, stage_scores
from av1part.evaluation.nodes import node_columns
from av1part.evaluation.trees import PeerAnswers, Peers, ask_peers
from av1part.metrics.intervals import Interval, intervals_json, metric_intervals
from av1part.metrics.loss_intervals import SizeLosses, loss_intervals
from av1part.metrics.scores import Scores, baselines, figure, node_losses, prior_losses
from av1part.partition import Stage
from av1part.runs.schema import BY_SIZE, LOG_LOSS
from av1part.stages.base import StageModule
from av1part.stages.superblock import SuperblockStage, mean_log_loss, size_scores


def split_scores(
    module: StageModule,
    data: BlockDataModule,
    split: str,
    *,
    precision: str = "32-true",
    peers: Peers | None = None,
) -> tuple[Scores, dict[str, Any]]:
    """Evaluate a stage on a split, as `av1part validate` does.

    Args:
        module: The stage.
        data: Its data, set up for the same stage.
        split: `train`, `val` or `test`.
        precision: Precision of the computation, a key of `AUTOCASTS`.
        peers: Trees that are scored as a baseline.

    Returns:
        The scores with baselines and intervals, and the arrays behind them: `evaluation`,
        `labels` and `nodes` (node, sequence, qindex), all of the size that the stage is scored on.
    """
    evaluations = evaluate_sizes(module, data.batches(split), precision=precision)
    data.store.check_unchanged()
    of_sizes = {size: e.node for size, e in evaluations.items()}
    answers = ask_peers(peers or {}, data, of_sizes)
    nodes = {size: node_columns(data.store, own) for size, own in of_sizes.items()}
    pictures = _numbered({size: of["sequence"] for size, of in nodes.items()})
    evaluation, labels = evaluations[data.size], _labels(module.stage, evaluations[data.size])
    counts = module.hparams["data"]["class_counts"]
    beside = (module.stage, counts, pictures[data.size], answers.get(data.size))
    scores = {**stage_scores(module, evaluation), **_beside(evaluation, *beside)}
    scores |= {"split": split, "protocol": data.protocol}
    if isinstance(module, SuperblockStage):
        _add_sizes(scores, module, data, evaluations, pictures, answers)
    elif peers:
        losses = _losses(evaluation, *beside)
        scores[LOG_LOSS] = figure(losses.own.mean())
        _add_losses(scores, [losses])
    return scores, {"evaluation": evaluation, "labels": labels, "nodes": nodes[data.size]}


def _numbered(sequences: Mapping[int, pl.Series]) -> dict[int, NDArray[np.uint32]]:
    """Return the place of each name among all names, sorted: millions of names sort slowly."""
    names = pl.Enum(sorted(set().union(*(of.unique() for of in sequences.values()))))
    return {size: of.cast(names).to_physical().to_numpy() for size, of in sequences.items()}


def _labels(stage: Stage, evaluation: Evaluation) -> NDArray[np.int64]:
    labels: NDArray[np.int64] = stage.labels[evaluation.partition]
    return labels


def _beside(
    evaluation: Evaluation,
    stage: Stage,
    train_counts: Sequence[int],
    pictures: NDArray[np.uint32],
    answers: PeerAnswers | None,
) -> Scores:
    """Return `baselines` and `intervals` of the nodes of one size."""
    labels, trees = _labels(stage, evaluation), None
    guessers = baselines(train_counts, labels, stage.class_names)
    if answers is not None:
        guessers["trees"] = answers.scores(labels, stage.class_names)
        trees = answers.predictions
    intervals = metric_intervals(
        evaluation.predictions, labels, pictures, train_counts, trees=trees
    )
    return {"baselines": guessers, "intervals": intervals_json(intervals)}


def _losses(
    evaluation: Evaluation,
    stage: Stage,
    train_counts: Sequence[int],
    pictures: NDArray[np.uint32],
    answers: PeerAnswers | None,
) -> SizeLosses:
    """Return the losses of the nodes of one size, and of the prior and trees beside them."""
    labels = _labels(stage, evaluation)
    logits = torch.from_numpy(evaluation.logits).double()
    own = cross_entropy(logits, torch.from_numpy(labels), reduction="none").numpy()
    others = {"prior": prior_losses(train_counts, labels)}
    if answers is not None:
        others["trees"] = node_losses(answers.probabilities, labels)
    return SizeLosses(own, others, pictures)


def _add_losses(scores: Scores, losses: Sequence[SizeLosses]) -> None:
    """Add the log loss of baselines, and its intervals, to scores of one or several sizes."""
    for name in ("prior", "trees"):
        if all(name in size.others for size in losses):
            mean = np.mean([size.others[name].mean() for size in losses])
            scores["baselines"][name][LOG_LOSS] = figure(mean)
    intervals: Mapping[str, Interval] = loss_intervals(losses)
    if intervals:
        scores["intervals"] |= intervals_json({LOG_LOSS: intervals})


def _add_sizes(
    scores: Scores,
    module: SuperblockStage,
    data: BlockDataModule,
    evaluations: Mapping[int, Evaluation],
    pictures: Mapping[int, NDArray[np.uint32]],
    answers: Mapping[int, PeerAnswers],
) -> None:
    """Add the scores of each size, and the log loss over all sizes, to those of the stage."""
    by_size, losses = {}, []
    for size, evaluation in evaluations.items():
        if not len(evaluation.node):
            continue
        types = module.classifier.types[size]
        counts = [module.hparams["data"]["counts_by_size"][str(size)][type_] for type_ in types]
        if not sum(counts):  # trained on no node of the size
            counts = [1] * len(counts)
        beside = (data.stage_at(size), counts, pictures[size], answers.get(size))
        losses.append(_losses(evaluation, *beside))
        own = {
            **size_scores(evaluation.logits, evaluation.partition, types),
            **_beside(evaluation, *beside),
        }
        _add_losses(own, losses[-1:])
        for guesser in own["baselines"].values():
            guesser.pop("per_class", None)
        by_size[str(size)] = own
    scores |= {LOG_LOSS: mean_log_loss(by_size), BY_SIZE: by_size}
    if "trees" in scores["baselines"]:
        del scores["baselines"]["trees"][LOG_LOSS]  # of 16x16 nodes; all sizes' follows
    _add_losses(scores, losses)
