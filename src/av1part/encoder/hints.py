"""Hint files: which partition types the patched encoder may search, node by node.

    header of seven little-endian uint16: 0x3141, 0x4850 ("A1PH"), version 1, width, height,
    level mask (bit k: nodes of 8 << k luma samples), frames
    then per frame, per level from small to large, a mask a node in raster order

Nodes are counted from the upper left corner, also those that reach over the right or lower edge,
for which the encoder takes no hint. Bits 0 to 9 of a mask are AV1's types, bit 15 is `KEEP`; none
or all of the types of a size is no hint. docs/encoder.md describes the format for other tools.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from av1part.partition import SIZES, Partition
from av1part.system.errors import HintsError
from av1part.system.files import PART_SUFFIX, flush

KEEP = 1 << 15
"""Bit of a mask: the encoder's own pruning holds as well, instead of being replaced."""

TYPES_MASK = (1 << len(Partition)) - 1
VERSION = 1
MOST = (1 << 16) - 1
"""Largest width, height and number of frames."""

_MAGIC = (0x3141, 0x4850)
_HEADER_WORDS = 7
_UNUSED = ~(TYPES_MASK | KEEP) & 0xFFFF

Masks = Mapping[int, NDArray[np.uint16]]
"""Node size to masks of one frame, uint16 `[rows, cols]` as `grid_shape` says."""


def grid_shape(width: int, height: int, size: int) -> tuple[int, int]:
    """Return rows and columns of the nodes of a size, those over the edges included."""
    return -(-height // size), -(-width // size)


class HintsWriter:
    """Writes a hint file frame by frame; use as a context, which renames the file at its end."""

    def __init__(self, path: Path, width: int, height: int, sizes: tuple[int, ...]) -> None:
        """Begin a file.

        Args:
            path: The file to make.
            width: Luma samples of a frame.
            height: Luma samples of a frame.
            sizes: Node sizes that have masks, of `SIZES`.

        Raises:
            HintsError: if the frames are too large for the format.
        """
        if max(width, height) > MOST:
            raise HintsError(f"{path}: frames of {width}x{height} are too large for a hint file")
        self.path = path
        self._shapes = {size: grid_shape(width, height, size) for size in sorted(sizes)}
        levels = sum(1 << SIZES.index(size) for size in self._shapes)
        self._header = [*_MAGIC, VERSION, width, height, levels]
        self._frames = 0
        self._part = path.with_name(f"{path.name}.{os.getpid()}{PART_SUFFIX}")

    def __enter__(self) -> HintsWriter:
        self._file = self._part.open("wb")
        self._file.write(bytes(2 * _HEADER_WORDS))
        return self

    def add(self, masks: Masks) -> None:
        """Append a frame.

        Args:
            masks: Masks of every size of the file.

        Raises:
            HintsError: if there are more frames than the format counts.
        """
        if self._frames == MOST:
            raise HintsError(f"{self.path}: a hint file has at most {MOST} frames")
        for size, shape in self._shapes.items():
            self._file.write(masks[size].reshape(shape).astype("<u2").tobytes())
        self._frames += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._file.seek(0)
            self._file.write(np.array([*self._header, self._frames], "<u2").tobytes())
            self._file.close()
            if kind is None:
                flush(self._part)
                self._part.replace(self.path)
        finally:
            # On a full disk closing raises again, as the buffer is written again.
            with suppress(OSError):
                self._file.close()
            self._part.unlink(missing_ok=True)


@dataclass(frozen=True)
class Hints:
    """A hint file that was checked as the encoder checks it.

    Attributes:
        path: The file.
        width: Luma samples of a frame.
        height: Luma samples of a frame.
        sizes: Node sizes that have masks, ascending.
        frames: Number of frames.
    """

    path: Path
    width: int
    height: int
    sizes: tuple[int, ...]
    frames: int

    def __iter__(self) -> Iterator[dict[int, NDArray[np.uint16]]]:
        """Read the masks of each frame."""
        shapes = [grid_shape(self.width, self.height, size) for size in self.sizes]
        with self.path.open("rb") as file:
            file.seek(2 * _HEADER_WORDS)
            for _ in range(self.frames):
                yield {
                    size: np.frombuffer(file.read(2 * rows * cols), "<u2").reshape(rows, cols)
                    for size, (rows, cols) in zip(self.sizes, shapes, strict=True)
                }


def open_hints(path: Path) -> Hints:
    """Open a hint file and check all of it.

    Args:
        path: The file.

    Returns:
        Its facts and masks.

    Raises:
        HintsError: naming what is wrong with it.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(2 * _HEADER_WORDS)
    except OSError as error:
        raise HintsError(f"{path} cannot be read ({error.strerror})") from None
    whole = len(start) == 2 * _HEADER_WORDS
    header = np.frombuffer(start, "<u2").tolist() if whole else [0] * _HEADER_WORDS
    *magic, version, width, height, levels, frames = header
    if tuple(magic) != _MAGIC:
        raise HintsError(f"{path} is not a hint file")
    if version != VERSION:
        raise HintsError(f"{path} is of version {version}, not {VERSION}: write it again")
    if not (width and height and frames and levels) or levels >> len(SIZES):
        raise HintsError(f"{path} has a header that is not valid: write it again")
    sizes = tuple(side for k, side in enumerate(SIZES) if levels >> k & 1)
    shapes = [grid_shape(width, height, side) for side in sizes]
    expected = 2 * (_HEADER_WORDS + frames * sum(rows * cols for rows, cols in shapes))
    if size != expected:
        raise HintsError(f"{path} has {size} bytes, its header says {expected}: write it again")
    hints = Hints(path, width, height, sizes, frames)
    for number, masks in enumerate(hints):
        if any((mask & _UNUSED).any() for mask in masks.values()):
            raise HintsError(f"{path} has a mask with one of bits 10 to 14 in frame {number}")
    return hints
