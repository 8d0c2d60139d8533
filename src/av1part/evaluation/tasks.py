"""Scores on tasks of pictures: stages after some steps on their labels, and what else these allow.

    task -> support -> k inner steps of a stage | ridge regression | class frequencies
         -> query   -> classes -> confusion of each picture -> scores, by picture (`metrics.paired`)

Shapes: k classes of the stage.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from av1part.data.serve.blocks import Batch
from av1part.data.serve.episodes import EpisodeDataModule, Episodes
from av1part.data.store.splits import SPLITS
from av1part.evaluation.attach import DataSource, attach_data, check_pixels
from av1part.metrics.intervals import METRICS
from av1part.metrics.paired import Resampled
from av1part.metrics.ridge import ridge_classes
from av1part.metrics.scores import confusion_matrix, prior_confusion
from av1part.models.classifier import POOLED
from av1part.stages.blocks import BlockStage
from av1part.stages.inner import adapt, adaptable, logits_with, trunk_features
from av1part.system.errors import ConfigError, StoreError

log = logging.getLogger(__name__)

ALL = "all"
"""Stands for all splits of a dataset that nothing was trained on."""

Confuse = Callable[[BlockStage, Batch], Mapping[Any, NDArray[Any]]]
"""Answers the query of a task in several ways: key of each to its confusion matrix, (k, k)."""


def open_tasks(
    module: BlockStage, episodes: Episodes, source: DataSource, split: str
) -> tuple[EpisodeDataModule, list[str]]:
    """Open the tasks of a split of a stage's own data, or of other data.

    Args:
        module: The stage, of any method.
        episodes: How pictures are cut.
        source: The dataset.
        split: A split of it, or `all` if it is another dataset than the stage's own.

    Returns:
        The data, and its splits to score, which have tasks.

    Raises:
        ConfigError: if the stage was trained on what would be scored.
        StoreError: if the data does not fit the stage, has no task, or has pictures of the train
            or val split of the stage's own data; where that cannot be told, a warning says so.
    """
    ordinary = attach_data(module, source, stage=module.stage_name)
    facts = module.hparams["data"]
    own = ordinary.store.manifest_sha256 == facts["manifest_sha256"]
    if split not in (ALL, *SPLITS) or (own and split in (ALL, "train")):
        raise ConfigError(f"split={split}: give val or test, or {ALL} of a dataset of its own")
    data = EpisodeDataModule(
        ordinary.path,
        stage=module.stage_name,
        taxonomy=module.taxonomy.name,
        size=facts["size"],
        context=facts["context"],
        protocol=ordinary.protocol,
        split_seed=ordinary.split_seed,
        split_list=ordinary.split_list,
        episodes=episodes,
    )
    data.setup()
    data.log_tasks()
    asked = SPLITS if split == ALL else (split,)
    splits = [name for name in asked if data.tasks[name]] or list(asked[:1])
    for name in splits:
        check_pixels(module, data, name)  # which needs a task
    if not own:
        _check_pictures(module, data, splits)
    return data, splits


def _check_pictures(module: BlockStage, data: EpisodeDataModule, splits: Sequence[str]) -> None:
    """Check that no task of another dataset is of a picture that the stage was trained on.

    Warns where the files do not tell.

    Raises:
        StoreError: if a picture is one of the train or val split of the stage's own data.
    """
    try:  # of the root stage, which has every node: the trunk was trained as one
        trained = attach_data(module, stage=module.taxonomy.root.name)
    except StoreError as error:
        log.warning(
            "cannot check whether %s has pictures that the checkpoint was trained on: %s",
            data.path,
            error,
        )
        return
    nodes = np.concatenate([trained.readers[name].nodes for name in ("train", "val")])
    used = {trained.store.sequences[k] for k in np.unique(trained.store.sequence_codes[nodes])}
    asked = {task.sequence for name in splits for task in data.tasks[name]}
    seen = {own: name for name in used for own in trained.store.origins(name)}
    for name in sorted(asked):
        for own in data.store.origins(name) & seen.keys():
            raise StoreError(
                f"{name} of {data.path} is {seen[own]} of {trained.path}, which the checkpoint "
                "was trained or chosen on: give a split or a dataset without it"
            )
    for store, names in ((trained.store, used), (data.store, asked)):
        without = sum("source_sha256" not in store.manifest["sequences"][name] for name in names)
        if without:
            log.warning(
                "%s names no source of %d pictures: only equal planes of them are found in what "
                "the checkpoint was trained on",
                store.path,
                without,
            )


def tasks_of(data: EpisodeDataModule, splits: Sequence[str]) -> Iterator[tuple[str, Batch]]:
    """Yield each task of some splits, with the picture that it is of."""
    for split in splits:
        for task, batch in zip(data.tasks[split], data.batches(split), strict=True):
            yield data.store.groups[task.sequence], batch


def score_tasks(
    members: Sequence[BlockStage],
    data: EpisodeDataModule,
    splits: Sequence[str],
    confuse: Confuse,
) -> dict[Any, Resampled]:
    """Score the queries of all tasks, pooled, the mean over the seeds of a training.

    Args:
        members: A stage a seed; each gets every task.
        data: The tasks.
        splits: Those that are scored.
        confuse: Answers a task.

    Returns:
        Key of each answer to its scores, which `metrics.paired` compares by picture.
    """
    scores = []
    for module in members:
        found: dict[Any, dict[str, NDArray[np.float64]]] = {}
        for picture, batch in tasks_of(data, splits):
            for key, matrix in confuse(module, batch).items():
                of_picture = found.setdefault(key, {})
                before = of_picture.get(picture, np.zeros(matrix.shape))
                of_picture[picture] = before + matrix
        scores.append(
            {
                key: Resampled.of(np.stack([own[name] for name in sorted(own)]), METRICS)
                for key, own in found.items()
            }
        )
    return {key: Resampled.mean([own[key] for own in scores]) for key in scores[0]}


def after_steps(
    module: BlockStage, batch: Batch, rates: Mapping[float, Sequence[int]]
) -> dict[tuple[float, int], NDArray[np.int64]]:
    """Adapt a stage to a task, and answer its query.

    Args:
        module: The stage.
        batch: The task.
        rates: Learning rate to the numbers of steps, ascending, after which it answers.

    Returns:
        Rate and steps to the confusion, (k, k).
    """
    features, own = trunk_features(module, batch), batch["support"]
    support = {"features": features[own]} | {k: batch[k][own] for k in ("qindex", "partition")}
    found = {}
    for rate, steps in rates.items():
        phi, taken = adaptable(module), 0
        for wanted in steps:
            # Plain SGD has no state: ten steps are five and five.
            phi = adapt(module, support, steps=wanted - taken, lr=rate, values=phi)
            taken = wanted
            with torch.inference_mode():
                logits = logits_with(module, phi, features[~own], batch["qindex"][~own])
            found[rate, wanted] = _confusion(module, batch, logits.argmax(1).numpy())
    return found


def by_ridge(
    module: BlockStage, batch: Batch, strengths: Mapping[bool, Sequence[float]]
) -> dict[tuple[bool, float], NDArray[np.int64]]:
    """Answer a task by ridge regression on the pooled features of a stage's trunk.

    Args:
        module: The stage; its adapters, conditioning and head are not used.
        batch: The task.
        strengths: Whether classes are balanced, to strengths.

    Returns:
        Both to the confusion, (k, k); see `ridge_classes`.
    """
    with torch.inference_mode():
        pooled = module.classifier.trunk(batch["block"], batch["qindex"], POOLED).numpy()
    own, k = batch["support"].numpy(), len(module.class_names)
    labels = module.labels(batch).numpy()[own]
    return {
        (balanced, strength): _confusion(module, batch, predicted)
        for balanced, asked in strengths.items()
        for strength, predicted in ridge_classes(
            pooled[own], labels, pooled[~own], k, asked, balanced=balanced
        ).items()
    }


def by_frequencies(module: BlockStage, batch: Batch) -> dict[str, NDArray[Any]]:
    """Answer a task by the class frequencies of its support alone.

    Args:
        module: The stage, which says the classes.
        batch: The task.

    Returns:
        `prior`: the expected confusion of classes drawn by them; `majority`: that of the most
        frequent class; both (k, k).
    """
    labels, k = module.labels(batch).numpy(), len(module.class_names)
    own = batch["support"].numpy()
    counts, asked = (np.bincount(labels[part], minlength=k) for part in (own, ~own))
    majority = np.full(int((~own).sum()), counts.argmax())
    return {
        "prior": prior_confusion(asked, counts),
        "majority": _confusion(module, batch, majority),
    }


def _confusion(module: BlockStage, batch: Batch, predicted: NDArray[Any]) -> NDArray[np.int64]:
    labels = module.labels(batch)[~batch["support"]].numpy()
    return confusion_matrix(predicted, labels, len(module.class_names))
