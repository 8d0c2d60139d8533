"""Rates at which Stage 2 sends blocks to a Stage 3 by mistake, measured on val."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pytorch_lightning.utilities.seed import isolate_rng

from av1part.checkpoints.load import load_stage
from av1part.data.serve.datamodule import BlockDataModule
from av1part.data.serve.injection import ForeignBlocks, sender
from av1part.evaluation.attach import SHARED_FACTS
from av1part.evaluation.evaluate import Evaluation, evaluate
from av1part.models.freeze import state_sha256
from av1part.partition import Partition, Stage, taxonomy
from av1part.stages.base import StageModule
from av1part.system.errors import CheckpointError, ConfigError

log = logging.getLogger(__name__)


def build_injection(options: Mapping[str, Any], data: Mapping[str, Any]) -> ForeignBlocks | None:
    """Build the injection that a configuration asks for, measuring Stage 2 if need be.

    Args:
        options: `source`, `share`, `labels`, `stage2`.
        data: Arguments of the run's `BlockDataModule`; Stage 2 is evaluated on val of the same.

    Returns:
        The injection, or None for none.

    Raises:
        ConfigError: if the options contradict each other or the stage.
        CheckpointError: if Stage 2's checkpoint is refused, or was trained on other data.
    """
    source, path = options["source"], options["stage2"]
    if path is not None and source != "confusion":
        raise ConfigError(
            f"injection.stage2 is read by injection=confusion alone, not by source {source}: "
            "leave it out, or use injection=confusion"
        )
    if source == "none" or not options["share"]:
        return None
    try:
        tree = taxonomy(data["taxonomy"]).at(data["size"])
        parent, index = sender(tree, tree.stage(data["stage"]))
    except ValueError as error:
        raise ConfigError(str(error)) from None
    rates, sha256 = (1.0,) * len(Partition), None
    if source == "confusion":
        if path is None:
            raise ConfigError(
                "injection=confusion needs injection.stage2=CKPT, a Stage 2 of the same data and "
                "split, or use injection=uniform"
            )
        # Building a network draws random weights, which must not change those of the run.
        with isolate_rng():
            module = load_stage(path, stage=parent.name)
        module_data = BlockDataModule(**{**data, "stage": parent.name})
        _check_same_data(path, module, module_data.facts())
        evaluation = evaluate(module, module_data.batches("val"))
        _warn_of_unmeasured(parent, evaluation)
        rates = sent_by_type(evaluation, index)
        sha256 = state_sha256(module.state_dict())
    return ForeignBlocks(source, float(options["share"]), options["labels"], rates, sha256)


def sent_by_type(evaluation: Evaluation, index: int) -> tuple[float, ...]:
    """Return the share of each type's nodes that a stage predicts as one of its classes.

    Args:
        evaluation: The stage's predictions for its population.
        index: The class.

    Returns:
        Shares by AV1 id, shape (10,); 0 for a type without nodes.
    """
    total, sent = (
        np.bincount(evaluation.partition, weights, minlength=len(Partition))
        for weights in (None, evaluation.predictions == index)
    )
    rates: NDArray[np.float64] = sent / np.maximum(total, 1)
    return tuple(rates.tolist())


def _warn_of_unmeasured(parent: Stage, evaluation: Evaluation) -> None:
    unseen = sorted(parent.population - set(evaluation.partition.tolist()))
    if unseen:
        log.warning(
            "injection: val has no %s, so Stage 2's rate for it is unknown and none is drawn",
            ", ".join(p.name for p in unseen),
        )


def _check_same_data(path: str | Path, module: StageModule, facts: Mapping[str, Any]) -> None:
    differing = [key for key in SHARED_FACTS if module.hparams["data"][key] != facts[key]]
    if differing:
        raise CheckpointError(
            f"injection.stage2={path} was trained with another {', '.join(differing)} than this "
            "run: its mistakes there are not those of this val; train it alike"
        )
