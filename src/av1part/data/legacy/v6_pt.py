"""Layout `v6-pt`: `train.pt` and `val.pt`, blocks of 16x16 as floats with labels of every stage.

    samples            float32 [n, 1, 16, 16], the 10-bit samples divided by 1023
    labels_stage0      integers [n], partition ids
    labels_stage1, labels_stage2, labels_stage3_RECT, labels_stage3_AB    of taxonomy v6, or -1
    qps                integers [n], quantiser indexes

Samples are converted back to integers exactly, and the stages' labels are checked against the ids.
The layout does not record a block's clip: the store has two sequences, `train` and `val`, of one
group, and accepts only the protocols that need no clips.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
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
from av1part.data.legacy.settings import ImportSettings
from av1part.data.store.schema import plane_dtype
from av1part.partition import Partition, taxonomy
from av1part.system.errors import SourceError
from av1part.system.files import sha256_file
from av1part.system.safe_load import NotPlainError, load_plain

SIZE = 16
"""Luma samples a side of the blocks."""

_SPLITS = ("train", "val")
_SCALE = (1 << BIT_DEPTH) - 1
_TYPES, _SAMPLES, _QPS = "labels_stage0", "samples", "qps"
_STAGES = {
    "labels_stage1": "stage1",
    "labels_stage2": "stage2",
    "labels_stage3_RECT": "stage3_rect",
    "labels_stage3_AB": "stage3_ab",
}
"""Key of the file to the stage of taxonomy v6 whose labels it holds."""
_KEYS = (_SAMPLES, _TYPES, *_STAGES, _QPS)
_CHUNK = 8192
"""Blocks converted at a time: 8 MiB of floats."""


def read(folder: Path, settings: ImportSettings) -> Contents:
    """Read both files and check their labels; the samples are checked as they are converted.

    Args:
        folder: The folder of `train.pt` and `val.pt`.
        settings: Only `sizes` applies, and must include 16.

    Returns:
        The clips `train` and `val`, the number of entries left out, and the given split.

    Raises:
        SourceError: naming the file that is missing, holds anything but tensors, or contradicts
            itself.
    """
    if SIZE not in settings.sizes:
        raise SourceError(
            f"{folder} holds {SIZE}x{SIZE} blocks, none of sizes={list(settings.sizes)}"
        )
    files = {split: folder / f"{split}.pt" for split in _SPLITS}
    for file in files.values():
        if not file.is_file():
            raise SourceError(f"{file} is missing: give the folder that holds train.pt and val.pt")
        check_own(file, folder)
    left_out = 0
    clips = []
    for split, file in files.items():
        tensors = _load(file)
        left_out += len(tensors.keys() - set(_KEYS))
        clips.append(_clip(split, file, tensors, group=folder.resolve().name))
    manifest = {
        "given_split": {split: split for split in _SPLITS},
        "protocols": ["given", "random_blocks"],
    }
    return Contents(clips, {"other_keys": left_out}, manifest)


def _load(file: Path) -> Mapping[Any, Any]:
    """Load a file without running code from it; its storages are mapped.

    Raises:
        SourceError: if it is damaged, holds code, or lacks an entry.
    """
    try:
        content = load_plain(file, mapped=True)
    except NotPlainError as error:
        raise SourceError(f"{file} is refused: {error}") from None
    if not isinstance(content, dict):
        raise SourceError(f"{file} holds a {type(content).__name__}, not a dict of tensors")
    missing = [key for key in _KEYS if key not in content]
    if missing:
        raise SourceError(f"{file} lacks {', '.join(missing)}: is it of the v6 layout?")
    return content


def _clip(split: str, file: Path, tensors: Mapping[Any, Any], group: str) -> Clip:
    samples = _array(file, _SAMPLES, tensors[_SAMPLES])
    if samples.dtype != np.float32 or samples.shape[1:] != (1, SIZE, SIZE) or not len(samples):
        raise SourceError(
            f"{file}: {_SAMPLES} is {samples.dtype} {list(samples.shape)}, "
            f"not float32 [n, 1, {SIZE}, {SIZE}]"
        )
    numbers = {key: _array(file, key, tensors[key]) for key in _KEYS if key != _SAMPLES}
    for key, values in numbers.items():
        if values.dtype.kind not in "iu" or values.shape != (len(samples),):
            raise SourceError(
                f"{file}: {key} is {values.dtype} {list(values.shape)}, "
                f"not integers [{len(samples)}], one a block"
            )
    check_partitions(numbers[_TYPES], SIZE, f"{file}, {_TYPES}")
    check_qindexes(numbers[_QPS], f"{file}, {_QPS}")
    _check_stages(file, numbers)
    facts = {
        "bit_depth": BIT_DEPTH,
        "group": group,
        "source": file.name,
        "source_sha256": sha256_file(file),
    }
    nodes = block_nodes(split, SIZE, numbers[_QPS], numbers[_TYPES])
    return Clip(split, BIT_DEPTH, nodes, facts, partial(_integers, file, samples[:, 0]))


def _array(file: Path, key: str, value: Any) -> NDArray[Any]:
    """Return a tensor as an array that shares its memory.

    Raises:
        SourceError: if it is not a plain tensor.
    """
    plain = (
        isinstance(value, torch.Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and value.is_contiguous()  # a stride of 0 would make a few bytes any number of blocks
    )
    try:
        array: NDArray[Any] = value.detach().numpy() if plain else np.empty(0, dtype=object)
    except (RuntimeError, TypeError):
        plain = False
    if not plain:
        raise SourceError(f"{file}: {key} is not a plain tensor: save it again with torch.save")
    return array


def _check_stages(file: Path, numbers: Mapping[str, NDArray[Any]]) -> None:
    """Check that the labels of every stage follow from the ids by its taxonomy.

    Raises:
        SourceError: naming the first label that does not.
    """
    types, v6 = numbers[_TYPES].astype(np.int64), taxonomy("v6")
    foreign = {p.name: int((types == p).sum()) for p in Partition if p not in v6.partitions}
    if any(foreign.values()):
        listed = ", ".join(f"{count} {name}" for name, count in foreign.items())
        raise SourceError(f"{file}: {_TYPES} has {listed}, which the v6 layout has no labels for")
    for key, stage in _STAGES.items():
        expected = v6.stage(stage).labels[types]
        bad = np.flatnonzero(numbers[key] != expected)
        if len(bad):
            first = bad[0]
            raise SourceError(
                f"{file}: {key} contradicts {_TYPES} in {len(bad)} blocks: entry {first + 1} is "
                f"{numbers[key][first]}, but {Partition(int(types[first])).name} makes it "
                f"{expected[first]}"
            )


def _integers(file: Path, samples: NDArray[np.float32], work: Path) -> NDArray[Any]:
    """Convert samples to integers by a factor of 1023, mapped, `[n, 16, 16]`.

    Raises:
        SourceError: naming the first sample that is not an integer divided by 1023.
    """
    dtype = plane_dtype(BIT_DEPTH)
    with tempfile.TemporaryFile(dir=work) as integers:
        for start in range(0, len(samples), _CHUNK):
            chunk = samples[start : start + _CHUNK]
            # NaN and values far out of range become some integer, which fails the comparison below.
            with np.errstate(invalid="ignore"):
                near = np.nan_to_num(np.rint(chunk.astype(np.float64) * _SCALE))
            whole = np.clip(near, 0, _SCALE)
            same = whole.astype(np.float32) / np.float32(_SCALE) == chunk
            if not same.all():
                block, *place = (int(i) for i in np.argwhere(~same)[0])
                raise SourceError(
                    f"{file}: {_SAMPLES} of block {start + block + 1} hold "
                    f"{chunk[block, *place]!s}, which is not k/{_SCALE} in float32: samples must "
                    f"be the {BIT_DEPTH}-bit integers divided by {_SCALE}, once"
                )
            integers.write(whole.astype(dtype).tobytes())
        integers.flush()
        return np.memmap(integers, dtype, "r", shape=samples.shape)
