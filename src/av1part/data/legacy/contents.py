"""What every layout comes to before it is stored: clips, their nodes, and what was left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from av1part.data.store.schema import NODE_SCHEMA
from av1part.partition import Partition, legal_partitions
from av1part.system.errors import SourceError
from av1part.system.files import leads_out

BIT_DEPTH = 10
"""Bits a sample of the study's clips."""

LEFT_OUT: Mapping[str, str] = {
    "not_intra": "nodes of frames that are not intra",
    "parent_not_split": "nodes the search visited whose parent is not SPLIT in the tree",
    "parent_not_listed": "nodes whose parent is not listed, so that nobody can tell",
    "not_inside_frame": "nodes that reach over the frame's edge",
    "other_size": "nodes of sizes that were not asked for",
    "other_files": "files that are not of this layout, or of sizes that were not asked for",
    "other_keys": "entries that the layout does not have",
}
"""What may be left out of an import, by the manifest's key, and how a person says it."""


@dataclass(frozen=True)
class Clip:
    """One sequence that is ready to be stored.

    Attributes:
        sequence: Its name in the store.
        bit_depth: Bits a sample.
        nodes: The columns of `NODE_SCHEMA`.
        facts: What the manifest says of its origin; JSON values.
        luma: Given a folder for intermediate files, returns integers `[frames, height, width]`,
            mapped rather than in memory; raises `SourceError` for samples that cannot be.
    """

    sequence: str
    bit_depth: int
    nodes: pl.DataFrame
    facts: Mapping[str, Any]
    luma: Callable[[Path], NDArray[Any]]


@dataclass(frozen=True)
class Contents:
    """What a folder of a layout holds.

    Attributes:
        clips: Its sequences, at least one, with at least one node in all.
        left_out: Key of `LEFT_OUT` to how many.
        manifest: Further entries of the manifest.
    """

    clips: Sequence[Clip]
    left_out: Mapping[str, int]
    manifest: Mapping[str, Any] = field(default_factory=dict)


def check_own(path: Path, folder: Path) -> Path:
    """Check that a file to import is in its folder, not linked in from elsewhere.

    Args:
        path: The file or subfolder.
        folder: The folder of the layout, which may itself be reached by a link.

    Returns:
        The path as it was given.

    Raises:
        SourceError: naming the file, if not.
    """
    if leads_out(path, folder):
        raise SourceError(f"{path} is a link that leads out of its folder: copy the file there")
    return path


def block_nodes(
    sequence: str, size: int, qindex: NDArray[Any], partition: NDArray[Any]
) -> pl.DataFrame:
    """Return the nodes of blocks whose place is unknown: one block a frame, at row = col = 0.

    Args:
        sequence: Its name in the store.
        size: Luma samples a side.
        qindex: Integers `[n]`, one a block.
        partition: AV1 ids `[n]`, one a block.

    Returns:
        Table with the columns of `NODE_SCHEMA`, in the order of the blocks.
    """
    count = len(partition)
    columns = {
        "frame": np.arange(count),
        "row": np.zeros(count, dtype=np.int32),
        "col": np.zeros(count, dtype=np.int32),
        "size": np.full(count, size),
        "qindex": qindex,
        "partition": partition,
    }
    table = pl.DataFrame(columns).with_columns(sequence=pl.lit(sequence))
    return table.select(pl.col(c).cast(t) for c, t in NODE_SCHEMA.items())


def check_partitions(values: NDArray[Any], size: int, name: str, entry: str = "entry") -> None:
    """Check that integers `[n]` are AV1 ids which a node of this size may have.

    Args:
        values: The ids, in the order of the file.
        size: Luma samples a side.
        name: What to call the file or tensor in an error.
        entry: What to call one of them.

    Raises:
        SourceError: naming the first that is not, counted from 1.
    """
    _check_range(values, len(Partition) - 1, f"{name}: {entry}", "partition ids")
    legal = legal_partitions(size)
    bad = np.flatnonzero(values > max(legal))
    if len(bad):
        raise SourceError(
            f"{name}: {entry} {bad[0] + 1} is {Partition(int(values[bad[0]])).name}, which no "
            f"{size}x{size} node can have: is the file of another block size?"
        )


def check_qindexes(values: NDArray[Any], name: str, entry: str = "entry") -> None:
    """Check that integers `[n]` are base quantiser indexes; see `check_partitions`."""
    _check_range(values, 255, f"{name}: {entry}", "quantiser indexes")


def _check_range(values: NDArray[Any], last: int, entry: str, what: str) -> None:
    bad = np.flatnonzero((values < 0) | (values > last))
    if len(bad):
        raise SourceError(f"{entry} {bad[0] + 1} is {values[bad[0]]}; {what} are 0 to {last}")
