"""Random partition trees to grids and back, frame edges included."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from av1part.data.build.labels import stream_nodes
from av1part.data.build.libaom import InspectedFrame
from av1part.data.build.tree import (
    NODE_SIZES,
    UNIT,
    TreeLevel,
    checked_tree,
    paint_grid,
    partition_tree,
)
from av1part.partition import RECTANGLES, Partition, legal_partitions
from av1part.system.errors import EncoderError


def random_tree(rng: np.random.Generator, rows: int, cols: int, superblock: int) -> list[TreeLevel]:
    """Draw a tree by the rules of the bitstream (spec, 5.11.4), for a grid of rows x cols cells."""
    found: dict[int, list[tuple[int, int, int]]] = {size: [] for size in NODE_SIZES}

    def visit(row: int, col: int, size: int) -> None:
        if row >= rows * UNIT or col >= cols * UNIT:
            return
        has_rows = row + size // 2 < rows * UNIT
        has_cols = col + size // 2 < cols * UNIT
        if size > superblock or not (has_rows or has_cols):
            choice = Partition.SPLIT
        elif not has_rows:
            choice = rng.choice([Partition.HORZ, Partition.SPLIT])
        elif not has_cols:
            choice = rng.choice([Partition.VERT, Partition.SPLIT])
        else:
            # SPLIT as often as all others together, or trees stay shallow.
            others = [p for p in legal_partitions(size) if p != Partition.SPLIT]
            choice = Partition.SPLIT if rng.random() < 0.5 else rng.choice(others)
        found[size].append((row, col, int(choice)))
        if choice == Partition.SPLIT and size > 8:
            for r, c, *_ in RECTANGLES[Partition.SPLIT]:
                visit(row + size * r // 4, col + size * c // 4, size // 2)

    for row in range(0, rows * UNIT, 128):
        for col in range(0, cols * UNIT, 128):
            visit(row, col, 128)
    return [
        (size, *(np.array(x, dtype=np.int64) for x in zip(*nodes, strict=True)))
        if nodes
        else (size, *(np.zeros(0, dtype=np.int64),) * 3)
        for size, nodes in found.items()
    ]


def as_sets(levels: list[TreeLevel]) -> dict[int, set[tuple[int, ...]]]:
    return {size: set(zip(*map(np.ndarray.tolist, rest), strict=True)) for size, *rest in levels}


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 50).map(lambda n: 2 * n),
    cols=st.integers(1, 50).map(lambda n: 2 * n),
    superblock=st.sampled_from([64, 128]),
)
def test_a_random_tree_painted_and_read_is_itself(
    seed: int, rows: int, cols: int, superblock: int
) -> None:
    tree = random_tree(np.random.default_rng(seed), rows, cols, superblock)
    grid = paint_grid(tree, rows, cols)
    assert grid.min() >= 4, "every cell belongs to a block"
    read = checked_tree(grid, "drawn")
    assert as_sets(read) == as_sets(tree)


@pytest.mark.parametrize("size", [8, 16, 32, 64, 128])
def test_each_type_is_read_from_its_rectangles_alone(size: int) -> None:
    for partition in legal_partitions(size):
        cells = size // UNIT
        grid = np.zeros((cells, cells, 2), dtype=np.uint8)
        for r, c, h, w in RECTANGLES[partition]:
            top, left, high, wide = (size * q // 4 for q in (r, c, h, w))
            block = (
                slice(top // UNIT, (top + high) // UNIT),
                slice(left // UNIT, (left + wide) // UNIT),
            )
            grid[block] = high, wide
        levels = as_sets(checked_tree(grid, "one node"))
        assert (0, 0, partition) in levels[size]


def test_a_grid_no_tree_gives_is_refused() -> None:
    grid = np.full((16, 16, 2), 64, dtype=np.uint8)
    checked_tree(grid, "whole")
    grid[3, 5] = 8, 8
    with pytest.raises(EncoderError, match=r"broken: .* row 12, column 20"):
        checked_tree(grid, "broken")


def test_forced_cuts_at_edges_are_walked_but_not_kept() -> None:
    # 72x56: rows of cells 14, columns 18, so the right-hand column of 64 hangs over the edge.
    tree = random_tree(np.random.default_rng(3), 14, 18, 64)
    frame = InspectedFrame(100, paint_grid(tree, 14, 18))
    nodes = stream_nodes(
        [frame], sequence="s", shape=(1, 56, 72), sizes=(64, 32, 16, 8), one_to_four=True
    )
    assert 64 not in nodes["size"], "56 rows hold no whole 64x64 node"
    assert (nodes["row"] + nodes["size"] <= 56).all()
    assert (nodes["col"] + nodes["size"] <= 72).all()
    kept = {tuple(r) for r in nodes.select("size", "row", "col", "partition").rows()}
    whole = {
        (size, r, c, p)
        for size, members in as_sets(tree).items()
        for r, c, p in members
        if r + size <= 56 and c + size <= 72
    }
    assert kept == whole


@pytest.mark.parametrize(("height", "width"), [(50, 66), (49, 65), (51, 67)])
def test_nodes_beyond_the_last_sample_are_left_out_when_the_grid_reaches_further(
    height: int, width: int
) -> None:
    # The grid covers 56x72; the frame's own samples end before that.
    grid = np.full((14, 18, 2), 8, dtype=np.uint8)
    nodes = stream_nodes(
        [InspectedFrame(9, grid)],
        sequence="s",
        shape=(1, height, width),
        sizes=(8,),
        one_to_four=False,
    )
    assert nodes.height == (height // 8) * (width // 8)


def frames_of(blocks: np.ndarray, count: int = 1) -> list[InspectedFrame]:
    return [InspectedFrame(7, blocks)] * count


def test_labels_refuse_what_contradicts_the_encode() -> None:
    whole = np.full((16, 16, 2), 64, dtype=np.uint8)
    fours = np.full((16, 16, 2), (64, 16), dtype=np.uint8)

    def nodes(frames: list[InspectedFrame], **changes: object) -> object:
        said = {"sequence": "s", "shape": (2, 64, 64), "sizes": (64,), "one_to_four": False}
        return stream_nodes(frames, **{**said, **changes})

    assert nodes(frames_of(whole, 2)).height == 2
    with pytest.raises(EncoderError, match="2 frames were encoded, inspect shows 1"):
        nodes(frames_of(whole, 1))
    with pytest.raises(EncoderError, match="2 frames were encoded, inspect shows 0"):
        nodes([])
    with pytest.raises(EncoderError, match="inspect shows"):
        nodes(frames_of(whole, 2), shape=(2, 64, 72))
    with pytest.raises(EncoderError, match="1:4"):
        nodes(frames_of(fours, 2))
    assert nodes(frames_of(fours, 2), one_to_four=True)["partition"].to_list() == [9, 9]


def test_partition_tree_descends_into_split_only() -> None:
    grid = np.full((16, 16, 2), 64, dtype=np.uint8)
    sizes = {size: len(row) for size, row, *_ in partition_tree(grid)}
    assert sizes == {128: 1, 64: 1, 32: 0, 16: 0, 8: 0}
