r"""Layout `raw-blocks`: a file of blocks, one of labels and one of QPs for each clip and size.

    intra_raw_blocks/<seq>_sample_<S>.txt    little-endian uint16 [n, S, S], 10 bits a sample
    labels/<seq>_labels_<S>_intra.txt        n partition ids         -> a clip <seq>_sample_<S>
    qps/<seq>_qps_<S>_intra.txt              n quantiser indexes        of n frames, one block each

Blocks have no place. All sizes of a <seq> are one group, which no split by sequence parts.
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
"""Folder to what its files are called."""

Key = tuple[str, int]
"""Clip, and luma samples a side."""


def read(folder: Path, settings: ImportSettings) -> Contents:
    """Read labels and QPs and check that blocks, labels and QPs fit each other.

    Args:
        folder: The one that holds `intra_raw_blocks`, `labels` and `qps`.
        settings: Of these, `sizes` apply.

    Returns:
        A clip for each `<seq>` and size, and how many files were left out.

    Raises:
        SourceError: naming the file, if one is missing, cannot be, or contradicts another.
    """
    sides = {side: _files(folder, side) for side in _NAMES}
    found = [key for files, _ in sides.values() for key in files]
    wanted = sorted({key for key in found if key[1] in settings.sizes})
    if not wanted:
        example = _NAMES[_BLOCKS].format(seq="<seq>", size="<S>")
        raise SourceError(
            f"{folder} has no {_BLOCKS}/{example} with S in sizes={list(settings.sizes)}"
        )
    for side, (files, _) in sides.items():
        for seq, size in wanted:
            if (seq, size) not in files:
                raise SourceError(
                    f"{folder / side / _NAMES[side].format(seq=seq, size=size)} is missing: every "
                    "clip and size needs its blocks, its labels and its QPs"
                )
    others = sum(count for _, count in sides.values())
    others += sum(size not in settings.sizes for _, size in found)
    clips = [_clip(key, {side: files[key] for side, (files, _) in sides.items()}) for key in wanted]
    return Contents(clips, {"other_files": others})


def _files(folder: Path, side: str) -> tuple[dict[Key, Path], int]:
    """Return the files of one folder by clip and size, and how many are called otherwise.

    Raises:
        SourceError: if there is no such folder, or a file is only linked into it.
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
    found: dict[Key, Path] = {}
    others = 0
    for path in (folder / side).iterdir():
        if match := pattern.fullmatch(path.name):
            found[match["seq"], int(match["size"])] = check_own(path, folder)
        else:
            others += 1
    return found, others


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
