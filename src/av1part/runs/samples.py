"""samples.npz: some blocks and one frame of a run, so that a report needs no dataset."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from av1part.runs.fields import REMEDY
from av1part.runs.schema import SAMPLES_FILE
from av1part.system.errors import ReportError
from av1part.system.files import atomic_path

_BLOCK_KEYS = ("node", "qindex", "partition", "label", "prediction")
_NODE_KEYS = ("row", "col", "size", "partition", "label", "prediction")
_NODE_NUMBER = "frame_node"
"""Key of the nodes' numbers, which av1part 0.1 did not write."""
_SCALAR_KEYS = ("frame_sequence", "frame_qindex", "bit_depth")
_KEYS = ("block", *_BLOCK_KEYS, "frame", *_SCALAR_KEYS, *(f"frame_{key}" for key in _NODE_KEYS))


@dataclass(frozen=True)
class FrameNodes:
    """Square nodes of a frame, shape (m,) each: place, true type, true and predicted class.

    `node` has the numbers by which `predictions.parquet` knows them, None if the file has none.
    """

    row: NDArray[np.int64]
    col: NDArray[np.int64]
    size: NDArray[np.int64]
    partition: NDArray[np.int64]
    label: NDArray[np.int64]
    prediction: NDArray[np.int64]
    node: NDArray[np.int64] | None = None

    def where(self, mask: NDArray[np.bool_]) -> FrameNodes:
        """Return the nodes that a mask of shape (m,) selects."""
        columns = {name: getattr(self, name)[mask] for name in _NODE_KEYS}
        return FrameNodes(**columns, node=None if self.node is None else self.node[mask])

    def __len__(self) -> int:
        return len(self.row)


@dataclass(frozen=True)
class Samples:
    """Contents of samples.npz, luma scaled to 8 bits.

    Attributes:
        block: Luma of shape (n, s, s), uint8.
        margin: Pixels around the node on each side of a block.
        node: Row number of each block in the node table, shape (n,).
        partition: True type of each block, shape (n,).
        label: True class of each block, shape (n,).
        prediction: Predicted class of each block, shape (n,).
        frame: Luma of shape (h, w), uint8.
        sequence: Name of the frame's picture or clip.
        qindex: Of the frame.
        nodes: The nodes of the frame, of one size.
    """

    block: NDArray[np.uint8]
    margin: int
    node: NDArray[np.int64]
    partition: NDArray[np.int64]
    label: NDArray[np.int64]
    prediction: NDArray[np.int64]
    frame: NDArray[np.uint8]
    sequence: str
    qindex: int
    nodes: FrameNodes


NO_SAMPLES = Samples(
    block=np.zeros((0, 1, 1), np.uint8),
    margin=0,
    **{key: np.zeros(0, np.int64) for key in ("node", "partition", "label", "prediction")},
    frame=np.zeros((0, 0), np.uint8),
    sequence="",
    qindex=0,
    nodes=FrameNodes(*(np.zeros(0, np.int64) for _ in _NODE_KEYS)),
)
"""The samples of a run whose pictures were left out."""


def write_samples(folder: Path, arrays: Mapping[str, ArrayLike]) -> None:
    """Write samples.npz.

    Args:
        folder: Run folder.
        arrays: `block` (n, 1, s, s) with `node, qindex, partition, label, prediction` (n,);
            `frame` (h, w) with `frame_sequence, frame_qindex, bit_depth` and, of its m nodes,
            `frame_{row,col,size,partition,label,prediction,node}` (m,).
    """
    packed = io.BytesIO()  # numpy 2.0 and 2.1 leave an archive open whose file takes no more
    chosen: dict[str, Any] = {key: arrays[key] for key in (*_KEYS, _NODE_NUMBER)}
    np.savez_compressed(packed, **chosen)
    with atomic_path(folder / SAMPLES_FILE) as part, part.open("wb") as file:
        file.write(packed.getbuffer())


def read_samples(file: Path) -> Samples:
    """Read samples.npz.

    Args:
        file: The file.

    Returns:
        Its contents, luma as 8 bits.

    Raises:
        ReportError: if it is missing, damaged, or its arrays do not fit each other.
    """
    if not file.is_file():
        raise ReportError(f"{file} is missing: {REMEDY}")
    try:
        with np.load(file, allow_pickle=False) as archive:
            data = {key: archive[key] for key in archive.files}
    except Exception as error:  # zipfile, zlib, numpy and OS errors: all mean a damaged file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ReportError(f"{file} is not a readable .npz archive ({reason}): {REMEDY}") from None
    missing = [key for key in _KEYS if key not in data]
    if missing:
        raise ReportError(f"{file} lacks `{missing[0]}`: {REMEDY}")
    _check_shapes(file, data)
    depth = int(data["bit_depth"])
    columns = {key: data[f"frame_{key}"].astype(np.int64) for key in _NODE_KEYS}
    numbers = data[_NODE_NUMBER].astype(np.int64) if _NODE_NUMBER in data else None
    nodes = _one_size(FrameNodes(**columns, node=numbers))
    block = data["block"][:, 0]
    spare = block.shape[-1] - int(nodes.size[0]) if len(nodes) and len(block) else 0
    return Samples(
        block=_to_8_bits(block, depth),
        margin=spare // 2 if spare > 0 and spare % 2 == 0 else 0,
        node=data["node"].astype(np.int64),
        partition=data["partition"].astype(np.int64),
        label=data["label"].astype(np.int64),
        prediction=data["prediction"].astype(np.int64),
        frame=_to_8_bits(data["frame"], depth),
        sequence=str(data["frame_sequence"]),
        qindex=int(data["frame_qindex"]),
        nodes=nodes,
    )


def _check_shapes(file: Path, data: dict[str, NDArray[Any]]) -> None:
    block, frame = data["block"], data["frame"]
    n, m = len(block), data["frame_row"].size
    fits = block.ndim == 4 and block.shape[1] == 1 and frame.ndim == 2
    fits &= all(data[k].shape == (n,) for k in _BLOCK_KEYS)
    fits &= all(data[f"frame_{k}"].shape == (m,) for k in _NODE_KEYS)
    if _NODE_NUMBER in data:
        fits &= data[_NODE_NUMBER].shape == (m,) and data[_NODE_NUMBER].dtype.kind in "ui"
    fits &= all(data[k].size == 1 for k in _SCALAR_KEYS)
    fits &= block.dtype.kind in "ui" and frame.dtype.kind in "ui"
    if not fits:
        raise ReportError(f"{file} holds arrays that do not fit each other: {REMEDY}")
    size = data["frame_size"]
    bottom, right = data["frame_row"] + size, data["frame_col"] + size
    if m and (bottom.max() > frame.shape[0] or right.max() > frame.shape[1]):
        raise ReportError(f"{file} has a node outside its frame: {REMEDY}")


def _to_8_bits(luma: NDArray[Any], depth: int) -> NDArray[np.uint8]:
    return (luma.astype(np.int64) >> max(0, depth - 8)).clip(0, 255).astype(np.uint8)


def _one_size(nodes: FrameNodes) -> FrameNodes:
    """Return the 16x16 nodes if there are any, else those of the most frequent size."""
    if not len(nodes):
        return nodes
    sizes, counts = np.unique(nodes.size, return_counts=True)
    chosen = 16 if 16 in sizes else int(sizes[np.argmax(counts)])
    return nodes.where(nodes.size == chosen)
