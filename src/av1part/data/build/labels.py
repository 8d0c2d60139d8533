"""Labels of one encoded stream: each frame's block sizes as rows of the node table."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np
import polars as pl

from av1part.data.build.libaom import InspectedFrame
from av1part.data.build.tree import UNIT, TreeLevel, checked_tree
from av1part.data.store.schema import NODE_SCHEMA
from av1part.partition import Partition
from av1part.system.errors import EncoderError

_MI_ALIGNMENT = 8
"""AV1 rounds a frame up to whole 8x8 blocks, so the grid of cells may reach beyond the frame."""


def stream_nodes(
    frames: Iterable[InspectedFrame],
    *,
    sequence: str,
    shape: tuple[int, int, int],
    sizes: Collection[int],
    one_to_four: bool,
) -> pl.DataFrame:
    """Convert the frames of an inspected stream into nodes.

    Args:
        frames: Frames in order.
        sequence: Name of the sequence in the store.
        shape: Frames, height and width in luma samples, as encoded.
        sizes: Node sizes to keep.
        one_to_four: Whether the encoder was allowed HORZ_4 and VERT_4.

    Returns:
        Table with the columns of `NODE_SCHEMA`; nodes not wholly inside the frame are left out.

    Raises:
        EncoderError: if frames are missing, a frame has another size, its tree does not reproduce
            its grid, or it has a 1:4 partition though those were disabled.
    """
    count, height, width = shape
    cells = tuple(-(-side // _MI_ALIGNMENT) * _MI_ALIGNMENT // UNIT for side in (height, width))
    tables = []
    inspected = 0
    for index, frame in enumerate(frames):
        name = f"{sequence}, frame {index}, qindex {frame.qindex}"
        grid = frame.blocks.shape[:2]
        if grid != cells:
            raise EncoderError(f"{name}: inspect shows {grid} cells, {width}x{height} has {cells}")
        levels = checked_tree(frame.blocks, name)
        if not one_to_four and any((p >= Partition.HORZ_4).any() for *_, p in levels):
            raise EncoderError(f"{name} has 1:4 partitions, which the encoder was told not to use")
        for level in levels:
            if level[0] in sizes:
                tables.append(_table(level, sequence, index, frame.qindex, height, width))
        inspected = index + 1
    if inspected != count:
        raise EncoderError(f"{sequence}: {count} frames were encoded, inspect shows {inspected}")
    return pl.concat(tables)


def _table(
    level: TreeLevel, sequence: str, frame: int, qindex: int, height: int, width: int
) -> pl.DataFrame:
    size, row, col, partition = level
    inside = (row + size <= height) & (col + size <= width)
    row, col, partition = row[inside], col[inside], partition[inside]
    columns = {
        "row": row,
        "col": col,
        "partition": partition,
        "frame": np.full(len(row), frame),
        "size": np.full(len(row), size),
        "qindex": np.full(len(row), qindex),
    }
    table = pl.DataFrame(columns).with_columns(sequence=pl.lit(sequence, dtype=pl.String))
    return table.select(pl.col(name).cast(type_) for name, type_ in NODE_SCHEMA.items())
