"""Partition trees from the block sizes a decoder saw, and back.

    sizes of blocks [rows, cols] in units of 4x4 luma samples
      -> nodes of 128, 64, 32, 16 and 8 samples, each with its partition type
      -> the same grid again, as a check that nothing was misread

The geometry of the partition types comes from `av1part.partition`; only the walk is here.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
from numpy.typing import NDArray

from av1part.partition import RECTANGLES, Partition, legal_partitions
from av1part.system.errors import EncoderError

UNIT = 4
"""Luma samples a side of one grid cell."""

NODE_SIZES = (128, 64, 32, 16, 8)
"""Every size a node of the tree can have; superblocks of 64 are four under a 128 that is split."""

Grid = NDArray[np.uint8]
"""Height and width in luma samples of the block that covers each cell, `[rows, cols, 2]`."""

Level = tuple[int, NDArray[np.int64], NDArray[np.int64], NDArray[np.int8]]
"""Nodes of one size: size, rows and cols in luma samples, partition ids."""

_QUADRANTS = ((0, 0), (0, 2), (2, 0), (2, 2))
_AT_EDGES = (Partition.HORZ, Partition.VERT)
"""What a node may be, beside SPLIT, whose lower or right half is outside the frame."""


@cache
def _signatures(size: int) -> tuple[tuple[Partition, NDArray[np.int64]], ...]:
    """Each legal type but SPLIT with the block sizes at a node's four quadrant corners, `[4, 2]`.

    No block of a split child is wider or higher than a quadrant, and each other type has one that
    is, so these four sizes tell the types apart; what matches none of them is SPLIT.
    """
    table = []
    for partition in legal_partitions(size):
        if partition != Partition.SPLIT:
            corners = [
                next(
                    (size * h // 4, size * w // 4)
                    for r, c, h, w in RECTANGLES[partition]
                    if r <= row < r + h and c <= col < c + w
                )
                for row, col in _QUADRANTS
            ]
            table.append((partition, np.array(corners)))
    return tuple(table)


def partition_tree(grid: Grid) -> list[Level]:
    """Read the whole partition tree of a frame from its block sizes.

    A node whose centre is beyond the last row or column of cells has quadrants that were never
    coded: it is cut by force, and only HORZ (lower half outside), VERT (right half outside) and
    SPLIT are possible (spec, section 5.11.4).

    Args:
        grid: Block sizes, uint8 `[rows, cols, 2]`.

    Returns:
        One level a size, 128 to 8, nodes in the order their parents have; every node that has at
        least one cell in the frame, also those that reach over its edge.
    """
    rows, cols = grid.shape[:2]
    first = NODE_SIZES[0]
    row, col = (
        axis.ravel().astype(np.int64) * first
        for axis in np.mgrid[0 : -(-rows * UNIT // first), 0 : -(-cols * UNIT // first)]
    )
    levels: list[Level] = []
    for size in NODE_SIZES:
        corners, seen = _corner_sizes(grid, row, col, size)
        partition = np.full(len(row), Partition.SPLIT, dtype=np.int8)
        for type_, sizes in _signatures(size):
            match = ((corners == sizes).all(axis=-1) | ~seen).all(axis=1)
            if type_ not in _AT_EDGES:
                match &= seen.all(axis=1)
            partition[match] = type_
        levels.append((size, row, col, partition))
        split = partition == Partition.SPLIT
        row, col = _children(row[split], col[split], size)
        inside = (row < rows * UNIT) & (col < cols * UNIT)
        row, col = row[inside], col[inside]
    return levels


def _corner_sizes(
    grid: Grid, row: NDArray[np.int64], col: NDArray[np.int64], size: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Look up block sizes `[n, 4, 2]` at quadrant corners, and which corners are in the grid."""
    offsets = np.array(_QUADRANTS) * size // 4
    r = (row[:, None] + offsets[:, 0]) // UNIT
    c = (col[:, None] + offsets[:, 1]) // UNIT
    seen = (r < grid.shape[0]) & (c < grid.shape[1])
    corners = np.zeros((len(row), 4, 2), dtype=np.int64)
    corners[seen] = grid[r[seen], c[seen]]
    return corners, seen


def _children(
    row: NDArray[np.int64], col: NDArray[np.int64], size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    offsets = np.array(_QUADRANTS) * size // 4
    return (row[:, None] + offsets[:, 0]).ravel(), (col[:, None] + offsets[:, 1]).ravel()


def paint_grid(levels: list[Level], rows: int, cols: int) -> Grid:
    """Rebuild the grid of block sizes from a whole tree.

    Args:
        levels: As `partition_tree` returns them; a SPLIT is painted by its children, or by its
            own four blocks at size 8.
        rows: Height of the grid in cells.
        cols: Width of the grid in cells.

    Returns:
        Block sizes, uint8 `[rows, cols, 2]`; 0 where no block of the tree reaches.
    """
    most = NODE_SIZES[0] // UNIT
    canvas = np.zeros((rows + most, cols + most, 2), dtype=np.uint8)
    for size, row, col, partition in levels:
        for type_, (r, c, h, w) in _leaf_rectangles(size):
            chosen = partition == type_
            top, left = row[chosen] + size * r // 4, col[chosen] + size * c // 4
            height, width = size * h // 4, size * w // 4
            y = (top[:, None] // UNIT + np.arange(height // UNIT))[:, :, None]
            x = (left[:, None] // UNIT + np.arange(width // UNIT))[:, None, :]
            canvas[y, x] = height, width
    return canvas[:rows, :cols]


def _leaf_rectangles(size: int) -> Iterator[tuple[Partition, tuple[int, int, int, int]]]:
    for partition in legal_partitions(size):
        if partition != Partition.SPLIT or size == NODE_SIZES[-1]:
            for rect in RECTANGLES[partition]:
                yield partition, rect


def checked_tree(grid: Grid, name: str) -> list[Level]:
    """Read a partition tree and rebuild the grid from it.

    Args:
        grid: Block sizes, uint8 `[rows, cols, 2]`.
        name: What to call the frame in an error.

    Returns:
        The tree's levels, as `partition_tree` gives them.

    Raises:
        EncoderError: if the tree does not give back exactly this grid.
    """
    levels = partition_tree(grid)
    wrong = (paint_grid(levels, *grid.shape[:2]) != grid).any(axis=-1)
    if wrong.any():
        row, col = np.argwhere(wrong)[0] * UNIT
        raise EncoderError(
            f"{name}: the partition tree does not give back the block sizes inspect printed, "
            f"first at luma row {row}, column {col}: use another inspect (`make libaom`)"
        )
    return levels
