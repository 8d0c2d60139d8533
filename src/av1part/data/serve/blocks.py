"""Blocks from memory-mapped planes, gathered with one indexing call per sequence of a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from av1part.data.store.store import Store
from av1part.system.errors import StoreError

Batch = dict[str, Tensor]
"""`block` [b, 1, s, s] uint8 or int16; `qindex`, `partition`, `node` int64 [b].

A training batch may have `target`, float32 [b, k]: soft labels, used instead of `partition`.
"""


class BlockReader(Dataset[Batch]):
    """Nodes of one size as batches of integer blocks, indexed by arrays of positions in `nodes`.

    `nodes` holds node numbers, rows of nodes.parquet; `dtype` is that of the samples in a batch.
    """

    def __init__(self, store: Store, nodes: NDArray[np.int64], *, size: int, context: int = 0):
        """Store places and labels of the nodes as compact arrays.

        Args:
            store: The dataset.
            nodes: Node numbers, all of nodes of `size`.
            size: Luma samples a side.
            context: Margin around the block, in luma samples; replicated at frame edges.

        Raises:
            StoreError: if samples have more than 15 bits.
        """
        depth = store.bit_depth()
        if depth > 15:
            raise StoreError(f"{store.path} has {depth}-bit samples; batches hold at most 15 bits")
        self.store = store
        self.size = size
        self.context = context
        self.nodes = nodes
        self.dtype = np.dtype(np.uint8 if depth <= 8 else np.int16)
        sequence, frame, row, col = self.places()
        shapes = np.array([store.plane(name).shape for name in store.sequences], dtype=np.int32)
        height, width = shapes[sequence, 1], shapes[sequence, 2]
        top, left = row - context, col - context
        inside = (top >= 0) & (left >= 0)
        inside &= (row + size + context <= height) & (col + size + context <= width)
        self._sequence = sequence
        # Where a block begins in its plane's memory; 0 for blocks whose margin leaves the frame,
        # which `_fill_edges` gathers.
        self._start = frame.astype(np.int64)  # in place from here on: there may be many nodes
        for step in (np.multiply, height), (np.add, top), (np.multiply, width), (np.add, left):
            step[0](self._start, step[1], out=self._start)
        self._start *= inside
        self._at_edge = np.flatnonzero(~inside)
        self._frame, self._row, self._col = (x[self._at_edge] for x in (frame, row, col))
        self._qindex = store.nodes["qindex"].to_numpy()[nodes]
        self._partition = store.nodes["partition"].to_numpy()[nodes]
        self._rows: dict[int, NDArray[np.void]] = {}

    def places(self) -> tuple[NDArray[np.uint16], NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Return sequence number, frame, row and column of each node, integers, (n,) each."""
        frame, row, col = (
            self.store.nodes[column].to_numpy()[self.nodes] for column in ("frame", "row", "col")
        )
        return self.store.sequence_codes[self.nodes], frame, row, col

    def __getstate__(self) -> dict[str, Any]:
        """Leave out views of memory maps: a worker process maps the files itself."""
        return {**self.__dict__, "_rows": {}}

    def __len__(self) -> int:
        """Return the number of nodes."""
        return len(self.nodes)

    def __getitem__(self, index: NDArray[np.int64]) -> Batch:
        """Gather a batch.

        Args:
            index: Positions in `nodes` (not node numbers), int64, shape (b,).

        Returns:
            A batch; blocks are copies, with s = size + 2 context.
        """
        side = self.size + 2 * self.context
        block = np.empty((len(index), side, side), dtype=self.dtype)
        sequence = self._sequence[index]
        order = np.argsort(sequence, kind="stable")
        ends = np.searchsorted(sequence[order], np.arange(len(self.store.sequences) + 1))
        rows = block.view(f"V{side * block.itemsize}")[:, :, 0]
        start = self._start[index[order]]
        for code, (first, last) in enumerate(pairwise(ends.tolist())):
            if first < last and len(plane_rows := self._plane_rows(code)):
                rows[order[first:last]] = plane_rows[start[first:last]]
        if len(self._at_edge):
            self._fill_edges(index, block)
        return {"block": torch.from_numpy(block)[:, None], **self.labels(index)}

    def labels(self, index: NDArray[np.int64]) -> Batch:
        """Gather `qindex`, `partition` and `node` of positions (b,), without the blocks."""
        return {
            "qindex": torch.from_numpy(self._qindex[index].astype(np.int64)),
            "partition": torch.from_numpy(self._partition[index].astype(np.int64)),
            "node": torch.from_numpy(self.nodes[index].astype(np.int64)),
        }

    def _plane_rows(self, code: int) -> NDArray[np.void]:
        """View a plane as the rows of the block that begins at each of its samples, (n, s).

        A row is one record, which numpy copies at once.
        """
        rows = self._rows.get(code)
        if rows is None:
            plane, side = self._plane(code), self.size + 2 * self.context
            width, itemsize = plane.shape[2], plane.itemsize
            starts = max(0, plane.size - (side - 1) * width - side + 1)
            rows = self._rows[code] = np.ndarray(
                (starts, side),
                f"V{side * itemsize}",
                buffer=plane,
                strides=(itemsize, width * itemsize),
            )
        return rows

    def _plane(self, code: int) -> NDArray[Any]:
        return self.store.plane(self.store.sequences[code])

    def _fill_edges(self, index: NDArray[np.int64], block: NDArray[Any]) -> None:
        """Gather, sample by sample, the blocks whose margin leaves the frame.

        Clipped indices repeat the edge samples, which is the replicated margin.
        """
        place = np.searchsorted(self._at_edge, index)
        at = np.flatnonzero(self._at_edge[np.minimum(place, len(self._at_edge) - 1)] == index)
        place, sequence = place[at], self._sequence[index[at]]
        offsets = np.arange(-self.context, self.size + self.context)
        for code in np.unique(sequence):
            in_plane = sequence == code
            plane, edge = self._plane(int(code)), place[in_plane]
            rows = np.clip(self._row[edge, None] + offsets, 0, plane.shape[1] - 1)
            cols = np.clip(self._col[edge, None] + offsets, 0, plane.shape[2] - 1)
            frame = self._frame[edge, None, None]
            block[at[in_plane]] = plane[frame, rows[:, :, None], cols[:, None, :]]


class FeatureReader(Dataset[Batch]):
    """The blocks of a reader as precomputed features.

    A batch has `features`, float [b, ...], instead of `block`. With n blocks, position i + t n is
    block i under symmetry t.
    """

    def __init__(self, reader: BlockReader, features: Tensor) -> None:
        """Serve features of the n blocks under t symmetries, (t, n, c) or (t, n, h, w, c)."""
        self.reader = reader
        self.features = features.flatten(0, 1)

    def __len__(self) -> int:
        """Return the number of nodes."""
        return len(self.reader)

    def __getitem__(self, index: NDArray[np.int64]) -> Batch:
        """Gather a batch; see `BlockReader`."""
        features = self.features.index_select(0, torch.from_numpy(index))
        if features.dim() == 4:
            features = features.permute(0, 3, 1, 2)  # in the memory format of convolutions
        return {"features": features, **self.reader.labels(index % len(self.reader))}


class EpochBatches(Sampler[NDArray[np.int64]]):
    """Batches of positions, a function of (seed, epoch) alone: the same for any number of workers.

    Every position is served once per epoch, in batches of nearly equal size. Since BatchNorm fails
    on a batch of one, shuffled batches hold two positions at least where `batch_size` does: of an
    odd number in batches of two, one batch has three. With `weights`, positions are drawn with
    replacement instead. With `foreign`, the epoch has further, foreign positions in random order
    among the others.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        weights: NDArray[np.float64] | None = None,
        foreign: NDArray[np.float64] | None = None,
        drawn: int = 0,
        rank: int = 0,
        ranks: int = 1,
        mapped: Callable[[NDArray[np.int64], int], NDArray[np.int64]] | None = None,
    ) -> None:
        """Set up the batches.

        Args:
            count: Number of positions.
            batch_size: Largest number of positions per batch, but for the one of three.
            shuffle: A new order each epoch; else ascending.
            seed: Seed of the orders.
            weights: Probability of each position, for balanced sampling, shape (count,).
            foreign: Probability of each foreign position, which follow the first `count`; they are
                drawn with replacement. Needs `shuffle`.
            drawn: Number of foreign positions per epoch.
            rank: Rank of this process, which takes every `ranks`-th batch.
            ranks: Number of processes.
            mapped: Maps positions and epoch to the positions to yield; None yields them as drawn.
        """
        self.count = count
        self.mapped = mapped
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.weights = weights
        self.foreign = foreign
        self.drawn = 0 if foreign is None else drawn
        self.rank = rank
        self.ranks = ranks
        self.epoch = 0
        self.start = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, whose order is served next; Lightning calls it before each."""
        self.epoch = epoch

    @property
    def _batches(self) -> int:
        """Batches of all ranks, at least one per rank, since a rank without any would stop the run.

        Training ranks must take equally many steps: batches get smaller, so that no block repeats.
        """
        positions = self.count + self.drawn
        needed = max(self.ranks, -(-positions // self.batch_size))
        if not self.shuffle:
            return needed
        wanted = -(-needed // self.ranks) * self.ranks
        pairs = positions // min(2, self.batch_size) // self.ranks * self.ranks
        return max(self.ranks, min(wanted, pairs))

    def __len__(self) -> int:
        """Return the number of batches per epoch on this rank."""
        return len(range(self.rank, self._batches, self.ranks))

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        """Yield int64 arrays of positions."""
        order = self._shuffled() if self.shuffle else np.arange(self.count)
        batches = np.array_split(order, self._batches)
        for batch in batches[self.rank :: self.ranks][self.start :]:
            yield batch if self.mapped is None else self.mapped(batch, self.epoch)

    def _shuffled(self) -> NDArray[np.int64]:
        rng = np.random.default_rng((self.seed, self.epoch))
        if self.weights is None:
            order = rng.permutation(self.count)
        else:
            order = rng.choice(self.count, self.count, p=self.weights)
        if self.foreign is not None:
            drawn = self.count + rng.choice(len(self.foreign), self.drawn, p=self.foreign)
            order = rng.permutation(np.concatenate([order, drawn]))
        return order


def balanced(labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the probability of each position, (n,), that makes all classes equally likely."""
    weights: NDArray[np.float64] = 1.0 / np.bincount(labels)[labels]
    weights /= weights.sum()
    return weights


class BatchLoader(DataLoader[Batch]):
    """A loader that starts an epoch with the request for its first batch, not before.

    In a resumed run Lightning takes the iterator before it sets the sampler's epoch; worker
    processes would then read the order of another epoch. The state is the epoch and the number of
    batches served: a run resumed inside an epoch gets the remaining batches.
    """

    _position: Mapping[str, int] = {"epoch": -1, "batches": 0}

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]  # a generator on purpose
        """Yield the remaining batches of the sampler's epoch."""
        assert isinstance(self.sampler, EpochBatches)
        epoch, resumed = self.sampler.epoch, self._position
        within = self.sampler.shuffle and resumed["epoch"] == epoch  # val may be read several times
        start = resumed["batches"] if within else 0
        self.sampler.start = start
        for served, batch in enumerate(super().__iter__(), start + 1):
            self._position = {"epoch": epoch, "batches": served}
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return the epoch and the number of its batches that were served."""
        return dict(self._position)

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Restore a state, before the first batch."""
        self._position = {key: int(state[key]) for key in ("epoch", "batches")}
