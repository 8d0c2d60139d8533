"""A million nodes: memory for the first batch grows with the nodes alone, and not much."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from av1part.data.store.schema import NODE_SCHEMA
from av1part.data.store.writer import StoreWriter

FEW, MANY = 200_000, 1_000_000
BYTES_PER_NODE = 200
"""Of each further node, so that what any store takes (threads, buffers) is not counted.

Measured: 147 to 152, part of it what allocators keep. A Python object a node would be over it.
"""

CHILD = """
import re, resource, sys
from av1part.data.serve.datamodule import BlockDataModule
def anonymous():
    status = open("/proc/self/status").read()
    return int(re.search(r"RssAnon:\\s+(\\d+)", status).group(1)) * 1024
before = anonymous()
data = BlockDataModule(sys.argv[1], stage="stage1", batch_size=1024)
batch = next(iter(data.train_dataloader()))
assert batch["block"].shape[0] > 1000
print(anonymous() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_a_million_nodes_take_little_memory(tmp_path: Path) -> None:
    few, many = (_memory(_store(tmp_path / str(count), count)) for count in (FEW, MANY))
    assert many - few < BYTES_PER_NODE * (MANY - FEW)


def _memory(store: Path) -> int:
    ran = subprocess.run(
        [sys.executable, "-c", CHILD, store], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return int(ran.stdout)


def _store(path: Path, count: int) -> Path:
    side, sequences = 2048, [f"s{n}" for n in range(4)]
    grid = np.indices((side // 16, side // 16)).reshape(2, -1).astype(np.int32) * 16
    writer = StoreWriter(path, {"made": "by the tests"})
    frames = -(-count // (len(sequences) * grid.shape[1] * 4))
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
    nodes = pl.concat(parts).select(list(NODE_SCHEMA)).cast(dict(NODE_SCHEMA))
    nodes = nodes.gather_every(nodes.height // count)[:count]
    return Path(writer.finish(nodes, {name: {"bit_depth": 8} for name in sequences}, {}).path)
