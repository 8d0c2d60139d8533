"""Feeding: blocks a second from the store to a training-ready batch, against two peers.

The peers, each in its best form here: a per-item `Dataset` under a `DataLoader` (what the study
did), its workers searched; and all blocks in one tensor in memory, batches indexed out of it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from measure import compare
from torch.utils.data import DataLoader, Dataset

from av1part.data.blocks import BlockReader
from av1part.data.datamodule import BlockDataModule

BATCHES = (128, 1024, 8192)
SECONDS = 2.0
"""Least time of one measurement."""


def run(*, repeats: int = 5) -> Iterator[Any]:
    """Yield a row a peer and batch size; warm, one process on our side, 8 bit, 16x16.

    Args:
        repeats: Pairs of each.
    """
    for context in (0, 8):
        data = BlockDataModule(context=context)
        reader = data.reader("train")
        whole = reader[np.arange(len(reader))]["block"]
        single = Items(data, reader)
        for batch in BATCHES:
            workers = max((0, 2), key=lambda n: rate(items(single, batch, n), 1.0))
            peers = {
                f"per item, {workers} workers": items(single, batch, workers),
                "tensor in memory": Memory(whole, batch),
            }
            for name, peer in peers.items():
                found = compare(
                    lambda reader=reader, batch=batch: rate(Bulk(reader, batch)),
                    lambda peer=peer: rate(peer),
                    repeats=repeats,
                )
                yield {"what": name, "batch": batch, "context": context, **vars(found)}


def rate(batches: Iterable[torch.Tensor], seconds: float = SECONDS) -> float:
    """Return blocks a second, the first batch left out: workers start with it."""
    blocks, started = 0, 0.0
    while True:
        for block in batches:
            if not started:
                started = time.perf_counter()
                continue
            blocks += len(block)
            spent = time.perf_counter() - started
            if spent > seconds:
                return blocks / spent


class Bulk:
    """Ours: the reader, shuffled."""

    def __init__(self, reader: BlockReader, batch: int) -> None:
        self.reader, self.batch = reader, batch

    def __iter__(self) -> Iterator[torch.Tensor]:
        order = np.random.default_rng(1).permutation(len(self.reader))
        for index in np.array_split(order, -(-len(order) // self.batch)):
            yield self.reader[index]["block"]


class Items(Dataset[torch.Tensor]):
    """The study's way: one block a call, as a view into its padded plane."""

    def __init__(self, data: BlockDataModule, reader: BlockReader) -> None:
        nodes, margin = data.store.nodes[reader.nodes], data.context
        around = ((0, 0), (margin, margin), (margin, margin))
        planes = {s: np.pad(data.store.plane(s), around, "edge") for s in data.store.sequences}
        self.side = reader.size + 2 * margin
        self.planes = [planes[s] for s in nodes["sequence"].to_list()]
        self.places = list(nodes.select("frame", "row", "col").iter_rows())

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> torch.Tensor:
        frame, row, col = self.places[index]
        block = self.planes[index][frame, row : row + self.side, col : col + self.side]
        return torch.from_numpy(block.copy())[None]


def items(single: Items, batch: int, workers: int) -> Iterable[torch.Tensor]:
    """Return the loader of single blocks."""
    return DataLoader(
        single,
        batch_size=batch,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )


class Memory:
    """All blocks in memory."""

    def __init__(self, whole: torch.Tensor, batch: int) -> None:
        self.whole, self.batch = whole, batch

    def __iter__(self) -> Iterator[torch.Tensor]:
        for index in torch.randperm(len(self.whole)).split(self.batch):
            yield self.whole[index]
