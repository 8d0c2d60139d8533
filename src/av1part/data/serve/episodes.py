"""Tasks of meta-learning: a picture at a qindex, cut into labelled blocks and blocks asked for.

    rows of a picture:   | support ........ | gap | query ............... |

Few-shot learning calls a task with its two sets an episode (Vinyals et al., Matching networks for
one shot learning, NeurIPS 2016). A clip of several frames is cut along time instead, as
`by_segment` does.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from av1part.data.serve.blocks import Batch, BatchLoader, BlockReader, EpochBatches, FeatureReader
from av1part.data.serve.datamodule import BlockDataModule
from av1part.data.store.splits import FEWEST_FRAMES, SPLITS, frame_gap
from av1part.system.errors import StoreError

log = logging.getLogger(__name__)

OUTSIDE, SUPPORT, QUERY = -1, 0, 1
"""Part of a task that a node belongs to."""

FEW, ONE_CLASS = "few", "one_class"
"""Why a picture at a qindex is no task: too few nodes in a part; one class alone in the support."""


@dataclass(frozen=True)
class Episodes:
    """How a picture is cut into support and query.

    Attributes:
        support: Share of the rows (of a clip, frames) outside the gap that come first.
        gap: Luma rows between both parts; of a clip at least one frame.
        support_nodes: Nodes of the support, drawn from those of its part; None takes all.
        least: Fewest nodes of either part.
    """

    support: float = 0.5
    gap: int = 64
    support_nodes: int | None = None
    least: int = 8

    def __post_init__(self) -> None:
        """Check the values, which may come from a file.

        Raises:
            ValueError: naming the option.
        """
        if not (type(self.support) in (int, float) and 0 < self.support < 1):
            raise ValueError(f"method.support must be above 0 and below 1, got {self.support!r}")
        for name, low in (("gap", 0), ("least", 1)):
            value = getattr(self, name)
            if type(value) is not int or value < low:
                raise ValueError(f"method.{name} must be an integer from {low}, got {value!r}")
        nodes = self.support_nodes
        if nodes is not None and (type(nodes) is not int or nodes < self.least):
            raise ValueError(
                f"method.support_nodes must be null or at least method.least={self.least}, got "
                f"{nodes!r}"
            )

    def bounds(self, frames: int, height: int) -> tuple[int, int]:
        """Return where the support ends and where the query begins, in rows, or frames of a clip.

        >>> Episodes().bounds(1, 512), Episodes(support=0.3, gap=16).bounds(50, 512)
        ((224, 288), (15, 16))
        """
        long = frames >= FEWEST_FRAMES
        length, gap = (frames, frame_gap(frames)) if long else (height, self.gap)
        end = round(self.support * max(0, length - gap))
        return end, end + gap


@dataclass(frozen=True)
class Task:
    """A picture at a qindex.

    Attributes:
        sequence: Its name.
        qindex: The qindex.
        support: Positions of its labelled blocks in the split's reader, ascending, int64.
        query: Positions of the blocks that are asked for, likewise.
    """

    sequence: str
    qindex: int
    support: NDArray[np.int64]
    query: NDArray[np.int64]


def cut_tasks(
    reader: BlockReader, labels: NDArray[np.int64], episodes: Episodes, seed: int
) -> tuple[list[Task], Counter[str]]:
    """Cut the pictures of a split into tasks.

    Args:
        reader: The nodes of the split.
        labels: Class of each, int64, shape (n,).
        episodes: How pictures are cut.
        seed: Of the choice of `support_nodes`.

    Returns:
        The tasks, by the pictures' order and qindex; and how many pictures at a qindex were left
        out, by reason.
    """
    tasks: list[Task] = []
    left_out: Counter[str] = Counter()
    if not len(reader):
        return tasks, left_out
    part = _parts(reader, episodes)
    sequence = reader.places()[0].astype(np.int64)
    qindex = reader.store.nodes["qindex"].to_numpy()[reader.nodes].astype(np.int64)
    order = np.lexsort((qindex, sequence))  # stable: positions stay ascending inside a task
    key = np.stack([sequence, qindex])[:, order]
    starts = np.flatnonzero((np.diff(key, prepend=-1) != 0).any(0))
    for members in np.split(order, starts[1:]):
        support, query = (members[part[members] == own] for own in (SUPPORT, QUERY))
        wanted = episodes.least if episodes.support_nodes is None else episodes.support_nodes
        if len(support) < wanted or len(query) < episodes.least:
            left_out[FEW] += 1
            continue
        if episodes.support_nodes is not None:
            rng = np.random.default_rng((seed, int(reader.nodes[members[0]])))
            support = np.sort(rng.choice(support, episodes.support_nodes, replace=False))
        if np.unique(labels[support]).size < 2:
            left_out[ONE_CLASS] += 1
            continue
        name = reader.store.sequences[sequence[members[0]]]
        tasks.append(Task(name, int(qindex[members[0]]), support, query))
    return tasks, left_out


def _parts(reader: BlockReader, episodes: Episodes) -> NDArray[np.int8]:
    """Return the part of each node, int8, shape (n,): wholly in it, or outside of both."""
    code, frame, row, _ = reader.places()
    shapes = [reader.store.plane(name).shape for name in reader.store.sequences]
    bounds = np.array([episodes.bounds(frames, height) for frames, height, _ in shapes])
    timed = np.array([frames >= FEWEST_FRAMES for frames, *_ in shapes])[code]
    first = np.where(timed, frame, row)
    last = first + np.where(timed, 1, reader.size)
    end, begin = bounds[code].T
    part = np.full(len(reader), OUTSIDE, dtype=np.int8)
    part[last <= end] = SUPPORT
    part[first >= begin] = QUERY
    return part


class TaskReader(Dataset[Batch]):
    """Batches of whole tasks, indexed by arrays of task numbers.

    A batch has `task`, the place of each block's task in the batch, int64, and `support`, bool,
    both (b,). The blocks of a task follow one another, its support first.
    """

    def __init__(self, blocks: Dataset[Batch], tasks: Sequence[Task]) -> None:
        """Serve tasks of a reader's blocks, or of their features."""
        self.blocks = blocks
        self.tasks = tasks

    def __len__(self) -> int:
        """Return the number of tasks."""
        return len(self.tasks)

    def __getitem__(self, index: NDArray[np.int64]) -> Batch:
        """Gather a batch; see `BlockReader` and `FeatureReader`."""
        own = [self.tasks[number] for number in index.tolist()]
        parts = [part for task in own for part in (task.support, task.query)]
        sizes = [len(part) for part in parts]
        batch: Batch = self.blocks[np.concatenate(parts)]
        places = torch.arange(2 * len(own)).repeat_interleave(torch.tensor(sizes))
        return {**batch, "task": places // 2, "support": places % 2 == SUPPORT}


class EpisodeDataModule(BlockDataModule):
    """Serves the tasks of each split instead of single blocks; nodes outside of them are left out.

    An epoch's batch holds some tasks in random order, a batch of val or test one.
    """

    def __init__(
        self, path: str | Path | None = None, *, episodes: Episodes, tasks: int = 1, **options: Any
    ) -> None:
        """Check the options; nothing is opened before `setup`.

        Args:
            path: Dataset folder; None is the embedded dataset.
            episodes: How pictures are cut; which nodes are drawn depends on the split's seed.
            tasks: Tasks of a training batch.
            **options: Further arguments of `BlockDataModule`.
        """
        super().__init__(path, **options)
        self.episodes, self.tasks_a_batch = episodes, tasks
        self.tasks: dict[str, list[Task]] = {}
        self.left_out: dict[str, Counter[str]] = {}

    def setup(self, stage: str | None = None) -> None:
        """Open the store, select the nodes of each split and cut them; see `BlockDataModule`."""
        if self.tasks:
            return
        super().setup(stage)
        types = self.store.nodes["partition"].to_numpy()
        for split, reader in self.readers.items():
            labels = self.stage.labels[types[reader.nodes]]
            found = cut_tasks(reader, labels, self.episodes, self.split_seed)
            self.tasks[split], self.left_out[split] = found

    def log_tasks(self) -> None:
        """Log the tasks of each split that has nodes, and how many pictures are none, and why."""
        for split in (name for name in SPLITS if len(self.readers[name])):
            tasks = len(self.tasks[split])
            log.info("%s: %d tasks; %s", split, tasks, self._left_out_text(split))

    def _left_out_text(self, split: str) -> str:
        least, left_out = self.episodes.least, self.left_out[split]
        few = f"fewer than {self.episodes.support_nodes or least} nodes in support"
        few += f" or {least} in query"
        return (
            f"left out of the pictures at a qindex: {left_out[FEW]} with {few}, "
            f"{left_out[ONE_CLASS]} with one class alone in support"
        )

    def reader(self, split: str) -> BlockReader:
        """Return the nodes of a split, which has at least one task; see `BlockDataModule`.

        Args:
            split: `train`, `val` or `test`.

        Returns:
            All its nodes, also those that are in no task.

        Raises:
            StoreError: if the split is empty, or has no task.
        """
        reader = super().reader(split)
        if not self.tasks[split]:
            raise StoreError(
                f"{self.path}: no task in the {split} split: {self._left_out_text(split)}; lower "
                "method.least, method.support_nodes or method.gap, or add pictures"
            )
        return reader

    def scored_reader(self, split: str) -> BlockReader:
        """Return the nodes of all queries of a split."""
        nodes = self.reader(split).nodes
        return self._reader(np.sort(np.concatenate([nodes[t.query] for t in self.tasks[split]])))

    def facts(self) -> dict[str, Any]:
        """Return what a checkpoint records of its data; see `BlockDataModule`."""
        facts = super().facts()
        counts = {
            split: {"tasks": len(self.tasks[split]), **dict(self.left_out[split])}
            for split in SPLITS
            if len(self.readers[split])
        }
        return {**facts, "tasks": counts}

    def _loader(
        self, split: str, *, training: bool, rank: int, ranks: int, in_fit: bool = False
    ) -> BatchLoader:
        blocks: Dataset[Batch] = self.reader(split)
        if in_fit and split in self.features:
            blocks = FeatureReader(self.reader(split), self.features[split])
        sampler = EpochBatches(
            len(self.tasks[split]),
            self.tasks_a_batch if training else 1,
            shuffle=training,
            seed=self.seed,
            rank=rank,
            ranks=ranks,
        )
        return self._batch_loader(TaskReader(blocks, self.tasks[split]), sampler, training=training)
