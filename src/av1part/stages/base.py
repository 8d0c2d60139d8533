"""The LightningModule of any stage: thin glue between a network, its losses and the Trainer."""

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
from av1part.models.folded import set_folded_inference
from av1part.models.freeze import layer_rates, state_sha256
from av1part.models.network import Network
from av1part.partition import Stage, Taxonomy
from av1part.stages.optimisation import build_optimizer, build_scheduler

CHECKPOINT_FORMAT = 1
"""Version of the entry `av1part` in every checkpoint."""

LOSSES_KEY = "av1part_losses"
"""Entry of a checkpoint: loss and number of blocks of each step of an unfinished epoch."""

Answers = Mapping[int, tuple[Tensor, Batch]]
"""Node size to logits (n, k) and to `node`, `partition` and `qindex` (n,) of its nodes."""


class StageModule(pl.LightningModule):
    """A network that tells types of nodes apart, trained and validated.

    Hyper-parameters are plain values, so that a checkpoint loads with `weights_only=True` and
    rebuilds its module from the file alone. A subclass saves them, calls `_set_classes`, and says
    how a batch is answered.
    """

    stage_name: ClassVar[str]
    monitor: ClassVar[str] = "val/macro_f1"
    """The metric by which the best checkpoint is chosen."""
    mode: ClassVar[str] = "max"
    """Whether it is to be great, `max`, or small, `min`."""

    defects: tuple[str, ...] = ()
    """The study's defects that it has on purpose; a normal one has none."""

    classifier: Network
    taxonomy: Taxonomy
    stage: Stage
    label_table: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.val_result: Scores = {}
        self.max_steps: int | None = None  # steps that end the training, if set before it
        # Results of an epoch's steps. Lightning's own logging would take longer than a step.
        self._losses: dict[str, list[tuple[Tensor, int]]] = {"train": [], "val": []}
        self._predictions: list[tuple[Tensor, Tensor]] = []

    def _set_classes(self, taxonomy: Taxonomy) -> None:
        """Set the classes, and what counts them in validation.

        Args:
            taxonomy: The taxonomy at the size of the nodes that are scored.
        """
        self.taxonomy = taxonomy
        self.stage = taxonomy.stage(self.stage_name)
        self.class_names = self.stage.class_names
        # Derived from the taxonomy, so not part of the state.
        self.register_buffer("label_table", torch.from_numpy(self.stage.labels), persistent=False)
        # Summed over the processes of a distributed run; every score is a function of it.
        self.val_confusion = MulticlassConfusionMatrix(num_classes=len(self.class_names))

    def answers(self, batch: Batch) -> Answers:
        """Answer a batch that is evaluated, with the code of validation.

        Args:
            batch: As the data module's `batches` gives it; `block` and `qindex` on the module's
                device, labels on any.

        Returns:
            The logits of every size of nodes in the batch.
        """
        raise NotImplementedError

    def _step(self, batch: Batch, split: str) -> dict[str, Tensor]:
        """Return `loss` of a batch, and `logits` and `labels` of the nodes that are scored."""
        raise NotImplementedError

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
        decay = (self.hparams.get("method_options") or {}).get("lr_decay")
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
            "backbone_sha256": state_sha256(self.classifier.backbone_state()),
            **({"defects": list(self.defects)} if self.defects else {}),
        }
