"""Blocks cut on the device are those that the reader gathers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from av1part.data.serve.blocks import BlockReader
from av1part.data.serve.device import DeviceBlocks, NodeReader
from av1part.data.store.schema import NODE_SCHEMA
from av1part.data.store.store import Store
from av1part.data.store.writer import StoreWriter

CPU = torch.device("cpu")


@pytest.fixture(params=[8, 10])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Noise in frames of odd sizes, one of them hardly larger than a block."""
    rng, depth = np.random.default_rng(3), int(request.param)
    writer = StoreWriter(tmp_path / "noise", {"made": "by the tests"})
    shapes = {"wide": (2, 37, 61), "tall": (1, 67, 35), "small": (3, 17, 16)}
    rows = []
    for name, (frames, height, width) in shapes.items():
        dtype = np.uint8 if depth == 8 else np.uint16
        plane = rng.integers(0, 1 << depth, (frames, height, width)).astype(dtype)
        writer.add_plane(name, plane, depth)
        rows += [
            (name, frame, row, col, 16, 80, 0)
            for frame in range(frames)
            for row in range(0, height - 15, 4)
            for col in range(0, width - 15, 4)
        ]
    nodes = pl.DataFrame(rows, schema=NODE_SCHEMA, orient="row")
    return writer.finish(nodes, {name: {"bit_depth": depth} for name in shapes}, {})


@pytest.mark.parametrize("context", [0, 3, 20])
def test_they_are_the_readers(store: Store, context: int) -> None:
    reader = BlockReader(store, np.arange(len(store.nodes)), size=16, context=context)
    index = np.random.default_rng(1).permutation(len(reader))
    cut = DeviceBlocks(reader, CPU)
    batch = NodeReader(reader)[index]
    wanted = reader[index]
    found = cut(batch["position"])
    assert found.dtype == wanted["block"].dtype
    assert torch.equal(found, wanted["block"])
    assert torch.equal(batch["node"], wanted["node"])
    other = BlockReader(store, np.arange(7), size=16, context=context)
    again = DeviceBlocks(other, CPU, cut)
    assert again.samples is cut.samples, "the planes are there once"
    assert torch.equal(again(torch.arange(7)), other[np.arange(7)]["block"])
