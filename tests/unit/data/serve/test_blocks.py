"""A reader's blocks are those of the padded planes, whatever way they are gathered."""

from __future__ import annotations

import pickle
import tempfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from av1part.data.serve.blocks import BlockReader
from av1part.data.store.schema import NODE_SCHEMA
from av1part.data.store.store import Store
from av1part.data.store.writer import StoreWriter

SIZE = 16


def noise_store(
    out: Path, shapes: list[tuple[int, int, int]], size: int, depth: int, seed: int
) -> Store:
    """Noise, and nodes at all places a few samples apart, in a random order."""
    rng, rows = np.random.default_rng(seed), []
    writer = StoreWriter(out, {"made": "by the tests"})
    for number, (frames, height, width) in enumerate(shapes):
        plane = rng.integers(0, 1 << depth, (frames, height, width))
        writer.add_plane(f"s{number}", plane.astype(np.uint8 if depth == 8 else np.uint16), depth)
        rows += [
            (f"s{number}", frame, row, col, size, 80, 0)
            for frame in range(frames)
            for row in {*range(0, height - size + 1, 7), height - size}
            for col in {*range(0, width - size + 1, 5), width - size}
        ]
    rows = [rows[i] for i in rng.permutation(len(rows))]
    nodes = pl.DataFrame(rows, schema=NODE_SCHEMA, orient="row")
    return writer.finish(nodes, {f"s{n}": {"bit_depth": depth} for n in range(len(shapes))}, {})


def naive(store: Store, node: int, context: int) -> NDArray[np.int64]:
    sequence, frame, row, col, size = store.nodes.row(node)[:5]
    padded = np.pad(store.plane(sequence)[frame], context, "edge")
    side = size + 2 * context
    return padded[row : row + side, col : col + side].astype(np.int64)


@settings(deadline=None, max_examples=40)
@given(
    size=st.sampled_from([8, 16, 32, 64]),
    more=st.lists(
        st.tuples(st.integers(1, 2), st.integers(0, 21), st.integers(0, 21)), min_size=1, max_size=3
    ),
    context=st.integers(0, 20),
    depth=st.sampled_from([8, 10]),
    seed=st.integers(0, 99),
)
def test_a_block_is_that_of_the_padded_plane(
    size: int, more: list[tuple[int, int, int]], context: int, depth: int, seed: int
) -> None:
    """Also where the margin is wider than the frame, and of every second node only."""
    shapes = [(frames, size + h, size + w) for frames, h, w in more]
    with tempfile.TemporaryDirectory() as folder:
        store = noise_store(Path(folder) / "store", shapes, size, depth, seed)
        nodes = np.arange(len(store.nodes), dtype=np.int64)[:: 1 + seed % 2]
        reader = BlockReader(store, nodes, size=size, context=context)
        index = np.random.default_rng(seed).integers(0, len(nodes), 2 * len(nodes))
        batch = reader[index]
        assert batch["block"].is_contiguous()
        assert batch["block"].numpy().dtype == (np.uint8 if depth == 8 else np.int16)
        assert batch["node"].tolist() == nodes[index].tolist()
        for block, node in zip(batch["block"].numpy(), batch["node"].tolist(), strict=True):
            np.testing.assert_array_equal(block[0], naive(store, node, context))


@pytest.mark.parametrize("context", [0, 4])
def test_a_copy_for_a_worker_gathers_the_same(tmp_path: Path, context: int) -> None:
    store = noise_store(tmp_path / "store", [(1, 40, 50), (2, 24, 16)], SIZE, 8, 1)
    reader = BlockReader(store, np.arange(len(store.nodes)), size=SIZE, context=context)
    index = np.arange(len(reader))
    wanted = reader[index]["block"]
    words = pickle.dumps(reader)
    assert len(words) < 1e5, "without the planes"
    assert (pickle.loads(words)[index]["block"] == wanted).all()


def test_no_blocks_are_no_blocks(tmp_path: Path) -> None:
    store = noise_store(tmp_path / "store", [(1, 40, 50)], SIZE, 8, 1)
    reader = BlockReader(store, np.arange(3), size=SIZE)
    assert reader[np.arange(0)]["block"].shape == (0, 1, SIZE, SIZE)
