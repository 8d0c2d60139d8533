"""What the tests of the patched encoder share: clips, masks, the trees of a stream."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from av1part import embedded
from av1part.data.build.libaom import Children, encoder_arguments, find_inspect, inspect_stream
from av1part.data.build.tree import partition_tree
from av1part.data.build.yuv import grey_to_420, write_y4m_frame, y4m_header
from av1part.data.store.store import Store
from av1part.encoder.counts import RETRIED
from av1part.encoder.hints import KEEP, HintsWriter, grid_shape
from av1part.encoder.patched import Encode, find_patched, run_encode
from av1part.partition import SIZES, Partition, legal_partitions

Luma = NDArray[np.uint8]
Masks = dict[int, NDArray[np.uint16]]
MakeMasks = Callable[[int, tuple[int, int]], NDArray[np.uint16]]
"""From a size, and rows and columns of its nodes, to their masks."""


def corner(picture: str, height: int, width: int, at: tuple[int, int] = (100, 100)) -> Luma:
    """Return a piece of an embedded picture."""
    plane = Store.open(embedded.STORE).plane(picture)[0]
    return np.ascontiguousarray(plane[at[0] : at[0] + height, at[1] : at[1] + width])


def write_clip(path: Path, frames: Sequence[Luma], bit_depth: int = 8) -> Path:
    """Write grey frames as y4m, shifted to the bit depth."""
    height, width = frames[0].shape
    with path.open("wb") as file:
        file.write(y4m_header(width, height, bit_depth))
        for luma in frames:
            shifted = luma if bit_depth == 8 else luma.astype(np.uint16) << (bit_depth - 8)
            write_y4m_frame(file, grey_to_420(shifted, bit_depth))
    return path


def write_hints(
    path: Path, shape: tuple[int, int], make: MakeMasks, sizes: Sequence[int], frames: int = 1
) -> list[Masks]:
    """Write a hint file; return its masks."""
    height, width = shape
    written = [{n: make(n, grid_shape(width, height, n)) for n in sizes} for _ in range(frames)]
    with HintsWriter(path, width, height, tuple(sizes)) as hints:
        for masks in written:
            hints.add(masks)
    return written


def everywhere(*types: Partition) -> MakeMasks:
    """Return the maker of masks that name the same types at every node."""
    mask = sum(1 << type_ for type_ in types)
    return lambda _, shape: np.full(shape, mask, np.uint16)


def trees(stream: bytes) -> list[list[tuple[int, NDArray[Any], NDArray[Any], NDArray[Any]]]]:
    """Return size, rows, columns (luma samples) and types of the nodes of each frame."""
    with tempfile.NamedTemporaryFile(suffix=".ivf") as file:
        file.write(stream)
        file.flush()
        frames = inspect_stream(find_inspect().path, Path(file.name), Children())
        return [list(partition_tree(frame.blocks)) for frame in frames]


def run(
    y4m: Path,
    cq_level: int,
    cpu_used: int = 0,
    *extra: str,
    hints: Path | None = None,
    costs: bool = False,
    one_to_four: bool = False,
) -> Encode:
    """Encode 8 bit with the patched encoder."""
    arguments = encoder_arguments(cq_level, bit_depth=8, cpu_used=cpu_used, one_to_four=one_to_four)
    program = find_patched().path
    return run_encode(program, y4m, [*arguments, *extra], Children(), hints=hints, costs=costs)


@dataclass
class Checked:
    """Nodes of streams that were compared with their masks.

    Attributes:
        nodes: Nodes where a mask replaced the encoder's pruning.
        retried: Nodes left out: their search was repeated without masks.
        wrong: Nodes whose type their mask does not name.
    """

    nodes: int = 0
    retried: int = 0
    wrong: list[str] = field(default_factory=list)


def compare(
    done: Encode, masks: Sequence[Mapping[int, Any]], shape: tuple[int, int], possible: int
) -> Checked:
    """Look up the type of each node of a stream in its mask.

    Args:
        done: An encode with hints and costs.
        masks: By frame and size.
        shape: Height and width of a frame.
        possible: Types that the encoder's switches leave.
    """
    assert done.costs is not None
    retried = {
        (int(r["frame"]), 1 << int(r["size_log2"]), int(r["mi_row"]) * 4, int(r["mi_col"]) * 4)
        for r in done.costs[(done.costs["flags"] & RETRIED) > 0]
    }
    checked = Checked()
    frames = trees(done.stream)
    assert len(frames) == len(masks)
    for number, levels in enumerate(frames):
        for size, rows, cols, types in levels:
            if size not in masks[number]:
                continue
            legal = sum(1 << type_ for type_ in legal_partitions(size))
            for row, col, type_ in zip(rows.tolist(), cols.tolist(), types.tolist(), strict=True):
                if row + size > shape[0] or col + size > shape[1]:
                    continue
                mask = int(masks[number][size][row // size, col // size])
                named = mask & legal
                if mask & KEEP or named in (0, legal) or not named & possible:
                    continue
                if (number, size, row, col) in retried:
                    checked.retried += 1
                    continue
                checked.nodes += 1
                if not named >> type_ & 1:
                    checked.wrong.append(f"{size} at {row}, {col}: type {type_}, mask {mask:#x}")
    return checked


def random_masks_encode(rng: np.random.Generator, folder: Path) -> Checked:
    """Encode a random piece with random masks, at a random preset, quantiser and set of switches.

    Args:
        rng: Chooses all of it.
        folder: Where its files are written.

    Returns:
        The nodes of the stream, which decodes.
    """
    height, width = (int(side) for side in rng.integers(64, 200, 2))
    at = (int(rng.integers(0, 300 - height)), int(rng.integers(0, 300 - width)))
    picture = str(rng.choice(["astronaut", "brick", "chelsea", "coffee"]))
    frames = int(rng.integers(1, 3))
    keeps = rng.random() < 0.3

    def make(_: int, shape: tuple[int, int]) -> NDArray[np.uint16]:
        one = rng.random() < 0.3
        types = 1 << rng.integers(0, 10, shape) if one else rng.integers(0, 1024, shape)
        keep = (rng.random(shape) < 0.5) if keeps else np.zeros(shape, bool)
        return (types | np.where(keep, KEEP, 0)).astype(np.uint16)

    y4m = write_clip(folder / "a.y4m", [corner(picture, height, width, at)] * frames)
    sizes = [size for size in SIZES if rng.random() < 0.7] or [16]
    masks = write_hints(folder / "a.hints", (height, width), make, sizes, frames)
    one_to_four = bool(rng.random() < 0.5)
    extra = ["--sb-size=64"] if rng.random() < 0.3 else []
    done = run(
        y4m,
        int(rng.choice([20, 43, 55])),
        int(rng.integers(0, 7)),
        *extra,
        hints=folder / "a.hints",
        costs=True,
        one_to_four=one_to_four,
    )
    return compare(done, masks, (height, width), 0x3FF if one_to_four else 0xFF)
