"""Feeding: blocks a second from the store to a training-ready batch, against three peers.

The peers, each in its best form here: a per-item `Dataset` under a `DataLoader` (what the study
did) and litdata's streaming dataset, their workers searched; and all blocks in one tensor in
memory, batches indexed out of it. Then our own reader under loader workers, with a cold page
cache, and over stores of 10^4 to 10^7 nodes.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import litdata
import numpy as np
import polars as pl
import torch
from measure import compare
from torch.utils.data import DataLoader, Dataset

from av1part.data.serve.blocks import BatchLoader, BlockReader, EpochBatches
from av1part.data.serve.datamodule import BlockDataModule
from av1part.data.store.schema import NODE_SCHEMA
from av1part.data.store.writer import StoreWriter

BATCHES = (128, 1024, 8192)
SECONDS = 0.4
"""Least time of one measurement."""
WORKERS = (0, 1, 2)


def run(folder: Path, *, repeats: int = 3) -> Iterator[Any]:
    """Yield a row a peer, batch size and margin; 8 bit, 16x16.

    Args:
        folder: For litdata's copy and the large stores.
        repeats: Pairs of each.
    """
    for context in (0, 8):
        data = BlockDataModule(context=context)
        reader = data.reader("train")
        whole = reader[np.arange(len(reader))]["block"]
        single = Items(data, reader)
        streamed = stream(whole, folder / f"litdata-{context}")
        for batch in BATCHES:
            peers = {
                "per item": best(lambda n, b=batch, s=single: items(s, b, n)),
                "litdata": best(lambda n, b=batch, s=streamed: lit(s, b, n)),
                "tensor in memory": ("", Memory(whole, batch)),
                **{f"ours, {n} workers": ("", loader(reader, batch, n)) for n in WORKERS if n},
                "ours, cold": ("", None),
            }
            for name, (chosen, peer) in peers.items():
                found = compare(
                    lambda r=reader, b=batch: rate(Bulk(r, b)),
                    lambda p=peer, b=batch, c=context: cold(c, b) if p is None else rate(p),
                    repeats=repeats,
                )
                yield {
                    "what": f"against {name}{chosen}",
                    "batch": batch,
                    "context": context,
                } | vars(found)
    yield from _growing(folder, repeats)


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


def best(make: Any) -> tuple[str, Iterable[torch.Tensor]]:
    """Return the number of workers by which a peer is fastest, as text, and the peer."""
    workers = max(WORKERS, key=lambda n: rate(make(n), 0.3))
    return f", {workers} workers", make(workers)


class Bulk:
    """Ours: the reader, shuffled."""

    def __init__(self, reader: BlockReader, batch: int) -> None:
        self.reader, self.batch = reader, batch

    def __iter__(self) -> Iterator[torch.Tensor]:
        order = np.random.default_rng(1).permutation(len(self.reader))
        for index in np.array_split(order, -(-len(order) // self.batch)):
            yield self.reader[index]["block"]


def loader(reader: BlockReader, batch: int, workers: int) -> Iterable[torch.Tensor]:
    """Return ours as `av1part train` makes it with `data.num_workers`."""
    sampler = EpochBatches(len(reader), batch, shuffle=True)
    batches = BatchLoader(
        reader, batch_size=None, sampler=sampler, num_workers=workers, persistent_workers=True
    )
    return Blocks(batches)


class Blocks:
    """The blocks of batches."""

    def __init__(self, batches: BatchLoader) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[torch.Tensor]:
        for batch in self.batches:
            yield batch["block"]


def cold(context: int, batch: int) -> float:
    """Return the rate of the first epoch over planes that no cache holds."""
    data = BlockDataModule(context=context)
    for file in (data.path / "planes").iterdir():
        with file.open("rb") as handle:
            os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    reader = data.reader("train")
    started = time.perf_counter()
    for _ in Bulk(reader, batch):
        pass
    return len(reader) / (time.perf_counter() - started)


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


def stream(whole: torch.Tensor, folder: Path) -> Path:
    """Write all blocks as litdata keeps them."""
    torch.save(whole, folder.with_suffix(".pt"))
    code = (
        "import sys, torch, litdata\n"
        "whole = torch.load(sys.argv[1])\n"
        "def block(index): return whole[index].clone()\n"
        "if __name__ == '__main__':\n"
        "    places = list(range(len(whole)))\n"
        "    litdata.optimize(block, places, sys.argv[2], chunk_bytes='16MB', num_workers=1)\n"
    )
    script = folder.with_suffix(".py")
    script.write_text(code)
    words = [sys.executable, script, folder.with_suffix(".pt"), folder]
    subprocess.run(words, check=True, capture_output=True)
    return folder


def lit(folder: Path, batch: int, workers: int) -> Iterable[torch.Tensor]:
    """Return litdata's loader of its streaming dataset."""
    dataset = litdata.StreamingDataset(str(folder), shuffle=True)
    loader_: Iterable[torch.Tensor] = litdata.StreamingDataLoader(
        dataset, batch_size=batch, num_workers=workers, persistent_workers=workers > 0
    )
    return loader_


class Memory:
    """All blocks in memory."""

    def __init__(self, whole: torch.Tensor, batch: int) -> None:
        self.whole, self.batch = whole, batch

    def __iter__(self) -> Iterator[torch.Tensor]:
        for index in torch.randperm(len(self.whole)).split(self.batch):
            yield self.whole[index]


def _growing(folder: Path, repeats: int) -> Iterator[Any]:
    """Yield a row for stores of 10^4 to 10^7 nodes, each read by a process of its own."""
    first = None
    for exponent in range(4, 8):
        store = large_store(folder / f"nodes-1e{exponent}", 10**exponent)
        found = [_measured(store) for _ in range(repeats)]
        middle = {key: statistics.median(each[key] for each in found) for key in found[0]}
        ours = middle.pop("blocks_per_second")
        first = first or ours
        rates = [each["blocks_per_second"] / first for each in found]
        yield {
            "what": f"10^{exponent} nodes against 10^4",
            "batch": 1024,
            "context": 0,
            "ours": ours,
            "theirs": first,
            "ratio": ours / first,
            "low": min(rates),
            "high": max(rates),
            "repeats": repeats,
            **middle,
        }


def _measured(store: Path) -> dict[str, float]:
    words = [sys.executable, str(Path(__file__).with_name("large.py")), str(store)]
    ran = subprocess.run(words, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(ran.stdout)
    return found


def large_store(path: Path, count: int) -> Path:
    """Write a store of four 2160p clips with nodes of 16x16 at four qindexes."""
    height, width = 2160, 3840
    grid = np.indices((height // 16, width // 16)).reshape(2, -1).astype(np.int32) * 16
    names, qindexes = [f"clip{n}" for n in range(4)], (80, 128, 172, 220)
    frames = -(-count // (len(names) * len(qindexes) * grid.shape[1]))
    rng, writer = np.random.default_rng(0), StoreWriter(path, {"made": "for a benchmark"})
    plane = rng.integers(0, 256, (1, height, width), dtype=np.uint8)
    parts = []
    for name in names:
        writer.add_plane(name, np.broadcast_to(plane, (frames, height, width)), 8)
        places = pl.DataFrame({"row": grid[0], "col": grid[1]})
        for frame in range(frames):
            for qindex in qindexes:
                constant = {"sequence": name, "frame": frame, "size": 16, "qindex": qindex}
                types = rng.integers(0, 8, len(places))
                parts.append(
                    places.with_columns(
                        **{key: pl.lit(value) for key, value in constant.items()},
                        partition=pl.Series(types),
                    )
                )
    # Some of each clip, so that there are sequences to split by.
    nodes = pl.concat(parts).select(list(NODE_SCHEMA)).cast(dict(NODE_SCHEMA))
    kept = np.sort(rng.choice(len(nodes), count, replace=False))
    return writer.finish(nodes[kept], {name: {"bit_depth": 8} for name in names}, {}).path
