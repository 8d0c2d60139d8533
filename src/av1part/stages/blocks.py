"""The stages of the cascade: a class for each, over the blocks of nodes of one size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor

from av1part.config.defects import check_names
from av1part.data.serve.blocks import Batch
from av1part.models.adapters import check_adapter_maps
from av1part.models.classifier import Classifier
from av1part.models.defective import make_defective
from av1part.models.freeze import check_layers, thaw_epochs
from av1part.models.losses import build_loss
from av1part.options import META, WITH_ADAPTERS
from av1part.partition import taxonomy as taxonomy_of
from av1part.stages.base import Answers, StageModule
from av1part.stages.meta import MetaOptions, adapted_logits, outer_gradient
from av1part.system.errors import ConfigError

NODE_KEYS = ("node", "partition", "qindex")
"""Entries of a batch that say which nodes its blocks are."""


class BlockStage(StageModule):
    """A classifier of the cascade. Subclasses only set `stage_name`.

    `meta` are the options of `method=meta`, None for all other methods. With it a stage takes its
    outer steps itself (Lightning's manual optimisation), and answers the queries of batches that
    are tasks; of any other batch it answers all blocks, as it is.
    """

    classifier: Classifier
    meta: MetaOptions | None

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
        defects: Sequence[str] | None = None,
    ) -> None:
        """Build the network, loss and metrics.

        Args:
            taxonomy: Name of the taxonomy.
            method: A key of `freeze.METHODS`, which determines what is trained.
            backbone: Arguments of `build_backbone`, and names of input planes, see `Classifier`.
            head: Arguments of `build_head`.
            loss: `kind` and parameters of `build_loss`.
            optimizer: Arguments of `build_optimizer`.
            scheduler: Arguments of `build_scheduler`.
            data: As `BlockDataModule.facts` returns it: bit depth, size, class counts, provenance.
            adapter: Arguments of `build_adapters`, for the method that has them.
            conditioning: `none`, `qindex` or `qindex_blocks`.
            method_options: Of the method, see `freeze.thaw_epochs`.
            seed: Of the random numbers of every step.
            start: Source of the backbone's first weights, with their SHA-256.
            defects: The study's defects that the run has on purpose, names of `DEFECTS`; a normal
                checkpoint has no such hyper-parameter.

        Raises:
            ConfigError: if an option does not exist or does not fit the others.
        """
        super().__init__()
        self.save_hyperparameters(ignore=[] if defects else ["defects"])
        if (method in WITH_ADAPTERS) != (adapter is not None):
            known = " or ".join(f"method={name}" for name in WITH_ADAPTERS)
            raise ConfigError(f"{known} needs an adapter, and no other method has one")
        try:
            self.meta = MetaOptions.of(method_options or {}) if method == META else None
            self._set_classes(taxonomy_of(taxonomy).at(data["size"]))
            self.classifier = Classifier(
                classes=len(self.stage.classes),
                bit_depth=data["bit_depth"],
                size=data["size"],
                backbone=backbone,
                head=head,
                adapter=adapter,
                conditioning=conditioning,  # type: ignore[arg-type]  # checked by Classifier
                thaw=thaw_epochs(method, method_options or {}),
            )
            built = self.classifier.backbone
            built.check_context(data["size"], data["context"])
            check_layers(method, self.classifier.thaw, built.layers())
            side = data["size"] + 2 * data["context"]
            check_adapter_maps(built, self.classifier.adapters, side)
            self.loss = build_loss(data["class_counts"], **loss)
            if defects:
                check_names(defects)
                self.defects = tuple(defects)
                make_defective(self.classifier, defects, data["bit_depth"])
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{self.stage_name}: {error}") from None
        self.automatic_optimization = self.meta is None

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

    def answers(self, batch: Batch) -> Answers:
        """Answer the blocks of a batch; see `StageModule`."""
        if self.meta is not None and "task" in batch:
            logits, batch = self._answer_tasks(batch, self.meta)
        else:
            logits = self(batch["block"], batch["qindex"])
        return {self.hparams["data"]["size"]: (logits, {key: batch[key] for key in NODE_KEYS})}

    def _answer_tasks(self, batch: Batch, options: MetaOptions) -> tuple[Tensor, Batch]:
        """Return the logits of all queries of a batch, and the queries."""
        device = batch["qindex"].device
        on_device = {key: tensor.to(device) for key, tensor in batch.items()}
        found = adapted_logits(self, on_device, steps=options.inner_steps, lr=options.inner_lr)
        logits, queries = zip(*found, strict=True)
        return torch.cat(logits), {k: torch.cat([q[k] for q in queries]) for k in queries[0]}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a batch; of tasks, take the outer step."""
        if self.meta is None:
            return super().training_step(batch, batch_idx)
        gradient, loss = outer_gradient(self, batch, self.meta, self.current_epoch)
        self._losses["train"].append((loss, int((~batch["support"]).sum())))
        parameters, optimizer = dict(self.named_parameters()), self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)  # one alone
        for name, value in gradient.items():
            parameters[name].grad = value
        optimizer.step()
        optimizer.zero_grad()
        for config in self.trainer.lr_scheduler_configs:
            # When Lightning would: after the step, of an epoch's schedule after its last.
            if config.interval == "step" or self.trainer.is_last_batch:
                config.scheduler.step()  # type: ignore[call-arg]  # no schedule of metrics
        return loss

    def _step(self, batch: Batch, split: str) -> dict[str, Tensor]:
        if self.meta is not None and "task" in batch:
            logits, batch = self._answer_tasks(batch, self.meta)
            return self._scored(logits, self.labels(batch), split)
        # Only training batches have soft labels, which then replace the types.
        labels = batch["target"] if "target" in batch else self.labels(batch)
        if "features" in batch:
            assert self.classifier.cut is not None
            logits = self.classifier.from_cut(
                batch["features"], batch["qindex"], self.classifier.cut
            )
        else:
            logits = self(batch["block"], batch["qindex"])
        return self._scored(logits, labels, split)

    def _scored(self, logits: Tensor, labels: Tensor, split: str) -> dict[str, Tensor]:
        """Return the results of a step, and note its loss."""
        loss: Tensor = self.loss(logits, labels)
        self._losses[split].append((loss.detach(), len(labels)))
        return {"loss": loss, "logits": logits.detach(), "labels": labels}


class Stage1(BlockStage):
    """NONE or PARTITION, over all nodes."""

    stage_name = "stage1"


class Stage2(BlockStage):
    """SPLIT, RECT or AB, over the nodes that are not NONE."""

    stage_name = "stage2"


class Stage3Rect(BlockStage):
    """HORZ or VERT."""

    stage_name = "stage3_rect"


class Stage3Ab(BlockStage):
    """HORZ_A, HORZ_B, VERT_A or VERT_B."""

    stage_name = "stage3_ab"


class Stage3OneToFour(BlockStage):
    """HORZ_4 or VERT_4; exists under taxonomy `v6_1to4` alone."""

    stage_name = "stage3_1to4"
