"""Running a stage over batches: the one code path behind validation, verification and cascade."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray

from av1part.data.blocks import Batch
from av1part.metrics import FlatMetrics, from_predictions
from av1part.stages.base import StageModule


@dataclass(frozen=True)
class Evaluation:
    """What a stage says of some nodes.

    Attributes:
        logits: float32, shape (n, k).
        node: Row numbers in the node table, int64, shape (n,).
        partition: True AV1 ids, int64, shape (n,).
        qindex: int64, shape (n,).
    """

    logits: NDArray[np.float32]
    node: NDArray[np.int64]
    partition: NDArray[np.int64]
    qindex: NDArray[np.int64]

    @property
    def predictions(self) -> NDArray[np.int64]:
        """Predicted class indices, int64, shape (n,)."""
        return np.asarray(self.logits.argmax(1), dtype=np.int64)

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """Softmax of the logits, float32, shape (n, k)."""
        shifted = np.exp(self.logits - self.logits.max(1, keepdims=True))
        probabilities: NDArray[np.float32] = shifted / shifted.sum(1, keepdims=True)
        return probabilities


def evaluate(
    module: StageModule, batches: Iterable[Batch], *, limit: int | None = None
) -> Evaluation:
    """Run a stage in eval mode, on its own device, without gradients.

    Args:
        module: The stage; its training mode is restored.
        batches: Batches of integer blocks.
        limit: Only the first so many batches.

    Returns:
        Logits and the nodes they are of, in the batches' order, on the CPU.
    """
    training = module.training
    module.eval()
    logits, kept = [], []
    with torch.inference_mode():
        for batch in islice(batches, limit):
            block, qindex = (batch[k].to(module.device) for k in ("block", "qindex"))
            logits.append(module(block, qindex).float().cpu())
            kept.append({k: batch[k] for k in ("node", "partition", "qindex")})
    module.train(training)
    columns = {k: torch.cat([b[k] for b in kept]).numpy() for k in kept[0]}
    return Evaluation(logits=torch.cat(logits).numpy(), **columns)


def stage_scores(module: StageModule, evaluation: Evaluation) -> FlatMetrics:
    """Score a stage on the nodes of its own population.

    Args:
        module: Whose taxonomy gives the labels.
        evaluation: Its output on nodes that all belong to the stage.

    Returns:
        The flat metrics.
    """
    labels = module.stage.labels[evaluation.partition]
    return from_predictions(evaluation.predictions, labels, module.class_names)
