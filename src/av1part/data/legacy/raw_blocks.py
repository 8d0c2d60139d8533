r"""Layout `raw-blocks`: a file of blocks, one of labels and one of QPs for each clip and size.

    intra_raw_blocks/<seq>_sample_<S>.txt    little-endian uint16 [n, S, S], 10 bits a sample
    labels/<seq>_labels_<S>_intra.txt        n partition ids         -> a clip <seq>_sample_<S>
    qps/<seq>_qps_<S>_intra.txt              n quantiser indexes        of n frames, one block each

The place of a block is unknown. All sizes of a <seq> form a group, which a split by sequence keeps
whole.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from av1part.data.legacy.contents import (
    BIT_DEPTH,
    Clip,
    Contents,
    block_nodes,
    check_own,
    check_partitions,
    check_qindexes,
)
from av1part.data.legacy.numbers import read_numbers
from av1part.data.legacy.settings import ImportSettings
from av1part.data.store.schema import sequence_name
from av1part.system.errors import SourceError
from av1part.system.files import sha256_file

_BLOCKS, _LABELS, _QPS = "intra_raw_blocks", "labels", "qps"
_NAMES: Mapping[str, str] = {
    _BLOCKS: "{seq}_sample_{size}.txt",
    _LABELS: "{seq}_labels_{size}_intra.txt",
    _QPS: "{seq}_qps_{size}_intra.txt",
}
"""Folder to the names of its files."""

Key = tuple[str, int]
"""Clip, and luma samples a side."""


def read(folder: Path, settings: ImportSettings) -> Contents:
    """Read labels and QPs and check that blocks, labels and QPs fit each other.

    Args:
        folder: The folder of `intra_raw_blocks`, `labels` and `qps`.
        settings: Only `sizes` applies.

    Returns:
        A clip for each `<seq>` and size, and the number of files left out.

    Raises:
        SourceError: naming the file that is missing, not valid, or contradicts another.
    """
    sides = {side: _files(folder, side) for side in _NAMES}
    keys = [key for files, _ in sides.values() for key in files]
    kept = sorted({key for key in keys if key[1] in settings.sizes})
    if not kept:
        example = _NAMES[_BLOCKS].format(seq="<seq>", size="<S>")
        raise SourceError(
            f"{folder} has no {_BLOCKS}/{example} with S in sizes={list(settings.sizes)}"
        )
    for side, (files, _) in sides.items():
        for seq, size in kept:
            if (seq, size) not in files:
                raise SourceError(
                    f"{folder / side / _NAMES[side].format(seq=seq, size=size)} is missing: every "
                    "clip and size needs its blocks, its labels and its QPs"
                )
    left_out = sum(count for _, count in sides.values())
    left_out += sum(size not in settings.sizes for _, size in keys)
    clips = [_clip(key, {side: files[key] for side, (files, _) in sides.items()}) for key in kept]
    return Contents(clips, {"other_files": left_out})


def _files(folder: Path, side: str) -> tuple[dict[Key, Path], int]:
    """Return the files of one folder by clip and size, and the number of files with other names.

    Raises:
        SourceError: if the folder is missing, or a file is a link that leads out.
    """
    if not (folder / side).is_dir():
        raise SourceError(
            f"{folder} has no folder {side}: give the one that holds {', '.join(_NAMES)}"
        )
    pattern = re.compile(
        re.escape(_NAMES[side])
        .replace(r"\{seq\}", "(?P<seq>.+)")
        .replace(r"\{size\}", r"(?P<size>[1-9]\d{0,3})"),
        re.ASCII | re.DOTALL,
    )
    files: dict[Key, Path] = {}
    left_out = 0
    for path in (folder / side).iterdir():
        if match := pattern.fullmatch(path.name):
            files[match["seq"], int(match["size"])] = check_own(path, folder)
        else:
            left_out += 1
    return files, left_out


def _clip(key: Key, files: Mapping[str, Path]) -> Clip:
    seq, size = key
    blocks = _map_blocks(files[_BLOCKS], size)
    labels, qps = read_numbers(files[_LABELS]), read_numbers(files[_QPS])
    if not len(blocks) == len(labels) == len(qps):
        raise SourceError(
            f"{files[_BLOCKS]} has {len(blocks)} blocks of {size}x{size}, {files[_LABELS].name} "
            f"{len(labels)} labels and {files[_QPS].name} {len(qps)} QPs: a file is truncated, or "
            "of another run"
        )
    check_partitions(labels, size, str(files[_LABELS]))
    check_qindexes(qps, str(files[_QPS]))
    _check_samples(files[_BLOCKS], blocks)
    sequence = sequence_name(files[_BLOCKS].stem)
    facts = {
        "bit_depth": BIT_DEPTH,
        "group": seq,
        "source": files[_BLOCKS].name,
        "source_sha256": sha256_file(files[_BLOCKS]),
        "label_files": {files[s].name: sha256_file(files[s]) for s in (_LABELS, _QPS)},
    }
    nodes = block_nodes(sequence, size, qps, labels)
    return Clip(sequence, BIT_DEPTH, nodes, facts, lambda _: blocks)


def _map_blocks(path: Path, size: int) -> NDArray[Any]:
    """Map a file of blocks, `[n, size, size]`.

    Raises:
        SourceError: if it is not a whole number of them.
    """
    dtype = np.dtype("<u2")
    length, block = path.stat().st_size, size * size * dtype.itemsize
    if length % block or not length:
        raise SourceError(
            f"{path} has {length} bytes, not a whole number of {size}x{size} blocks of 16-bit "
            f"samples ({block} bytes each): it is truncated, or of another size"
        )
    return np.memmap(path, dtype, "r", shape=(length // block, size, size))


def _check_samples(path: Path, blocks: NDArray[Any]) -> None:
    highest = blocks.max(axis=(1, 2))
    bad = np.flatnonzero(highest >= 1 << BIT_DEPTH)
    if len(bad):
        raise SourceError(
            f"{path}: block {bad[0] + 1} holds {highest[bad[0]]}, more than {BIT_DEPTH} bits: "
            "samples are little-endian 16-bit words from 0 to 1023"
        )
