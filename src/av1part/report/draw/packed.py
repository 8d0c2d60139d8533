"""Frames with their nodes' probabilities, packed for a page: most probable cuts, bytes, base64.

A layer is what a page holds of the nodes of one size in a frame at one qindex: planes of uint8,
`[rows, cols]` each, one after the other, in zlib's format and base64:

    the predicted class + DRAWN + DIFFERS, or ABSENT
    the true class, or ABSENT
    AV1's true type, or ABSENT
    the probabilities of the classes in 255ths, a plane a class

The classes are AV1's types, or those of a stage, which may hold several types each.
"""

from __future__ import annotations

import base64
import io
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from PIL import Image

from av1part.partition import SIZES, Partition


def probability_columns(classes: int) -> tuple[str, ...]:
    """Return the columns of probabilities in a table of predictions, beside row, col and size."""
    return tuple(f"p{index}" for index in range(classes))


PROBABILITIES = probability_columns(len(Partition))
"""Those of AV1's types."""

DRAWN = 16
"""Added to the class of a node that is part of the predicted tree."""
DIFFERS = 32
"""Added to the class of a drawn node whose true class is another."""
ABSENT = 255
"""The class of a place without a node."""


@dataclass(frozen=True)
class PackedFrame:
    """A frame as a page holds it.

    Attributes:
        number: Of the frame in its sequence, from 0; None if it is not known.
        height: Of the luma plane.
        width: Of the luma plane.
        png: The luma plane, a grey PNG in base64.
        layers: qindex -> node size -> the layer in base64.
    """

    number: int | None
    height: int
    width: int
    png: str
    layers: Mapping[int, Mapping[int, str]]

    @property
    def bytes(self) -> int:
        """What it adds to a page."""
        return len(self.png) + sum(len(v) for sizes in self.layers.values() for v in sizes.values())


def pack_frame(
    number: int | None,
    luma: NDArray[np.uint8],
    tables: Mapping[int, pl.DataFrame],
    true: Mapping[int, pl.DataFrame] | None = None,
    classes: int = len(Partition),
) -> PackedFrame:
    """Pack a frame for a page.

    Args:
        number: Of the frame in its sequence, if it is known.
        luma: Luma plane of 8 bits, `[h, w]`.
        tables: By qindex, predictions: row, col and size in luma samples, p0 to p9, and
            optionally `prediction`, the predicted class where that need not be the most probable.
        true: By qindex, the encoder's tree: row, col, size, partition, AV1's id, and `label`, the
            true class, where classes are not AV1's types.
        classes: Number k of classes, with probabilities p0 to p<k - 1>. Classes that are not
            AV1's types have nodes of one size, since they make no tree.

    Returns:
        The frame, with its tree of predicted classes.
    """
    height, width = luma.shape
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(luma)).save(buffer, "PNG")
    layers = {
        qindex: _layers(table, (true or {}).get(qindex), (height, width), classes)
        for qindex, table in tables.items()
    }
    return PackedFrame(number, height, width, base64.b64encode(buffer.getvalue()).decode(), layers)


def _layers(
    table: pl.DataFrame, true: pl.DataFrame | None, shape: tuple[int, int], classes: int
) -> dict[int, str]:
    """Return the layer of each size that has a node, predicted or true."""
    probabilities = node_grids(table, probability_columns(classes), shape)
    if "prediction" in table.columns:
        predicted = node_grids(table, ("prediction",), shape)
        types = {size: _present(grid[..., 0]) for size, grid in predicted.items()}
    else:
        types = {size: _most_probable(grid) for size, grid in probabilities.items()}
    drawn = drawn_nodes(types)
    label = () if true is None or "label" not in true.columns else ("label",)
    truth = {} if true is None else node_grids(true, ("partition", *label), shape)
    layers = {}
    for size in sorted({*types, *truth}, reverse=True):
        rows, cols = shape[0] // size, shape[1] // size
        nothing = np.full((rows, cols), ABSENT, np.uint8)
        type_, tree = types.get(size, nothing), drawn.get(size, np.zeros((rows, cols), np.bool_))
        true_type, true_class = (
            _present(truth[size][..., column]) if size in truth else nothing for column in (0, -1)
        )
        differs = tree & (true_class != ABSENT) & (true_class != type_)
        code = np.where(type_ == ABSENT, ABSENT, type_ + DRAWN * tree + DIFFERS * differs)
        shares = probabilities.get(size, np.zeros((rows, cols, classes)))
        shares = np.rint(255 * np.nan_to_num(shares)).clip(0, 255)
        planes = np.concatenate(
            [np.stack([code, true_class, true_type]), np.moveaxis(shares, -1, 0)]
        )
        packed = zlib.compress(planes.astype(np.uint8).tobytes(), 6)
        layers[size] = base64.b64encode(packed).decode()
    return layers


def node_grids(
    table: pl.DataFrame, columns: tuple[str, ...], shape: tuple[int, int]
) -> dict[int, NDArray[np.float64]]:
    """Return columns of a table as grids `[rows, cols, len(columns)]`, by node size.

    A row and a column stand for the node at (row * size, col * size), for all nodes wholly inside
    the frame; a place that is not in the table is NaN.
    """
    grids = {}
    for size in SIZES:
        rows, cols = shape[0] // size, shape[1] // size
        nodes = table.filter(
            pl.col("size") == size,
            pl.col("row") + size <= shape[0],
            pl.col("col") + size <= shape[1],
        )
        if len(nodes):
            grid = np.full((rows, cols, len(columns)), np.nan)
            place = (nodes["row"].to_numpy() // size, nodes["col"].to_numpy() // size)
            grid[place] = nodes.select(columns).to_numpy()
            grids[size] = grid
    return grids


def _present(grid: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return ids `[rows, cols]` as bytes, ABSENT where there is none."""
    return np.nan_to_num(grid, nan=ABSENT).astype(np.uint8)


def _most_probable(grid: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return the most probable types `[rows, cols]`, the first of equals; ABSENT where none is."""
    known = ~np.isnan(grid).any(-1)
    return np.where(known, np.nan_to_num(grid).argmax(-1), ABSENT).astype(np.uint8)


def drawn_nodes(types: Mapping[int, NDArray[Any]]) -> dict[int, NDArray[np.bool_]]:
    """Return which nodes the tree of these types has, from the largest size down.

    A node of the largest size is in the tree; another is if its parent is and says SPLIT, or if
    its parent lies over the frame's edge, where an encoder has to split or cut.

    Args:
        types: By node size, AV1's ids `[rows, cols]`, ABSENT where there is no node.

    Returns:
        By node size, booleans `[rows, cols]`. The children of a size that is missing are not.
    """
    drawn: dict[int, NDArray[np.bool_]] = {}
    for size in sorted(types, reverse=True):
        grid = types[size]
        reached = np.full(grid.shape, size == max(types))
        if 2 * size in drawn:
            splits = drawn[2 * size] & (types[2 * size] == Partition.SPLIT)
            below = splits.repeat(2, 0).repeat(2, 1)
            reached[:] = True  # past the last whole parent
            reached[: below.shape[0], : below.shape[1]] = below
        drawn[size] = reached & (grid != ABSENT)
    return drawn
