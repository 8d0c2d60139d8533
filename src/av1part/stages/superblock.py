"""The stage of the superblock network: every type of every node of four sizes in one pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics.classification import MulticlassConfusionMatrix

from av1part.data.serve.blocks import Batch
from av1part.data.serve.crops import node_key, partition_key, weight_key
from av1part.data.serve.superblocks import REFERENCE_SIZE
from av1part.metrics.scores import (
    accuracy_from_confusion,
    confusion_matrix,
    figure,
    macro_f1_from_confusion,
)
from av1part.models.losses import build_loss
from av1part.models.superblock import SuperblockNetwork
from av1part.options import COST_SENSITIVE, MOST_CROP
from av1part.partition import IGNORED, SIZES, SUPERBLOCK, SUPERBLOCK_STAGE, Partition
from av1part.partition import taxonomy as taxonomy_of
from av1part.runs.schema import BY_SIZE, LOG_LOSS
from av1part.stages.base import Answers, StageModule
from av1part.system.errors import ConfigError


class SuperblockStage(StageModule):
    """The superblock network. Its classes are the types of 16x16 nodes.

    A step's loss is the mean over the nodes of a size, then over the sizes, so that 64x64 nodes
    count as much as the 64 times as many of 8x8.
    """

    stage_name = SUPERBLOCK_STAGE
    monitor = f"val/{LOG_LOSS}"
    mode = "min"
    classifier: SuperblockNetwork

    def __init__(
        self,
        *,
        taxonomy: str,
        backbone: Mapping[str, Any],
        loss: Mapping[str, Any],
        optimizer: Mapping[str, Any],
        scheduler: Mapping[str, Any],
        data: Mapping[str, Any],
        conditioning: str = "qindex",
        method: str = "scratch",
        seed: int = 42,
        start: Mapping[str, Any] | None = None,
    ) -> None:
        """Build the network, a loss a size, and metrics.

        Args:
            taxonomy: Name of the taxonomy.
            backbone: `width`, `depth`, `planes` and `energies` of `SuperblockNetwork`.
            loss: `kind` and parameters of `build_loss`.
            optimizer: Arguments of `build_optimizer`.
            scheduler: Arguments of `build_scheduler`.
            data: As `SuperblockDataModule.facts` returns it.
            conditioning: `none`, or `qindex` or `qindex_blocks`, which are the same here.
            method: `scratch`, the only one.
            seed: Of the random numbers of every step.
            start: Source of the first weights; there is none but chance.

        Raises:
            ConfigError: if an option does not exist or does not fit the others.
        """
        super().__init__()
        self.save_hyperparameters()
        if method != "scratch":
            raise ConfigError(f"{self.stage_name} is trained from a random start, not by {method}")
        try:
            _check_data(data)
            types = taxonomy_of(taxonomy)
            self._set_classes(types.at(data["size"]))
            self.classifier = SuperblockNetwork(
                taxonomy=types,
                bit_depth=data["bit_depth"],
                conditioning=conditioning,  # type: ignore[arg-type]  # checked there
                **backbone,
            )
            columns = self.classifier.types
            counts = {
                size: _legal(data["counts_by_size"][str(size)], columns[size]) for size in SIZES
            }
            self.losses = nn.ModuleDict(
                {str(size): build_loss(counts[size], **loss) for size in SIZES}
            )
        except (KeyError, ValueError, TypeError) as error:
            raise ConfigError(f"{self.stage_name}: {error}") from None
        self.sizes = tuple(size for size in SIZES if sum(counts[size]))
        for size in SIZES:
            self.register_buffer(f"column_{size}", _columns(columns[size]), persistent=False)
        self.size_confusion = nn.ModuleDict(
            {str(size): MulticlassConfusionMatrix(num_classes=len(columns[size])) for size in SIZES}
        )
        self._log_losses: list[Tensor] = []

    def forward(self, block: Tensor, qindex: Tensor) -> dict[int, Tensor]:
        """Return the logits of every size, (b, 10, rows, cols), for integer crops and qindex."""
        logits: dict[int, Tensor] = self.classifier(block, qindex)
        return logits

    def _nodes(self, logits: Tensor, types: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """Return the nodes that exist: logits (n, k) of the size's types, and their columns (n,).

        Raises:
            ValueError: if a node's type does not belong to the taxonomy.
        """
        exists = types != IGNORED
        legal = logits.permute(0, 2, 3, 1)[exists.to(logits.device)][:, self.classifier.types[size]]
        column: Tensor = getattr(self, f"column_{size}")
        labels = column[types[exists].to(column.device).long()]
        # On a GPU this would wait for the device; there the loss refuses a negative class.
        if labels.device.type == "cpu" and (labels < 0).any():
            raise ValueError(f"a {size}x{size} node is of a type that {self.taxonomy.name} has not")
        return legal, labels

    def answers(self, batch: Batch) -> Answers:
        """Answer all nodes of the frames of a batch; see `StageModule`."""
        found = {}
        for size, logits in self(batch["block"], batch["qindex"]).items():
            types, node = batch[partition_key(size)], batch[node_key(size)]
            exists = types != IGNORED
            frame = exists.nonzero()[:, 0]
            columns = {
                "node": node[exists],
                "partition": types[exists].long(),
                "qindex": batch["qindex"].to(frame.device)[frame],
            }
            found[size] = self._nodes(logits, types, size)[0], columns
        return found

    def _step(self, batch: Batch, split: str) -> dict[str, Tensor]:
        losses, sizes, step = [], 0, {}
        # Validation stays unweighed, so that runs of all losses compare.
        weighed = split == "train" and self.hparams["loss"]["kind"] == COST_SENSITIVE
        for size, logits in self(batch["block"], batch["qindex"]).items():
            types = batch[partition_key(size)]
            legal, labels = self._nodes(logits, types, size)
            weight = (batch[weight_key(size)][types != IGNORED],) if weighed else ()
            # Zero, and not nothing, so that under DDP every parameter has a gradient.
            losses.append(
                self.losses[str(size)](legal, labels, *weight) if len(labels) else 0 * legal.sum()
            )
            sizes += len(labels) > 0
            if split == "val":
                self._count(legal.detach(), labels, size)
            if size == self.hparams["data"]["size"]:
                step = {"logits": legal.detach(), "labels": labels}
        loss = torch.stack(losses).sum() / max(1, sizes)
        self._losses[split].append((loss.detach(), len(batch["qindex"])))
        return {"loss": loss, **step}

    def _count(self, logits: Tensor, labels: Tensor, size: int) -> None:
        """Count the nodes of a validated batch."""
        nll = nn.functional.cross_entropy(logits.float(), labels, reduction="none").double()
        sums = torch.zeros(len(SIZES), 2, dtype=torch.float64)
        sums[SIZES.index(size)] = torch.stack([nll.sum().cpu(), torch.tensor(float(len(labels)))])
        self._log_losses.append(sums)
        self._confusion(size).update(logits.argmax(1), labels)

    def _confusion(self, size: int) -> MulticlassConfusionMatrix:
        confusion = self.size_confusion[str(size)]
        assert isinstance(confusion, MulticlassConfusionMatrix)
        return confusion

    def on_validation_epoch_end(self) -> None:
        """Log the log loss of every size and of all, and what every stage logs."""
        super().on_validation_epoch_end()
        sums = torch.stack(self._log_losses).sum(0).to(self.device)
        self._log_losses.clear()
        sums = self.trainer.strategy.reduce(sums, reduce_op="sum").cpu()
        by_size = {}
        for size, (total, count) in zip(SIZES, sums.tolist(), strict=True):
            matrix = self._confusion(size).compute().cpu().numpy()
            self._confusion(size).reset()
            if count:
                by_size[str(size)] = _size_scores(total / count, matrix)
                self.log(f"val/{LOG_LOSS}_{size}", total / count)
        overall = mean_log_loss(by_size)
        self.log(f"val/{LOG_LOSS}", overall, prog_bar=True)
        self.val_result |= {LOG_LOSS: overall, BY_SIZE: by_size}


def mean_log_loss(by_size: Mapping[str, Mapping[str, float]]) -> float:
    """Return the mean log loss over the node sizes, in which every size counts the same."""
    return figure(sum(scores[LOG_LOSS] for scores in by_size.values()) / len(by_size))


def size_scores(logits: Any, partition: Any, types: Sequence[int]) -> dict[str, float]:
    """Score the nodes of one size.

    Args:
        logits: Array, shape (n, k), of the size's types.
        partition: True AV1 ids, int64, shape (n,).
        types: The k types of the columns.

    Returns:
        `log_loss` in nats, `accuracy`, `macro_f1` and `nodes`.
    """
    labels = _columns(types)[torch.from_numpy(partition)]
    nll = nn.functional.cross_entropy(torch.from_numpy(logits).double(), labels)
    matrix = confusion_matrix(logits.argmax(1), labels.numpy(), len(types))
    return _size_scores(float(nll), matrix)


def _size_scores(log_loss: float, matrix: Any) -> dict[str, float]:
    return {
        LOG_LOSS: figure(log_loss),
        "accuracy": figure(accuracy_from_confusion(matrix)),
        "macro_f1": figure(macro_f1_from_confusion(matrix)),
        "nodes": int(matrix.sum()),
    }


def _check_data(data: Mapping[str, Any]) -> None:
    """Check what is recorded of the data, which may be a file's claim.

    Raises:
        ValueError: if there is no such data.
    """
    if (data["size"], data["context"]) != (REFERENCE_SIZE, 0):
        raise ValueError(f"its scores are of {REFERENCE_SIZE}x{REFERENCE_SIZE} nodes")
    crop = data["crop"]
    if type(crop) is not int or crop % SUPERBLOCK or not SUPERBLOCK <= crop <= MOST_CROP:
        raise ValueError(f"no crop has {crop!r} samples a side")
    if not data["qindex"]:
        raise ValueError("no qindex was trained on")


def _legal(counts: Sequence[int], types: Sequence[int]) -> list[int]:
    """Return the counts of a size's types.

    Raises:
        ValueError: if they do not count the ten types.
    """
    if len(counts) != len(Partition) or min(counts) < 0:
        raise ValueError("counts_by_size must count the ten types of every size")
    return [counts[type_] for type_ in types]


def _columns(types: Sequence[int]) -> Tensor:
    """Return the column of each type among those of a size, int64 (10,), or `IGNORED`."""
    column = torch.full((len(Partition),), IGNORED, dtype=torch.int64)
    column[list(types)] = torch.arange(len(types))
    return column
