"""Batches of integer blocks for one stage: filter by taxonomy, split, sample, augment."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from av1part import embedded
from av1part.data.serve.augment import Augmenter, turned_positions
from av1part.data.serve.blocks import (
    Batch,
    BatchLoader,
    BlockReader,
    EpochBatches,
    FeatureReader,
    balanced,
)
from av1part.data.serve.device import DeviceBlocks, NodeReader
from av1part.data.serve.injection import ForeignBlocks, is_foreign
from av1part.data.serve.settings import check_served
from av1part.data.store.schema import check_covered
from av1part.data.store.splits import (
    SPLITS,
    Division,
    check_protocol,
    read_split_list,
)
from av1part.data.store.store import Store
from av1part.partition import Partition, Stage, taxonomy
from av1part.system.errors import ConfigError, StoreError
from av1part.system.files import expanded
from av1part.system.signals import ignore_signals_except_parents

_STATISTICS_NODES = 4096
"""Training blocks, evenly spaced, whose pixel statistics a checkpoint records."""


class BlockDataModule(pl.LightningDataModule):
    """Serves the nodes that reach a stage, from a store on disk.

    `features` may hold, for train (in the order of `training_reader`) and val, features that the
    Trainer gets instead of blocks, as `FeatureReader` takes them; evaluation always gets blocks.

    Only the node columns of a store are in memory; blocks are read from the mapped planes batch by
    batch. Blocks stay integers; the model's first layer scales them.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        stage: str = "stage1",
        taxonomy: str = "v6",
        size: int = 16,
        context: int = 0,
        protocol: str = "by_sequence",
        split_seed: int = 42,
        split_list: str | Path | None = None,
        batch_size: int = 128,
        eval_batch_size: int = 1024,
        num_workers: int = 0,
        planes: str = "host",
        sampling: str = "natural",
        augment: str = "none",
        noise: float = 0.0,
        mixup: float = 0.0,
        injection: ForeignBlocks | None = None,
        seed: int = 42,
        defects: Iterable[str] = (),
    ) -> None:
        """Check the options; nothing is opened before `setup`.

        Args:
            path: Dataset folder; None is the embedded dataset with its own split list.
            stage: Stage whose population and labels are served.
            taxonomy: `v6` or `v6_1to4`.
            size: Luma samples a side of the nodes.
            context: Margin around each block, in luma samples.
            protocol: A key of `PROTOCOLS`.
            split_seed: Seed of the split; separate from `seed`, so that all seeds share one split.
            split_list: CSV `sequence,split` for `by_sequence`.
            batch_size: Training blocks per batch, see `EpochBatches`.
            eval_batch_size: Validation blocks per batch.
            num_workers: Loader processes; batches do not depend on it.
            planes: `host`, or `device` to keep them in the memory of the Trainer's device and cut
                the blocks of training and validation there.
            sampling: `natural`, or `balanced` to draw each class of the stage equally often.
            augment: `none`, or `symmetries` for the eight symmetries with their label maps.
            noise: Standard deviation of the noise as a share of each training block's own.
            mixup: Alpha of the Beta distribution of mixup's weights; 0 for no mixup.
            injection: Foreign blocks among the training blocks of a Stage 3.
            seed: Seed of order and augmentation.
            defects: The study's defects that the run has on purpose; of these the wrong label maps
                are made here.

        Raises:
            ConfigError: if a value is not allowed, or does not fit another option.
        """
        super().__init__()
        check_served(
            {"sampling": sampling, "augment": augment, "protocol": protocol, "size": size}
            | {"planes": planes, "batch_size": batch_size, "eval_batch_size": eval_batch_size}
            | {"context": context, "num_workers": num_workers, "noise": noise, "mixup": mixup}
            | {"split_list": split_list}
        )
        self.path = embedded.STORE if path is None else expanded(path)
        if path is None and split_list is None and protocol == "by_sequence":
            split_list = embedded.SPLIT_LIST
        self.split_list = split_list
        self.stage_name, self.taxonomy_name = stage, taxonomy
        self.size, self.context = size, context
        self.protocol, self.split_seed = protocol, split_seed
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.num_workers, self.planes = num_workers, planes
        self.sampling, self.augment, self.seed = sampling, augment, seed
        self.noise, self.mixup, self.injection = noise, mixup, injection
        self.defects = tuple(defects)
        self.readers: dict[str, BlockReader] = {}
        self.features: dict[str, torch.Tensor] = {}
        self._on_device: dict[bool, DeviceBlocks] = {}
        self._training: BatchLoader | None = None
        self._position: dict[str, int] | None = None

    def setup(self, stage: str | None = None) -> None:
        """Open the store and select the nodes of each split; idempotent.

        Args:
            stage: Lightning's name of the next phase; not used, all splits are made.

        Raises:
            StoreError: if the dataset cannot be opened or does not suit the settings.
            ConfigError: if there is no such taxonomy, or it has no such stage at this size.
        """
        if self.readers:
            return
        try:
            self.taxonomy = taxonomy(self.taxonomy_name).at(self.size)
            self.stage = self.taxonomy.stage(self.stage_name)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        self.store = Store.open(self.path)
        self.store.bit_depth()
        check_protocol(self.protocol, self.store.manifest.get("protocols"), str(self.path))
        nodes = self.store.nodes
        sized = np.flatnonzero(nodes["size"].to_numpy() == self.size)
        partition = nodes["partition"].to_numpy()[sized]
        check_covered(partition, self.taxonomy, self.taxonomy_name, self.path)
        # As an Enum, since selecting rows of strings would copy every string.
        sequence = polars.col("sequence").cast(polars.Enum(list(self.store.sequences)))
        division = self._division()
        split = division.assign(nodes.select(sequence, "frame", "row", "size")[sized])
        self.division_sha256 = division.sha256(self.size)
        self.type_counts = np.bincount(
            partition[split == SPLITS.index("train")].astype(np.int64), minlength=len(Partition)
        )
        self.split_sha256 = hashlib.sha256(sized.tobytes() + split.tobytes()).hexdigest()
        reaches = self.stage.labels[partition] >= 0
        if self.injection is not None:
            foreign = is_foreign(partition, self.taxonomy, self.stage)
            self.foreign = sized[foreign & (split == SPLITS.index("train"))]
        self.readers = {
            name: self._reader(sized[reaches & (split == index)])
            for index, name in enumerate(SPLITS)
        }

    def _division(self) -> Division:
        listed = None
        if self.protocol == "given":
            listed = self.store.manifest.get("given_split")
        elif self.split_list is not None:
            listed = read_split_list(self.split_list)
        shapes = {name: self.store.plane(name).shape for name in self.store.sequences}
        return Division(shapes, self.protocol, self.split_seed, listed, self.store.groups)

    def reader(self, split: str) -> BlockReader:
        """Return the blocks of a split.

        Args:
            split: `train`, `val` or `test`.

        Returns:
            The blocks, at least one.

        Raises:
            StoreError: if the split is empty; there is no fallback to another.
            ConfigError: if there is no such split.
        """
        self.setup()
        if split not in SPLITS:
            raise ConfigError(f"split must be one of {SPLITS}, got {split!r}")
        reader = self.readers[split]
        if not len(reader):
            raise StoreError(
                f"{self.path}: no {self.size}x{self.size} node of {self.stage_name} in the {split} "
                f"split (data.protocol={self.protocol}): add sources or choose another protocol"
            )
        return reader

    def labels(self, split: str) -> NDArray[np.int64]:
        """Return the stage's class of every node of a split, int64."""
        types = self.store.nodes["partition"].to_numpy()[self.reader(split).nodes]
        labels: NDArray[np.int64] = self.stage.labels[types]
        return labels

    def scored_reader(self, split: str) -> BlockReader:
        """Return the blocks of a split that the stage is scored on, of its own size."""
        return self.reader(split)

    def scored(self, split: str) -> dict[int, NDArray[np.int64]]:
        """Return the nodes of a split that the stage is scored on, by size."""
        return {self.size: self.scored_reader(split).nodes}

    def stage_at(self, size: int) -> Stage:
        """Return the stage, with its classes at one of the sizes of `scored`."""
        self.setup()
        return self.stage

    def class_counts(self, split: str = "train") -> list[int]:
        """Return the nodes of each class of the stage in a split."""
        counts = np.bincount(self.labels(split), minlength=len(self.stage.classes))
        return [int(count) for count in counts]

    def facts(self) -> dict[str, Any]:
        """Return what a checkpoint records of its data, as plain values."""
        self.setup()
        train = self.reader("train")
        return {
            "path": str(self.path.resolve()),
            "manifest_sha256": self.store.manifest_sha256,
            "taxonomy": self.taxonomy_name,
            "size": self.size,
            "context": self.context,
            "split": self.protocol,
            "split_seed": self.split_seed,
            "split_sha256": self.split_sha256,
            "division_sha256": self.division_sha256,
            "split_list": None if self.split_list is None else str(Path(self.split_list).resolve()),
            "eval_batch_size": self.eval_batch_size,
            "bit_depth": self.store.bit_depth(),
            "class_counts": self.class_counts("train"),
            "type_counts": self.type_counts.tolist(),
            "injection": self.injection and self.injection.facts(len(train), self._foreign_types),
            "qindex": np.unique(self.store.nodes["qindex"].to_numpy()[train.nodes]).tolist(),
            "input_statistics": self.input_statistics("train"),
        }

    def input_statistics(self, split: str) -> dict[str, float]:
        """Return mean, standard deviation, minimum and maximum of blocks, in sample units."""
        reader = self.reader(split)
        spaced = np.linspace(0, len(reader) - 1, min(len(reader), _STATISTICS_NODES))
        block = reader[spaced.astype(np.int64)]["block"].numpy()
        return {
            "mean": float(block.mean(dtype=np.float64)),
            "std": float(block.std(dtype=np.float64)),
            "min": float(block.min()),
            "max": float(block.max()),
        }

    def batches(self, split: str, *, ranks: int = 1) -> Iterable[Batch]:
        """Return the batches of the first of `ranks` processes, in node order, for evaluation."""
        return self._loader(split, training=False, rank=0, ranks=ranks)

    @property
    def training_blocks(self) -> int:
        """Blocks of an epoch, with those of other classes that are injected."""
        own = len(self.reader("train"))
        return own + (0 if self.injection is None else self.injection.count(own))

    def batch_counts(self, *, ranks: int = 1) -> dict[str, int]:
        """Return the batches of the first of `ranks` processes: of an epoch, `train`, and `val`."""
        return {
            split: len(self._loader(split, training=split == "train", rank=0, ranks=ranks))
            for split in ("train", "val")
        }

    def train_dataloader(self) -> Any:
        """Return the training batches."""
        self._training = self._loader("train", training=True, in_fit=True, **self._share())
        if self._position is not None:
            self._training.load_state_dict(self._position)
        return self._training

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the epoch, which Lightning loses if a scheduler counts steps."""
        return {} if self._training is None else {"training": self._training.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the position in the epoch."""
        self._position = state_dict.get("training")

    def val_dataloader(self) -> Any:
        """Return the validation batches of this process."""
        return self._loader("val", training=False, in_fit=True, **self._share())

    def transfer_batch_to_device(
        self, batch: Batch, device: torch.device, dataloader_idx: int
    ) -> Batch:
        """Move a batch; Lightning's own recursive way takes a tenth of a training step."""
        moved = {key: tensor.to(device, non_blocking=True) for key, tensor in batch.items()}
        if "position" in moved:
            moved["block"] = self._cut_on(device)(moved.pop("position"))
        return moved

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augment training batches on the device."""
        trainer = self.trainer
        if trainer is None or not trainer.training:
            return batch
        epoch, rank = trainer.current_epoch, trainer.global_rank
        # Batches, not the optimizer's steps, which may each accumulate several.
        step = epoch * int(trainer.num_training_batches)
        step += trainer.fit_loop.epoch_loop.batch_progress.current.ready
        return self.augmenter(batch, epoch=epoch, step=step, rank=rank)

    def _cut_on(self, device: torch.device) -> DeviceBlocks:
        """Return the blocks on the device of the split that the Trainer is using."""
        assert self.trainer is not None
        training = bool(self.trainer.training)
        if training not in self._on_device:
            reader = self.training_reader() if training else self.reader("val")
            shared = next(iter(self._on_device.values()), None)
            self._on_device[training] = DeviceBlocks(reader, device, shared)
        return self._on_device[training]

    @property
    def changes_pixels(self) -> bool:
        """Whether samples of training blocks change, so that features cannot be cached."""
        return self.noise > 0 or self.mixup > 0

    @property
    def augmenter(self) -> Augmenter:
        """The augmentation of training batches."""
        return Augmenter(
            self.stage,
            self.seed,
            self.store.bit_depth(),
            self.store.nodes.height,
            self.context,
            symmetries=self.augment == "symmetries",
            noise=self.noise,
            mixup=self.mixup,
            foreign=None if self.injection is None else self.injection.labels,
            defects=self.defects,
        )

    def _share(self) -> dict[str, int]:
        trainer = self.trainer
        if trainer is None:
            return {"rank": 0, "ranks": 1}
        return {"rank": trainer.global_rank, "ranks": trainer.world_size}

    def training_reader(self) -> BlockReader:
        """Return the blocks of train, followed by the foreign blocks that may be drawn."""
        reader = self.reader("train")
        if self.injection is None:
            return reader
        return self._reader(np.concatenate([reader.nodes, self.foreign]))

    def _loader(
        self, split: str, *, training: bool, rank: int, ranks: int, in_fit: bool = False
    ) -> BatchLoader:
        reader = self.training_reader() if training else self.reader(split)
        own, foreign, drawn = len(self.reader(split)), None, 0
        balance = training and self.sampling == "balanced"
        if training and self.injection is not None:
            foreign = self.injection.weights(self._foreign_types)
            drawn = self.injection.count(own)
        dataset: Dataset[Batch] = reader
        mapped = None
        if in_fit and split in self.features:
            dataset = FeatureReader(reader, self.features[split])
            if len(self.features[split]) > 1:
                rows = self.store.nodes.height
                mapped = partial(turned_positions, nodes=reader.nodes, rows=rows, seed=self.seed)
        elif in_fit and self.planes == "device":
            dataset = NodeReader(reader)
        sampler = EpochBatches(
            own,
            self.batch_size if training else self.eval_batch_size,
            shuffle=training,
            seed=self.seed,
            weights=balanced(self.labels("train")) if balance else None,
            foreign=foreign,
            drawn=drawn,
            rank=rank,
            ranks=ranks,
            mapped=mapped,
        )
        return self._batch_loader(dataset, sampler, training=training)

    def _batch_loader(
        self, dataset: Dataset[Batch], sampler: EpochBatches, *, training: bool
    ) -> BatchLoader:
        # With a generator of its own, a loader does not draw from the global random state.
        return BatchLoader(
            dataset,
            batch_size=None,
            sampler=sampler,
            num_workers=self.num_workers if training else 0,
            worker_init_fn=ignore_signals_except_parents,
            generator=torch.Generator().manual_seed(self.seed),
            persistent_workers=training and self.num_workers > 0,
        )

    def _reader(self, nodes: NDArray[Any]) -> BlockReader:
        return BlockReader(self.store, nodes.astype(np.int64), size=self.size, context=self.context)

    @property
    def _foreign_types(self) -> NDArray[Any]:
        types: NDArray[Any] = self.store.nodes["partition"].to_numpy()[self.foreign]
        return types
