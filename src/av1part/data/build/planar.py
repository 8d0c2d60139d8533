"""Readers of raw planar YUV and y4m files, whose frames are counted from the file's size first."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from av1part.data.build.yuv import (
    CHROMA_BOX,
    GREY,
    NO_CONVERSION,
    YuvFrame,
    check_format,
    grey_to_420,
    mean_chroma,
)
from av1part.system.errors import SourceError

_DEFAULT_RATE = Fraction(30)


@dataclass(frozen=True)
class RawFormat:
    """Format of raw files; None where the file's name gives a value.

    Attributes:
        width: Luma samples.
        height: Luma samples.
        bit_depth: 8, or 10 in little-endian 16-bit words.
    """

    width: int | None = None
    height: int | None = None
    bit_depth: int | None = None


def _read_plane(file: BinaryIO, height: int, width: int, bit_depth: int) -> NDArray[Any]:
    dtype = np.dtype("u1" if bit_depth == 8 else "<u2")
    data = file.read(height * width * dtype.itemsize)
    plane = np.frombuffer(data, dtype).reshape(height, width)
    if bit_depth > 8 and int(plane.max()) >> bit_depth:
        raise SourceError(
            f"{file.name} holds {int(plane.max())}, more than {bit_depth} bits: "
            "is it of another width, height, bit depth or byte order?"
        )
    return plane


class RawReader:
    """Planar YUV 4:2:0 without a header; its format comes from the user or the file's name."""

    conversion = NO_CONVERSION
    rate = _DEFAULT_RATE

    def __init__(self, path: Path, given: RawFormat) -> None:
        """Determine the format and count the frames.

        Args:
            path: A raw planar 4:2:0 file.
            given: The user's options; the file's name gives what is None.

        Raises:
            SourceError: if the size is unknown, or the file is not a whole number of frames.
        """
        self.path = path
        named = raw_format_of(path)
        width, height = given.width or named.width, given.height or named.height
        if width is None or height is None:
            raise SourceError(
                f"{path} does not say its size: give width= and height=, "
                "or name it like clip_1920x1080_10bit.yuv"
            )
        self.width, self.height = width, height
        self.bit_depth = given.bit_depth or named.bit_depth or 8
        check_format(path, width, height, self.bit_depth)
        samples = width * height + 2 * ((width + 1) // 2) * ((height + 1) // 2)
        size = path.stat().st_size
        self.frames, rest = divmod(size, samples * (1 if self.bit_depth == 8 else 2))
        if rest or not self.frames:
            raise SourceError(
                f"{path} has {size} bytes, not a whole number of {width}x{height} frames of "
                f"{self.bit_depth} bits: it is truncated, or width, height or bit_depth are wrong"
            )
        if not (given.bit_depth or named.bit_depth):
            self._refuse_words()

    def _refuse_words(self) -> None:
        """Refuse 16-bit words read as bytes: every second byte small, and not all zero.

        Raises:
            SourceError: if the file looks like such words.
        """
        with self.path.open("rb") as file:
            start = np.frombuffer(file.read(1 << 20), dtype=np.uint8)
        high = start[1::2]
        if start.any() and int(high.max(initial=0)) < 4 and int(start[::2].max()) > 3:
            raise SourceError(f"{self.path} looks like more than 8 bits a sample: give bit_depth=")

    def __iter__(self) -> Iterator[YuvFrame]:
        chroma = (self.height + 1) // 2, (self.width + 1) // 2
        with self.path.open("rb") as file:
            for _ in range(self.frames):
                yield (
                    _read_plane(file, self.height, self.width, self.bit_depth),
                    _read_plane(file, *chroma, self.bit_depth),
                    _read_plane(file, *chroma, self.bit_depth),
                )


def raw_format_of(path: Path) -> RawFormat:
    """Parse the format in a raw file's name; None for what it does not give.

    >>> raw_format_of(Path("Beauty_3840x2160_120fps_420_10bit_YUV.yuv"))
    RawFormat(width=3840, height=2160, bit_depth=10)
    >>> raw_format_of(Path("src01_hrc00_576x324_10le.yuv"))
    RawFormat(width=576, height=324, bit_depth=10)
    >>> raw_format_of(Path("foreman_352x288.yuv"))
    RawFormat(width=352, height=288, bit_depth=None)

    Args:
        path: The file; only its name is read.

    Returns:
        The format.

    Raises:
        SourceError: if the name says big endian.
    """
    stem = path.stem.lower()
    size = re.search(r"(?<!\d)(\d{1,5})x(\d{1,5})(?!\d)", stem)
    depth = re.search(r"(?<!\d)(\d{1,2})(?:[-_ ]?bits?|(le|be))(?![a-z0-9])", stem)
    depth = depth or re.search(r"4[0-4]{2}p(\d{2})(le|be)?(?![a-z0-9])", stem)
    if depth and depth[2] == "be":
        raise SourceError(f"{path} is big endian by its name: little endian is taken; convert it")
    width, height = (int(size[1]), int(size[2])) if size else (None, None)
    return RawFormat(width, height, int(depth[1]) if depth else None)


class Y4mReader:
    """A YUV4MPEG2 file: a header line, then frames, each after a line of its own."""

    MAGIC = b"YUV4MPEG2"
    FRAME = b"FRAME"
    _MAX_LINE = 1024
    _CHROMA = re.compile(r"(420|422|444|mono)(?:jpeg|paldv|mpeg2)?(?:p?(\d+))?")

    def __init__(self, path: Path) -> None:
        """Parse the header and count the frames.

        Args:
            path: A y4m file.

        Raises:
            SourceError: if the header is broken, the format unsupported, or a frame incomplete.
        """
        self.path = path
        with path.open("rb") as file:
            line = file.readline(self._MAX_LINE)
            self._start = file.tell()
        fields = {f[0]: f[1:] for f in line.decode("ascii", "replace").split()[1:] if f}
        chroma = self._CHROMA.fullmatch(fields.get("C", "420").lower())
        try:
            self.width, self.height = int(fields["W"]), int(fields["H"])
            self.rate = Fraction(fields.get("F", "30:1").replace(":", "/"))
        except (KeyError, ValueError, ZeroDivisionError):
            raise SourceError(f"{path} has a broken y4m header: convert it again") from None
        if not line.endswith(b"\n") or chroma is None:
            raise SourceError(f"{path} is y4m of a kind that is not taken: convert it to 4:2:0")
        self.rate = self.rate if self.rate > 0 else _DEFAULT_RATE
        self.bit_depth = int(chroma[2] or 8)
        check_format(path, self.width, self.height, self.bit_depth)
        self._layout = chroma[1]
        self.conversion = {"420": NO_CONVERSION, "mono": GREY}.get(self._layout, CHROMA_BOX)
        self.frames = self._count()

    def _chroma_shape(self) -> tuple[int, int]:
        rows = 2 if self._layout == "420" else 1
        cols = 1 if self._layout == "444" else 2
        return -(-self.height // rows), -(-self.width // cols)

    def _frame_bytes(self) -> int:
        rows, cols = self._chroma_shape()
        samples = self.width * self.height + (0 if self._layout == "mono" else 2 * rows * cols)
        return samples * (1 if self.bit_depth == 8 else 2)

    def _count(self) -> int:
        size, frames = self.path.stat().st_size, 0
        with self.path.open("rb") as file:
            file.seek(self._start)
            while line := file.readline(self._MAX_LINE):
                end = file.tell() + self._frame_bytes()
                if not line.startswith(self.FRAME) or not line.endswith(b"\n") or end > size:
                    raise SourceError(
                        f"{self.path} is damaged or truncated: it ends within frame {frames + 1}"
                    )
                frames += 1
                file.seek(end)
        if not frames:
            raise SourceError(f"{self.path} has a y4m header and no frame")
        return frames

    def __iter__(self) -> Iterator[YuvFrame]:
        with self.path.open("rb") as file:
            file.seek(self._start)
            for _ in range(self.frames):
                file.readline(self._MAX_LINE)
                luma = _read_plane(file, self.height, self.width, self.bit_depth)
                if self._layout == "mono":
                    yield grey_to_420(luma, self.bit_depth)
                    continue
                rows, cols = self._chroma_shape()
                u, v = (_read_plane(file, rows, cols, self.bit_depth) for _ in range(2))
                if self._layout != "420":
                    down, across = 2, 2 if self._layout == "444" else 1
                    u, v = mean_chroma(u, down, across), mean_chroma(v, down, across)
                yield luma, u, v
