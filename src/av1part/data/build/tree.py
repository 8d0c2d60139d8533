"""Partition trees from the block sizes a decoder saw, and back.

    sizes of blocks [rows, cols] in units of 4x4 luma samples
      -> nodes of 128, 64, 32, 16 and 8 samples, each with its partition type
      -> the same grid again, as a check that nothing was misread

The geometry of the partition types comes from `av1part.partition`.
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
"""Sizes of a node; superblocks of 64 are read as children of a 128 that is SPLIT."""

Grid = NDArray[np.uint8]
"""Height and width in luma samples of the block that covers each cell, `[rows, cols, 2]`."""

TreeLevel = tuple[int, NDArray[np.int64], NDArray[np.int64], NDArray[np.int8]]
"""Nodes of one size: size, rows and cols in luma samples, partition ids."""

_QUADRANTS = ((0, 0), (0, 2), (2, 0), (2, 2))
_AT_EDGES = (Partition.HORZ, Partition.VERT)
"""Types, beside SPLIT, of a node whose lower or right half is outside the frame."""


@cache
def _signatures(size: int) -> tuple[tuple[Partition, NDArray[np.int64]], ...]:
    """Return the block sizes at a node's four quadrant corners, `[4, 2]`, of every type but SPLIT.

    No block of a SPLIT is wider or higher than a quadrant, and every other type has one that is,
    so the four sizes identify the type; a node that matches none is SPLIT.
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


def partition_tree(grid: Grid) -> list[TreeLevel]:
    """Read the whole partition tree of a frame from its block sizes.

    A node whose centre is beyond the last row or column of cells has quadrants that are not coded:
    only HORZ (lower half outside), VERT (right half outside) and SPLIT are possible (spec, section
    5.11.4).

    Args:
        grid: Block sizes, uint8 `[rows, cols, 2]`.

    Returns:
        One level per size, 128 to 8, nodes in the order of their parents: every node with at least
        one cell in the frame, including those that reach over its edge.
    """
    rows, cols = grid.shape[:2]
    first = NODE_SIZES[0]
    row, col = (
        axis.ravel().astype(np.int64) * first
        for axis in np.mgrid[0 : -(-rows * UNIT // first), 0 : -(-cols * UNIT // first)]
    )
    levels: list[TreeLevel] = []
    for size in NODE_SIZES:
        corners, inside_grid = _corner_sizes(grid, row, col, size)
        partition = np.full(len(row), Partition.SPLIT, dtype=np.int8)
        for type_, sizes in _signatures(size):
            match = ((corners == sizes).all(axis=-1) | ~inside_grid).all(axis=1)
            if type_ not in _AT_EDGES:
                match &= inside_grid.all(axis=1)
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
    """Return block sizes `[n, 4, 2]` at quadrant corners, and which corners are in the grid."""
    offsets = np.array(_QUADRANTS) * size // 4
    r = (row[:, None] + offsets[:, 0]) // UNIT
    c = (col[:, None] + offsets[:, 1]) // UNIT
    inside_grid = (r < grid.shape[0]) & (c < grid.shape[1])
    corners = np.zeros((len(row), 4, 2), dtype=np.int64)
    corners[inside_grid] = grid[r[inside_grid], c[inside_grid]]
    return corners, inside_grid


def _children(
    row: NDArray[np.int64], col: NDArray[np.int64], size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    offsets = np.array(_QUADRANTS) * size // 4
    return (row[:, None] + offsets[:, 0]).ravel(), (col[:, None] + offsets[:, 1]).ravel()


def paint_grid(levels: list[TreeLevel], rows: int, cols: int) -> Grid:
    """Rebuild the grid of block sizes from a whole tree.

    Args:
        levels: As `partition_tree` returns them; a SPLIT is painted by its children, at size 8 by
            its own four blocks.
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


def checked_tree(grid: Grid, name: str) -> list[TreeLevel]:
    """Read a partition tree, and check it by rebuilding the grid.

    Args:
        grid: Block sizes, uint8 `[rows, cols, 2]`.
        name: Name of the frame in an error.

    Returns:
        The levels of the tree, as from `partition_tree`.

    Raises:
        EncoderError: if the tree does not reproduce the grid.
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
