"""Batches of crops with the types of all their nodes, for the superblock network."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from av1part.data.serve.blocks import Batch, BatchLoader, EpochBatches
from av1part.data.serve.costs import CostWeights
from av1part.data.serve.crops import PLACE, CropPlaces, CropReader, Views
from av1part.data.serve.datamodule import BlockDataModule
from av1part.data.serve.device import DeviceCrops
from av1part.data.store.costs import read_regrets
from av1part.data.store.schema import check_covered
from av1part.data.store.splits import SPLITS
from av1part.options import MOST_CROP
from av1part.partition import SIZES, SUPERBLOCK, SUPERBLOCK_STAGE, Partition, Stage, taxonomy
from av1part.system.errors import ConfigError
from av1part.system.files import expanded, sha256_file

REFERENCE_SIZE = 16
"""Node size whose classes, labels and scores stand for the whole network's in a run folder."""


class SuperblockDataModule(BlockDataModule):
    """Serves crops for training, and whole frames for evaluation, with the nodes of all sizes.

    Its blocks, classes and counts as a `BlockDataModule` are those of the nodes of 16x16, without
    a margin. A node is in the split that a `BlockDataModule` of its size puts it in.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        taxonomy: str = "v6",
        crop: int = 256,
        protocol: str = "by_sequence",
        split_seed: int = 42,
        split_list: str | Path | None = None,
        batch_size: int = 8,
        num_workers: int = 0,
        planes: str = "host",
        augment: str = "none",
        levels: bool = False,
        costs: str | Path | None = None,
        cost_weights: CostWeights | None = None,
        seed: int = 42,
    ) -> None:
        """Check the options; nothing is opened before `setup`.

        Args:
            path: Dataset folder; None is the embedded dataset with its own split list.
            taxonomy: `v6` or `v6_1to4`.
            crop: Luma samples a side of a training crop, a multiple of 64.
            protocol: A key of `PROTOCOLS`.
            split_seed: Seed of the split.
            split_list: CSV `sequence,split` for `by_sequence`.
            batch_size: Crops per training batch; evaluation takes one frame at a time.
            num_workers: Loader processes; batches do not depend on it.
            planes: `host`, or `device` to keep them in the memory of the Trainer's device and cut
                the crops of training there.
            augment: `none`, or `symmetries`.
            levels: Whether the luma of training crops is negated and shifted at random.
            costs: File of `write_costs`, whose regrets weigh the training nodes; None: no weights.
            cost_weights: How they do; None: as `CostWeights` does by default.
            seed: Seed of order, places and symmetries.

        Raises:
            ConfigError: if a value is not allowed, or does not fit another option.
        """
        super().__init__(
            path,
            stage=SUPERBLOCK_STAGE,
            taxonomy=taxonomy,
            size=REFERENCE_SIZE,
            protocol=protocol,
            split_seed=split_seed,
            split_list=split_list,
            batch_size=batch_size,
            num_workers=num_workers,
            planes=planes,
            augment=augment,
            seed=seed,
        )
        if crop % SUPERBLOCK or not SUPERBLOCK <= crop <= MOST_CROP:
            raise ConfigError(
                f"data.crop must be a multiple of {SUPERBLOCK} from {SUPERBLOCK} to {MOST_CROP}, "
                f"got {crop}"
            )
        self.crop = crop
        self.levels = levels
        self.costs = None if costs is None else expanded(costs)
        self.cost_weights = cost_weights or CostWeights()
        self._views: dict[str, Views] = {}
        self._crops: DeviceCrops | None = None

    def setup(self, stage: str | None = None) -> None:
        """Open the store and find the nodes of every size in each split; idempotent.

        Args:
            stage: Lightning's name of the next phase; not used, all splits are made.
        """
        if self._views:
            return
        super().setup(stage)
        nodes, division, digest = self.store.nodes, self._division(), hashlib.sha256()
        sequence = pl.col("sequence").cast(pl.Enum(list(self.store.sequences)))
        places = nodes.select(sequence, "frame", "row", "size")
        of_split: dict[str, dict[int, NDArray[np.int64]]] = {name: {} for name in SPLITS}
        for size in SIZES:
            sized = np.flatnonzero(nodes["size"].to_numpy() == size)
            types = nodes["partition"].to_numpy()[sized]
            check_covered(
                types, taxonomy(self.taxonomy_name).at(size), self.taxonomy_name, self.path
            )
            split = division.assign(places[sized])
            digest.update(sized.tobytes() + split.tobytes())
            for index, name in enumerate(SPLITS):
                of_split[name][size] = sized[split == index]
        self.split_sha256 = digest.hexdigest()
        whole = self.protocol != "by_segment"
        weights = {"train": self._weights(of_split["train"])}
        self._views = {
            name: Views(self.store, of_size, whole_frames=whole, weights=weights.get(name))
            for name, of_size in of_split.items()
        }

    def _weights(
        self, nodes: Mapping[int, NDArray[np.int64]]
    ) -> dict[int, NDArray[np.float32]] | None:
        """Return the weights of the training nodes by size, None without costs."""
        if self.costs is None:
            return None
        every = np.concatenate([nodes[size] for size in nodes])
        regret = read_regrets(self.costs, self.store, every)
        types = self.store.nodes["partition"].to_numpy()
        ends = np.cumsum([len(own) for own in nodes.values()])[:-1]
        return {
            size: self.cost_weights(of_size, types[nodes[size]])
            for size, of_size in zip(nodes, np.split(regret, ends), strict=True)
        }

    def views(self, split: str) -> Views:
        """Return the frames of a split, once a qindex; `reader` refuses a split without nodes."""
        self.reader(split)
        return self._views[split]

    def scored(self, split: str) -> dict[int, NDArray[np.int64]]:
        """Return the nodes of a split by size; sizes without a node are left out."""
        return {size: own for size, own in self.views(split).nodes.items() if len(own)}

    def stage_at(self, size: int) -> Stage:
        """Return the stage, whose classes are the types of the size."""
        return taxonomy(self.taxonomy_name).at(size).superblock

    def counts_by_size(self, split: str = "train") -> dict[str, list[int]]:
        """Return the nodes of each type, in the order of the ids, by size, in a split."""
        types = self.store.nodes["partition"].to_numpy()
        return {
            str(size): np.bincount(types[own].astype(np.int64), minlength=len(Partition)).tolist()
            for size, own in self.views(split).nodes.items()
        }

    def facts(self) -> dict[str, Any]:
        """Return what a checkpoint records of its data, as plain values."""
        facts = {**super().facts(), "crop": self.crop, "counts_by_size": self.counts_by_size()}
        # Without costs there is no such key, as in checkpoints from before there were any.
        return facts if self.costs is None else {**facts, "costs_sha256": sha256_file(self.costs)}

    @property
    def training_blocks(self) -> int:
        """Crops of an epoch."""
        return len(self._places.view)

    @property
    def _places(self) -> CropPlaces:
        symmetries = self.augment == "symmetries"
        return CropPlaces(self.views("train"), self.crop, self.seed, symmetries, self.levels)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Return the batch: crops are transformed where they are cut."""
        return batch

    def transfer_batch_to_device(
        self, batch: Batch, device: torch.device, dataloader_idx: int
    ) -> Batch:
        """Move a batch; cut its crops on the device if the planes are there."""
        moved = {key: tensor.to(device, non_blocking=True) for key, tensor in batch.items()}
        if "position" in moved:
            if self._crops is None:
                reader = CropReader(self.views("train"), self.crop, levels=self.levels)
                self._crops = DeviceCrops(reader, device)
            moved["block"] = self._crops(moved.pop("position"))
        return moved

    def _loader(
        self, split: str, *, training: bool, rank: int, ranks: int, in_fit: bool = False
    ) -> BatchLoader:
        views, places = self.views(split), self._places if training else None
        sampler = EpochBatches(
            len(views) if places is None else len(places.view),
            self.batch_size if training else 1,
            shuffle=training,
            seed=self.seed,
            rank=rank,
            ranks=ranks,
            mapped=_WholeFrames(views) if places is None else places,
        )
        dataset = CropReader(
            views,
            self.crop if training else None,
            pixels=not (training and in_fit and self.planes == "device"),
            levels=training and self.levels,
        )
        return self._batch_loader(dataset, sampler, training=training)


class _WholeFrames:
    """Places of whole frames, for `EpochBatches`."""

    def __init__(self, views: Views) -> None:
        self.first_row = views.first_row

    def __call__(self, index: NDArray[np.int64], epoch: int) -> NDArray[np.int64]:
        """Return places, int64 (b, `PLACE`)."""
        places = np.zeros((len(index), PLACE), dtype=np.int64)
        places[:, 0], places[:, 1] = index, self.first_row[index]
        return places
