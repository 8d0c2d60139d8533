"""A million nodes: memory and time for the first batch grow with the nodes alone, and not much."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from av1part.data.store import NODE_SCHEMA, StoreWriter

NODES = 1_000_000
MEMORY_PER_NODE = 160
"""Bytes; ten million nodes may take a GiB, of which reading their table is a third."""

CHILD = """
import re, resource, sys
from av1part.data.datamodule import BlockDataModule
def anonymous():
    status = open("/proc/self/status").read()
    return int(re.search(r"RssAnon:\\s+(\\d+)", status).group(1)) * 1024
before = anonymous()
data = BlockDataModule(sys.argv[1], stage="stage1", batch_size=1024)
batch = next(iter(data.train_dataloader()))
assert batch["block"].shape[0] > 1000
print(anonymous() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_a_million_nodes_take_little_memory(tmp_path: Path) -> None:
    side, sequences = 2048, [f"s{n}" for n in range(4)]
    grid = np.indices((side // 16, side // 16)).reshape(2, -1).astype(np.int32) * 16
    writer = StoreWriter(tmp_path / "large", {"made": "by the tests"})
    frames = -(-NODES // (len(sequences) * grid.shape[1] * 4))
    parts = []
    for name in sequences:
        writer.add_plane(name, np.zeros((frames, side, side), np.uint8), 8)
        for frame in range(frames):
            for qindex in (80, 128, 172, 220):
                parts.append(
                    pl.DataFrame({"row": grid[0], "col": grid[1]}).with_columns(
                        sequence=pl.lit(name),
                        frame=pl.lit(frame),
                        size=pl.lit(16),
                        qindex=pl.lit(qindex),
                        partition=pl.int_range(pl.len()) % 8,
                    )
                )
    nodes = pl.concat(parts).select(list(NODE_SCHEMA)).cast(dict(NODE_SCHEMA))[:NODES]
    path = writer.finish(nodes, {name: {"bit_depth": 8} for name in sequences}, {}).path
    ran = subprocess.run(
        [sys.executable, "-c", CHILD, path], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) < MEMORY_PER_NODE * NODES
