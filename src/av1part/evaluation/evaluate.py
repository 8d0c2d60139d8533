"""Logits of stages over batches: the one code path of validation, verification and cascade."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from av1part.data.serve.blocks import Batch
from av1part.evaluation.trunk import SharedTrunk
from av1part.metrics.calibration import softmax
from av1part.metrics.scores import Scores, from_predictions
from av1part.models.folded import folded_inference
from av1part.models.precision import computing_in
from av1part.stages.base import StageModule
from av1part.stages.blocks import BlockStage


@dataclass(frozen=True)
class Evaluation:
    """Logits of a stage for some nodes.

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
    def probabilities(self) -> NDArray[np.float64]:
        """Softmax of the logits, float64, shape (n, k)."""
        return softmax(self.logits)


def evaluate(
    module: StageModule,
    batches: Iterable[Batch],
    *,
    limit: int | None = None,
    precision: str = "32-true",
) -> Evaluation:
    """Run a stage on the nodes that it is scored on; as `evaluate_sizes`, for its own size."""
    size: int = module.hparams["data"]["size"]
    return evaluate_sizes(module, batches, limit=limit, precision=precision)[size]


def evaluate_sizes(
    module: StageModule,
    batches: Iterable[Batch],
    *,
    limit: int | None = None,
    precision: str = "32-true",
) -> dict[int, Evaluation]:
    """Run a stage in eval mode, on its own device, without gradients.

    Args:
        module: The stage; its training mode is restored.
        batches: Batches of integer blocks, or of whole frames.
        limit: Only the first so many batches.
        precision: To compute in, a key of `AUTOCASTS`.

    Returns:
        Node size to logits and the nodes that they belong to, in the batches' order, on the CPU.
        A stage of the cascade has one size.
    """
    training = module.training
    module.eval()
    logits: dict[int, list[torch.Tensor]] = {}
    kept: dict[int, list[Batch]] = {}
    with inference(module.device, precision):
        for batch in islice(batches, limit):
            block = batch["block"].to(module.device)
            qindex = batch["qindex"]
            moved = {**batch, "block": block, "qindex": qindex.to(module.device)}
            for size, (values, columns) in module.answers(moved).items():
                logits.setdefault(size, []).append(values.float().cpu())
                kept.setdefault(size, []).append({k: v.cpu() for k, v in columns.items()})
    module.train(training)
    return {
        size: Evaluation(
            logits=torch.cat(parts).numpy(),
            **{k: torch.cat([b[k] for b in kept[size]]).numpy() for k in kept[size][0]},
        )
        for size, parts in logits.items()
    }


def evaluate_together(
    modules: Sequence[BlockStage], batches: Iterable[Batch], *, precision: str = "32-true"
) -> list[Evaluation]:
    """Run several stages over the same batches; what their backbones share is computed once.

    Args:
        modules: The stages, in eval mode, on one device.
        batches: Batches of integer blocks.
        precision: To compute in, a key of `AUTOCASTS`.

    Returns:
        For each module what `evaluate` would return.
    """
    trunk = SharedTrunk([module.classifier for module in modules])
    device, kept = modules[0].device, []
    logits: list[list[torch.Tensor]] = [[] for _ in modules]
    with inference(device, precision):
        for batch in batches:
            blocks = trunk.blocks(batch["block"].to(device), batch["qindex"].to(device))
            for member, parts in enumerate(logits):
                parts.append(blocks.logits(member).float().cpu())
            kept.append({k: batch[k] for k in ("node", "partition", "qindex")})
    columns = {k: torch.cat([b[k] for b in kept]).numpy() for k in kept[0]}
    return [Evaluation(logits=torch.cat(parts).numpy(), **columns) for parts in logits]


@contextmanager
def inference(device: torch.device, precision: str) -> Iterator[None]:
    """Compute without gradients, with every layer folded, in a precision.

    Args:
        device: The modules' device.
        precision: A key of `AUTOCASTS`.

    Yields:
        Nothing.
    """
    with torch.inference_mode(), computing_in(precision, device), folded_inference():
        yield


def log_loss(module: StageModule, evaluation: Evaluation) -> float:
    """Return the mean negative log probability of the true classes, in nats; as `stage_scores`."""
    labels = torch.from_numpy(module.stage.labels[evaluation.partition])
    logits = torch.from_numpy(evaluation.logits)
    return float(cross_entropy(logits, labels, reduction="none").double().mean())


def stage_scores(module: StageModule, evaluation: Evaluation) -> Scores:
    """Score a stage on the nodes of its own population.

    Args:
        module: The stage, whose taxonomy gives the labels.
        evaluation: Its logits for nodes that all belong to the stage.

    Returns:
        The flat metrics.
    """
    labels = module.stage.labels[evaluation.partition]
    return from_predictions(evaluation.predictions, labels, module.class_names)
