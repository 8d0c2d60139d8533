"""Raw YUV: samples without a header."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from av1part.data.build.coding import Coding
from av1part.data.build.layouts import (
    LAYOUTS,
    Layout,
    RawFormat,
    layout_of,
    raw_format_of,
    words_of,
)
from av1part.data.build.yuv import (
    CHROMA_BOX,
    GREY,
    NO_CONVERSION,
    YuvFrame,
    check_format,
    grey_to_420,
    to_420,
)
from av1part.system.errors import SourceError

_CONVERSION_OF = {(0, 0): GREY, (2, 2): NO_CONVERSION}


class RawReader:
    """Raw YUV; its format comes from the user or the file's name."""

    def __init__(self, path: Path, given: RawFormat) -> None:
        """Determine the format and count the frames.

        Args:
            path: A raw file.
            given: The user's options; the file's name gives what is None, and 4:2:0 of 8 bits is
                taken where neither says more.

        Raises:
            SourceError: if the format is unknown or doubtful, or the file is not a whole number of
                frames.
        """
        self.path = path
        format_ = raw_format_of(path, given)
        if format_.width is None or format_.height is None:
            raise SourceError(
                f"{path} does not say its size: give width= and height=, "
                "or name it like clip_1920x1080_10bit.yuv"
            )
        self.width, self.height = format_.width, format_.height
        self.bit_depth = format_.bit_depth or 8
        check_format(path, self.width, self.height, self.bit_depth)
        name = format_.layout or "420"
        self._layout = LAYOUTS[name]
        self.frames = self._count(name)
        if given.layout is None:
            self._refuse_doubtful(name)
        if format_.bit_depth is None:
            self._refuse_words()
        self.conversion = _CONVERSION_OF.get((self._layout.rows, self._layout.cols), CHROMA_BOX)
        self.coding = Coding(name)

    def _count(self, name: str) -> int:
        size = self.path.stat().st_size
        frames, rest = divmod(size, self._frame_bytes(self._layout))
        if rest or not frames:
            raise SourceError(
                f"{self.path} has {size} bytes, not a whole number of {self.width}x{self.height} "
                f"frames of {self.bit_depth} bits in layout {name}: it is truncated, or width, "
                "height, bit_depth or layout are wrong"
            )
        return frames

    def _frame_bytes(self, layout: Layout) -> int:
        rows, cols = self._chroma_shape(layout)
        samples = self.width * self.height + 2 * rows * cols
        return samples * (1 if self.bit_depth == 8 else 2)

    def _chroma_shape(self, layout: Layout) -> tuple[int, int]:
        if not layout.rows:
            return 0, 0
        return -(-self.height // layout.rows), -(-self.width // layout.cols)

    def _refuse_doubtful(self, name: str) -> None:
        """Refuse a layout by a word of the name that may mean something else.

        `gray` may be what is to be seen, `400` a bit rate, `444` a number of frames: they count
        only where the file cannot be 4:2:0, or has another number of frames (not for `400`).

        Raises:
            SourceError: if the name is ambiguous.
        """
        frames, rest = divmod(self.path.stat().st_size, self._frame_bytes(LAYOUTS["420"]))
        words = [word for word in words_of(self.path) if layout_of(word)[0] == name]
        doubtful = not rest and any(
            word.isalpha() or word == "400" or (word.isdigit() and frames == int(word))
            for word in words
        )
        if doubtful and name != "420":
            raise SourceError(
                f"{self.path} could be {self.frames} frames of {name} by its name or {frames} of "
                f"4:2:0: give layout={name} or layout=420"
            )

    def _refuse_words(self) -> None:
        """Refuse 16-bit words read as bytes: every second byte small, and not all zero.

        Raises:
            SourceError: if the file looks like such words.
        """
        with self.path.open("rb") as file:
            start = np.frombuffer(file.read(1 << 20), dtype=np.uint8)
        high = start[1::2]
        most = 16  # of 12 bits
        if start.any() and int(high.max(initial=0)) < most <= int(start[::2].max()):
            raise SourceError(f"{self.path} looks like more than 8 bits a sample: give bit_depth=")

    def __iter__(self) -> Iterator[YuvFrame]:
        layout = self._layout
        rows, cols = self._chroma_shape(layout)
        with self.path.open("rb") as file:
            for _ in range(self.frames):
                luma = self._read(file, self.height, self.width)
                if not rows:
                    yield grey_to_420(luma, self.bit_depth)
                    continue
                if layout.interleaved:
                    both = self._read(file, rows, 2 * cols)
                    first, second = both[:, ::2], both[:, 1::2]
                else:
                    first, second = (self._read(file, rows, cols) for _ in range(2))
                u, v = (second, first) if layout.v_first else (first, second)
                yield to_420(luma, u, v)

    def _read(self, file: BinaryIO, rows: int, cols: int) -> NDArray[Any]:
        return read_plane(file, rows, cols, self.bit_depth, self._layout.shift)


def read_plane(
    file: BinaryIO, rows: int, cols: int, bit_depth: int, shift: int = 0
) -> NDArray[Any]:
    """Read a plane of samples, little-endian words above 8 bits.

    Args:
        file: Positioned at the plane, which must be there whole.
        rows: Height of the plane.
        cols: Width of the plane.
        bit_depth: Bits per sample.
        shift: Unused low bits of each word.

    Returns:
        uint8 or uint16 `[rows, cols]`.

    Raises:
        SourceError: if a sample has more bits.
    """
    dtype = np.dtype("u1" if bit_depth == 8 else "<u2")
    plane = np.frombuffer(file.read(rows * cols * dtype.itemsize), dtype).reshape(rows, cols)
    if shift:
        if int(np.bitwise_or.reduce(plane, axis=None)) & ((1 << shift) - 1):
            raise SourceError(
                f"{file.name} uses the low {shift} bits of its words: is it of another layout?"
            )
        plane = plane >> shift
    if bit_depth > 8 and int(plane.max()) >> bit_depth:
        raise SourceError(
            f"{file.name} holds {int(plane.max())}, more than {bit_depth} bits: "
            "is it of another width, height, bit depth, layout or byte order?"
        )
    return plane
