"""The LightningModule of a stage: thin glue between a `Classifier`, a loss and the Trainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from av1part import __version__
from av1part.data.serve.blocks import Batch
from av1part.metrics.scores import Scores, from_confusion
from av1part.models.adapters import check_adapter_maps
from av1part.models.classifier import Classifier
from av1part.models.folded import set_folded_inference
from av1part.models.freeze import layer_rates, state_sha256, thaw_epochs
from av1part.models.losses import build_loss
from av1part.partition import taxonomy as taxonomy_of
from av1part.stages.optimisation import build_optimizer, build_scheduler
from av1part.system.errors import ConfigError

CHECKPOINT_FORMAT = 1
"""Version of the entry `av1part` in every checkpoint."""

LOSSES_KEY = "av1part_losses"
"""Entry of a checkpoint: loss and number of blocks of each step of an unfinished epoch."""


class StageModule(pl.LightningModule):
    """One classifier of the hierarchy, trained and validated.

    Hyper-parameters are plain values, so that a checkpoint loads with `weights_only=True` and
    rebuilds its module from the file alone. Subclasses only set `stage_name`.
    """

    stage_name: ClassVar[str]
    label_table: Tensor

    def __init__(
        self,
        *,
        taxonomy: str,
        method: str,
        backbone: Mapping[str, Any],
        head: Mapping[str, Any],
        loss: Mapping[str, Any],
        optimizer: Mapping[str, Any],
        scheduler: Mapping[str, Any],
        data: Mapping[str, Any],
        adapter: Mapping[str, Any] | None = None,
        conditioning: str = "none",
        method_options: Mapping[str, Any] | None = None,
        seed: int = 42,
        start: Mapping[str, Any] | None = None,
    ) -> None:
        """Build the network, loss and metrics.

        Args:
            taxonomy: Name of the taxonomy.
            method: A key of `freeze.METHODS`, which determines what is trained.
            backbone: Arguments of `ResNet18`.
            head: Arguments of `build_head`.
            loss: `kind` and parameters of `build_loss`.
            optimizer: Arguments of `build_optimizer`.
            scheduler: Arguments of `build_scheduler`.
            data: As `BlockDataModule.facts` returns it: bit depth, size, class counts, provenance.
            adapter: Arguments of `build_adapters`, for the method that has them.
            conditioning: `none` or `qindex`.
            method_options: Of the method, see `freeze.thaw_epochs`.
            seed: Of the random numbers of every step.
            start: Source of the backbone's first weights, with their SHA-256.

        Raises:
            ConfigError: if an option does not exist or does not fit the others.
        """
        super().__init__()
        self.save_hyperparameters()
        if (method == "adapter") != (adapter is not None):
            raise ConfigError("method=adapter needs an adapter, and only that method has one")
        try:
            self.taxonomy = taxonomy_of(taxonomy).at(data["size"])
            self.stage = self.taxonomy.stage(self.stage_name)
            self.classifier = Classifier(
                classes=len(self.stage.classes),
                bit_depth=data["bit_depth"],
                backbone=backbone,
                head=head,
                adapter=adapter,
                conditioning=conditioning,  # type: ignore[arg-type]  # checked by Classifier
                thaw=thaw_epochs(method, method_options or {}),
            )
            side = data["size"] + 2 * data["context"]
            check_adapter_maps(self.classifier.backbone, self.classifier.adapters, side)
            self.loss = build_loss(data["class_counts"], **loss)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{self.stage_name}: {error}") from None
        self.class_names = self.stage.class_names
        # Derived from the taxonomy, so not part of the state.
        self.register_buffer("label_table", torch.from_numpy(self.stage.labels), persistent=False)
        # Summed over the processes of a distributed run; every score is a function of it.
        self.val_confusion = MulticlassConfusionMatrix(num_classes=len(self.class_names))
        self.val_result: Scores = {}
        self.max_steps: int | None = None  # steps that end the training, if set before it
        # Results of an epoch's steps. Lightning's own logging would take longer than a step.
        self._losses: dict[str, list[tuple[Tensor, int]]] = {"train": [], "val": []}
        self._predictions: list[tuple[Tensor, Tensor]] = []

    def forward(self, block: Tensor, qindex: Tensor) -> Tensor:
        """Return logits (b, k) for integer blocks (b, 1, s, s) and qindex (b,)."""
        logits: Tensor = self.classifier(block, qindex)
        return logits

    def labels(self, batch: Batch) -> Tensor:
        """Look up the stage's class of each block.

        Args:
            batch: With `partition`, AV1 ids, int64 of shape (b,).

        Returns:
            Class indices, int64 of shape (b,).

        Raises:
            ValueError: if a block's partition type does not reach this stage.
        """
        labels = self.label_table[batch["partition"]]
        # On a GPU this would wait for the device; there the loss refuses a negative class.
        if labels.device.type == "cpu" and (labels < 0).any():
            raise ValueError(f"a block in the batch does not belong to {self.stage_name}")
        return labels

    def _step(self, batch: Batch, split: str) -> dict[str, Tensor]:
        # Only training batches have soft labels, which then replace the types.
        labels = batch["target"] if "target" in batch else self.labels(batch)
        if "features" in batch:
            assert self.classifier.cut is not None
            logits = self.classifier.from_cut(
                batch["features"], batch["qindex"], self.classifier.cut
            )
        else:
            logits = self(batch["block"], batch["qindex"])
        loss: Tensor = self.loss(logits, labels)
        self._losses[split].append((loss.detach(), len(labels)))
        return {"loss": loss, "logits": logits.detach(), "labels": labels}

    def on_train_start(self) -> None:
        """Prepare an epoch that is resumed inside: its start hook is not called."""
        self.classifier.set_epoch(self.current_epoch)
        self._losses["train"] = [(loss.to(self.device), n) for loss, n in self._losses["train"]]

    def on_train_epoch_start(self) -> None:
        """Freeze or thaw layers as the method's schedule says for this epoch."""
        self.classifier.set_epoch(self.current_epoch)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed dropout from seed and batch, so that a resumed run draws the same numbers."""
        # Only the generator in use: `torch.manual_seed` seeds those of all devices, which takes as
        # long as the rest of a short step.
        index = self.device.index or 0
        generator = (
            torch.default_generator
            if self.device.type != "cuda"
            else torch.cuda.default_generators[index]
        )
        batch_of_run = self.current_epoch * int(self.trainer.num_training_batches) + batch_idx
        generator.manual_seed((self.hparams["seed"] + 1) * 1_000_003 + batch_of_run)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        return self._step(batch, "train")["loss"]

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Collect the predictions of a batch, and return its loss, logits and labels."""
        step = self._step(batch, "val")
        self._predictions.append((step["logits"].argmax(1), step["labels"]))
        return step

    def on_validation_start(self) -> None:
        """Fold convolutions as `evaluate` does, so that both round alike."""
        set_folded_inference(True)

    def on_validation_end(self) -> None:
        """Stop folding: weights change again."""
        set_folded_inference(False)

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of the whole validation split, and the mean losses of the epoch."""
        predicted, labels = (torch.cat(parts) for parts in zip(*self._predictions, strict=True))
        self.val_confusion.update(predicted, labels)
        matrix = self.val_confusion.compute().cpu().numpy()
        self.val_result = from_confusion(matrix, self.class_names)
        self.val_confusion.reset()
        self._predictions.clear()
        for split, losses in self._losses.items():
            if losses:
                self.log(f"{split}/loss", self._mean(losses))
                losses.clear()
        for name in ("macro_f1", "accuracy"):
            self.log(f"val/{name}", self.val_result[name], prog_bar=name == "macro_f1")

    def _mean(self, losses: Sequence[tuple[Tensor, int]]) -> Tensor:
        """Return the mean loss of an epoch over the blocks of all processes."""
        blocks = torch.tensor([count for _, count in losses], dtype=torch.float64)
        means = torch.stack([loss for loss, _ in losses]).double().cpu()
        total = torch.stack([(means * blocks).sum(), blocks.sum()]).to(self.device)
        total = self.trainer.strategy.reduce(total, reduce_op="sum")
        return (total[0] / total[1]).float()

    def configure_optimizers(self) -> Any:
        """Return the optimizer over the parameters that are ever trained, and its schedule."""
        options = dict(self.hparams["optimizer"])
        decay = (self.hparams["method_options"] or {}).get("lr_decay")
        if decay is not None:
            options["lr"] = {**options["lr"], **layer_rates(options["lr"]["backbone"], decay)}
        groups = self.classifier.parameter_groups(by_layer=decay is not None)
        # Lightning cannot clip gradients that a fused step has yet to unscale.
        fused = not (self.trainer.gradient_clip_val and "mixed" in str(self.trainer.precision))
        optimizer = build_optimizer(groups, **options, fused=fused)
        return build_scheduler(
            optimizer, self.trainer, max_steps=self.max_steps, **self.hparams["scheduler"]
        )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the losses of an interrupted epoch; of several processes, only the first does."""
        losses = checkpoint.get(LOSSES_KEY, []) if self.global_rank == 0 else []
        self._losses["train"] = [(torch.tensor(loss), count) for loss, count in losses]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the checkpoint's identity, and the losses of an unfinished epoch."""
        losses = [(float(loss), count) for loss, count in self._losses["train"]]
        if torch.distributed.is_initialized():
            gathered: list[Any] = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(gathered, losses)
            losses = [entry for of_process in gathered for entry in of_process]
        checkpoint[LOSSES_KEY] = losses
        groups = self.classifier.parameter_groups().values()
        trained = {id(parameter) for group in groups for parameter in group}
        checkpoint["av1part"] = {
            "format": CHECKPOINT_FORMAT,
            "av1part": __version__,
            "stage": self.stage_name,
            "taxonomy": self.taxonomy.name,
            "classes": {
                name: [p.name for p in members] for name, members in self.stage.classes.items()
            },
            "parameters": {
                "trainable": [n for n, p in self.named_parameters() if id(p) in trained],
                "frozen": [n for n, p in self.named_parameters() if id(p) not in trained],
            },
            "state_sha256": state_sha256(checkpoint["state_dict"]),
            "backbone_sha256": state_sha256(self.classifier.backbone.state_dict()),
        }


class Stage1(StageModule):
    """NONE or PARTITION, over all nodes."""

    stage_name = "stage1"


class Stage2(StageModule):
    """SPLIT, RECT or AB, over the nodes that are not NONE."""

    stage_name = "stage2"


class Stage3Rect(StageModule):
    """HORZ or VERT."""

    stage_name = "stage3_rect"


class Stage3Ab(StageModule):
    """HORZ_A, HORZ_B, VERT_A or VERT_B."""

    stage_name = "stage3_ab"


class Stage3OneToFour(StageModule):
    """HORZ_4 or VERT_4; exists under taxonomy `v6_1to4` alone."""

    stage_name = "stage3_1to4"


STAGES: Mapping[str, type[StageModule]] = {
    cls.stage_name: cls for cls in (Stage1, Stage2, Stage3Rect, Stage3Ab, Stage3OneToFour)
}
"""Stage name to its module."""


def stage_class(name: str) -> type[StageModule]:
    """Return the module class of a stage.

    Args:
        name: Name of the stage.

    Returns:
        The class.

    Raises:
        ConfigError: if there is no such stage.
    """
    if name not in STAGES:
        raise ConfigError(f"stage must be one of {', '.join(STAGES)}, got {name!r}")
    return STAGES[name]
