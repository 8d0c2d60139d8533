"""The common form of all layouts before they are stored: clips, their nodes, counts of the rest."""

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
"""Bits per sample of the study's clips."""

LEFT_OUT: Mapping[str, str] = {
    "not_intra": "nodes of frames that are not intra",
    "parent_not_split": "nodes the search visited whose parent is not SPLIT in the tree",
    "parent_not_listed": "nodes whose parent is not listed, so that nobody can tell",
    "not_inside_frame": "nodes that reach over the frame's edge",
    "other_size": "nodes of sizes that were not asked for",
    "other_files": "files that are not of this layout, or of sizes that were not asked for",
    "other_keys": "entries that the layout does not have",
}
"""Key in the manifest to a description of what an import may leave out."""


@dataclass(frozen=True)
class Clip:
    """One sequence that is ready to be stored.

    Attributes:
        sequence: Name in the store.
        bit_depth: Bits per sample.
        nodes: Table with the columns of `NODE_SCHEMA`.
        facts: Entries of the manifest on its origin; JSON values.
        luma: From a folder for intermediate files to integers `[frames, height, width]`, mapped
            rather than in memory; raises `SourceError` for samples that are not valid.
    """

    sequence: str
    bit_depth: int
    nodes: pl.DataFrame
    facts: Mapping[str, Any]
    luma: Callable[[Path], NDArray[Any]]


@dataclass(frozen=True)
class Contents:
    """The contents of a folder in one of the layouts.

    Attributes:
        clips: Its sequences, at least one, with at least one node in all.
        left_out: Key of `LEFT_OUT` to its count.
        manifest: Further entries of the manifest.
    """

    clips: Sequence[Clip]
    left_out: Mapping[str, int]
    manifest: Mapping[str, Any] = field(default_factory=dict)


def check_own(path: Path, folder: Path) -> Path:
    """Check that a file to import is in its folder, not linked from elsewhere.

    Args:
        path: The file or subfolder.
        folder: The folder of the layout, which may itself be reached by a link.

    Returns:
        The path.

    Raises:
        SourceError: if it is a link that leads out.
    """
    if leads_out(path, folder):
        raise SourceError(f"{path} is a link that leads out of its folder: copy the file there")
    return path


def block_nodes(
    sequence: str, size: int, qindex: NDArray[Any], partition: NDArray[Any]
) -> pl.DataFrame:
    """Return nodes of blocks whose place is unknown: one block per frame, at row = col = 0.

    Args:
        sequence: Name of the sequence in the store.
        size: Luma samples a side.
        qindex: Integers `[n]`, one per block.
        partition: AV1 ids `[n]`, one per block.

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
    """Check that integers `[n]` are AV1 ids that nodes of a size may have.

    Args:
        values: The integers, in the order of the file.
        size: Luma samples a side.
        name: Name of the file or tensor in an error.
        entry: Name of one entry in an error.

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
