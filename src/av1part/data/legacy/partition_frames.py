"""Layout `partition-frames`: a clip, and for each frame a text file of the nodes a search visited.

    <clip>.yuv                  planar YUV 4:2:0, 10 bits unless it says otherwise
    partition_frame_<n>.txt     of frame n, counted from 0; a line per node:
                                order_hint frame_type block_size row col partition_mode qp

A node is in the tree if all its ancestors are SPLIT. The search also visits many others:

    has it a listed parent? ── yes ── parent kept, and SPLIT? ── yes ── kept
      │ no                                                   └── no ─── parent_not_split
      ├─ no larger node is listed in the frame ──────────────────────── kept, as a root
      ├─ the parent would reach over the frame's edge: is a listed
      │  ancestor not kept, or not SPLIT? ── yes ────────────────────── parent_not_split
      │                                   └─ no ─────────────────────── kept, as a root
      └─ otherwise ──────────────────────────────────────────────────── parent_not_listed
"""

from __future__ import annotations

import itertools
import re
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from av1part.data.build.layouts import RAW_SUFFIXES, RawFormat, raw_format_of
from av1part.data.build.sources import Source, open_source
from av1part.data.build.tree import UNIT
from av1part.data.legacy.contents import (
    BIT_DEPTH,
    Clip,
    Contents,
    check_own,
    check_partitions,
    check_qindexes,
)
from av1part.data.legacy.numbers import read_rows
from av1part.data.legacy.settings import ImportSettings
from av1part.data.store.schema import NODE_SCHEMA, plane_dtype
from av1part.partition import Partition
from av1part.system.errors import ConfigError, SourceError
from av1part.system.files import expanded, sha256_file

_NAME = re.compile(r"partition_frame_(\d{1,9})\.txt", re.ASCII)
_COLUMNS = ("order_hint", "frame_type", "block_size", "row", "col", "partition_mode", "qp")
_BLOCK_SIZES: Mapping[int, int] = {3: 8, 6: 16, 9: 32, 12: 64}
"""AV1's block sizes, BLOCK_8X8 to BLOCK_64X64, to luma samples a side (spec, section 6.10.4)."""
_FRAME_TYPES = ("key", "inter", "intra only", "switch")
"""Frame types by their ids (spec, section 6.8.2)."""
_INTRA = 0
"""Index of the frame type whose nodes are kept."""


def read(folder: Path, settings: ImportSettings) -> Contents:
    """Read the text files of every clip and keep the nodes of the tree.

    Args:
        folder: Folder of a clip, or of such folders.
        settings: `yuv` names the clip if it is not the only one beside the text files.

    Returns:
        A clip per folder, and the number of nodes left out for each reason.

    Raises:
        SourceError: naming the file that is missing, not valid, or contradicts another.
        ConfigError: if `yuv` is given for several clips.
    """
    folders = _clip_folders(folder)
    if settings.yuv is not None and len(folders) > 1:
        raise ConfigError(f"yuv= names one clip; {folder} holds {len(folders)} folders of frames")
    left_out: Counter[str] = Counter()
    clips = [_clip(subfolder, settings, left_out) for subfolder in folders]
    if not any(clip.nodes.height for clip in clips):
        counts = ", ".join(f"{count} {reason}" for reason, count in left_out.items() if count)
        raise SourceError(f"{folder} has no node to keep ({counts or 'none is listed'})")
    return Contents(clips, left_out)


def _clip_folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise SourceError(f"{folder} is not a folder: give the one that holds the text files")
    candidates = [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]
    folders = [path for path in candidates if any(_NAME.fullmatch(p.name) for p in path.iterdir())]
    if not folders:
        raise SourceError(f"{folder} has no partition_frame_<n>.txt, nor have its folders")
    return folders[:1] if folders[0] == folder else [check_own(path, folder) for path in folders]


def _clip(folder: Path, settings: ImportSettings, left_out: Counter[str]) -> Clip:
    source = open_source(*_find_yuv(folder, settings))
    files = _frame_files(folder, source)
    beside = sum(path not in files.values() and path != source.path for path in _in(folder))
    left_out["other_files"] += beside
    height, width = source.reader.height, source.reader.width
    frames: list[int] = []
    tables: list[pl.DataFrame] = []
    roots: Counter[int] = Counter()
    for number, file in files.items():
        listed = _read_frame(file, left_out)
        if listed.height:
            kept = _keep(judge_nodes(listed, height, width), settings.sizes, left_out)
            roots.update(kept.filter("root")["size"])
            tables.append(kept.with_columns(frame=len(frames), sequence=pl.lit(source.sequence)))
            frames.append(number)
    if not frames:
        raise SourceError(f"{folder} has no intra frame: only nodes of frame type 0 are kept")
    facts = {
        "bit_depth": source.reader.bit_depth,
        "source": source.path.name,
        "source_sha256": source.sha256,
        "source_frames_kept": frames,
        "label_files": {file.name: sha256_file(file) for file in files.values()},
        "roots": {str(size): roots[size] for size in sorted(roots)},
    }
    nodes = pl.concat(tables).select(pl.col(c).cast(t) for c, t in NODE_SCHEMA.items())
    luma = partial(_luma, source, frames)
    return Clip(source.sequence, source.reader.bit_depth, nodes, facts, luma)


def _in(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_file()]


def _find_yuv(folder: Path, settings: ImportSettings) -> tuple[Path, RawFormat]:
    """Return the clip beside the text files, and its format as far as it is known.

    Raises:
        SourceError: if it is not clear which file is the clip.
    """
    path = None if settings.yuv is None else expanded(settings.yuv)
    if path is None:
        beside = [p for p in _in(folder) if p.suffix.lower() in RAW_SUFFIXES]
        if len(beside) != 1:
            raise SourceError(f"{folder} holds {len(beside)} .yuv files: name the clip with yuv=")
        path = check_own(beside[0], folder)
    if path.suffix.lower() not in RAW_SUFFIXES:
        raise SourceError(f"{path} is not a raw .yuv file, which this layout needs")
    raw = settings.raw
    depth = raw.bit_depth or raw_format_of(path).bit_depth or BIT_DEPTH
    return path, replace(raw, bit_depth=depth)


def _frame_files(folder: Path, source: Source) -> dict[int, Path]:
    """Return the text files by frame, ascending.

    Raises:
        SourceError: if there is none, two are of one frame, or the clip has too few frames.
    """
    files: dict[int, Path] = {}
    for path in _in(folder):
        if match := _NAME.fullmatch(path.name):
            other = files.setdefault(int(match[1]), check_own(path, folder))
            if other is not path:
                raise SourceError(f"{path} and {other.name} are both of frame {int(match[1])}")
    if not files:
        raise SourceError(f"{folder} has no file partition_frame_<n>.txt")
    last, frames = max(files), source.reader.frames
    if last >= frames:
        raise SourceError(
            f"{files[last]} is of frame {last}, counted from 0, but {source.path} has {frames} "
            "frames: it is truncated, or of another size or bit depth"
        )
    return dict(sorted(files.items()))


def _read_frame(file: Path, left_out: Counter[str]) -> pl.DataFrame:
    """Return the nodes of an intra frame: `size, row, col, partition, qindex`, in luma samples.

    Empty for a frame that is not intra.

    Raises:
        SourceError: naming the line that is not valid.
    """
    rows = read_rows(file, len(_COLUMNS))
    if not len(rows):
        raise SourceError(f"{file} lists no node")
    hint, frame_type, block_size, row, col, partition, qp = rows.T
    _refuse(~np.isin(frame_type, range(len(_FRAME_TYPES))), file, frame_type, "frame_type")
    _refuse(~np.isin(block_size, list(_BLOCK_SIZES)), file, block_size, "block_size")
    sides = np.zeros(max(_BLOCK_SIZES) + 1, dtype=np.int64)
    sides[list(_BLOCK_SIZES)] = list(_BLOCK_SIZES.values())
    size = sides[block_size]
    _refuse((row * UNIT % size) != 0, file, row, "row, for its block_size")
    _refuse((col * UNIT % size) != 0, file, col, "col, for its block_size")
    check_qindexes(qp, str(file), "line")
    for side in np.unique(size):
        # Nodes of other sizes become NONE, legal at every size, so that line numbers stay right.
        of_side = np.where(size == side, partition, Partition.NONE)
        check_partitions(of_side, int(side), str(file), "line")
    intra = frame_type == _INTRA
    left_out["not_intra"] += int((~intra).sum())
    _refuse(intra & (hint != hint[intra.argmax()]), file, hint, "order_hint, other than before it")
    columns = {
        "size": size,
        "row": row * UNIT,
        "col": col * UNIT,
        "partition": partition,
        "qindex": qp,
    }
    table = pl.DataFrame(columns).filter(pl.Series(intra))
    key = ["qindex", "size", "row", "col"]
    if table.select(key).is_duplicated().any():
        twice = table.filter(table.select(key).is_duplicated()).row(0, named=True)
        raise SourceError(f"{file} lists a node more than once: {twice}")
    return table


def _refuse(bad: NDArray[np.bool_], file: Path, values: NDArray[Any], what: str) -> None:
    if bad.any():
        line = int(bad.argmax())
        raise SourceError(f"{file}: line {line + 1} has {values[line]} as {what}, which cannot be")


_KEPT = "kept"


def judge_nodes(listed: pl.DataFrame, height: int, width: int) -> pl.DataFrame:
    """Classify listed nodes as nodes of the tree or only visited, as the module's diagram shows.

    Args:
        listed: One frame's nodes: `size, row, col` in luma samples, `partition`, `qindex`.
        height: Height of the frame in luma samples.
        width: Width of the frame in luma samples.

    Returns:
        The table with two more columns: `fate`, which is `kept` or a key of `LEFT_OUT`, and `root`,
        true for a node that is kept without a listed parent.
    """
    sizes = sorted(listed["size"].unique(), reverse=True)
    judged: dict[int, pl.DataFrame] = {}
    for size in sizes:
        level = listed.filter(size=size).with_columns(
            split=pl.lit(None, dtype=pl.Boolean), above=pl.lit(None, dtype=pl.Boolean)
        )
        for larger in reversed(judged):
            level = _join_ancestors(level, judged[larger], larger)
            if larger == 2 * size:
                level = level.with_columns(split="ancestor")
            level = level.with_columns(above=pl.coalesce("above", "ancestor")).drop("ancestor")
        step = 2 * size
        over = (pl.col("row") // step * step + step > height) | (
            pl.col("col") // step * step + step > width
        )
        hangs = over & pl.col("above").fill_null(True)
        root = pl.col("split").is_null() & (hangs | (size == sizes[0]))
        fails = over & ~pl.col("above")  # a listed ancestor decides where the parent is missing
        level = level.with_columns(
            root=root,
            split=pl.when(pl.col("split").is_null() & fails).then(False).otherwise("split"),
        )
        judged[size] = level.with_columns(in_tree=pl.col("split").fill_null(pl.col("root")))
    inside = (pl.col("row") + pl.col("size") <= height) & (pl.col("col") + pl.col("size") <= width)
    fate = (
        pl.when("in_tree")
        .then(pl.when(inside).then(pl.lit(_KEPT)).otherwise(pl.lit("not_inside_frame")))
        .when(pl.col("split").is_null())
        .then(pl.lit("parent_not_listed"))
        .otherwise(pl.lit("parent_not_split"))
    )
    return pl.concat(judged.values()).select(*listed.columns, "root", fate=fate)


def _join_ancestors(level: pl.DataFrame, judged: pl.DataFrame, size: int) -> pl.DataFrame:
    """Add `ancestor`: whether that of `size` is in the tree and SPLIT, null if it is not listed."""
    place = [(pl.col(axis) // size * size).alias(f"{axis}_above") for axis in ("row", "col")]
    ancestors = judged.select(
        "qindex",
        pl.col("row").alias("row_above"),
        pl.col("col").alias("col_above"),
        ancestor=pl.col("in_tree") & (pl.col("partition") == Partition.SPLIT),
    )
    key = ["qindex", "row_above", "col_above"]
    joined = level.with_columns(place).join(ancestors, on=key, how="left", maintain_order="left")
    return joined.drop("row_above", "col_above")


def _keep(judged: pl.DataFrame, sizes: Sequence[int], left_out: Counter[str]) -> pl.DataFrame:
    """Return the nodes to keep, and count the others by `fate`."""
    of_size = pl.col("size").is_in(list(sizes))
    fate = (
        pl.when((pl.col("fate") == _KEPT) & ~of_size).then(pl.lit("other_size")).otherwise("fate")
    )
    judged = judged.with_columns(fate=fate)
    counts = dict(judged["fate"].value_counts().iter_rows())
    counts.pop(_KEPT, None)
    left_out.update(counts)
    return judged.filter(fate=_KEPT)


def _luma(source: Source, frames: Sequence[int], work: Path) -> NDArray[Any]:
    """Return the luma of these frames, mapped."""
    reader = source.reader
    dtype, wanted = plane_dtype(reader.bit_depth), set(frames)
    with tempfile.TemporaryFile(dir=work) as luma:
        for number, planes in enumerate(itertools.islice(iter(reader), max(frames) + 1)):
            if number in wanted:
                luma.write(planes[0].astype(dtype, copy=False).tobytes())
        luma.flush()
        shape = len(frames), reader.height, reader.width
        return np.memmap(luma, dtype, "r", shape=shape)
