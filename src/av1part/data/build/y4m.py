"""YUV4MPEG2 files: a header line, then frames, counted from the file's size."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from av1part.data.build.coding import Coding, Range, Scan
from av1part.data.build.raw import read_plane
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

_SCANS: dict[str, Scan] = {"p": "progressive", "t": "interlaced", "b": "interlaced"}
_SCANS |= {"m": "interlaced"}  # mixed: each frame says


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
        words = [word for word in line.decode("ascii", "replace").split()[1:] if word]
        fields = {word[0]: word[1:] for word in words if word[0] != "X"}
        further = [word[1:].upper() for word in words if word[0] == "X"]
        # A header without C may say it the way that mjpegtools once did.
        kind = fields.get("C", _value(further, "YSCSS") or "420")
        chroma = self._CHROMA.fullmatch(kind.lower())
        try:
            self.width, self.height = int(fields["W"]), int(fields["H"])
        except (KeyError, ValueError):
            raise SourceError(f"{path} has a broken y4m header: convert it again") from None
        if not line.endswith(b"\n") or chroma is None:
            raise SourceError(f"{path} is y4m of kind C{kind[:20]}, not taken: convert it to 4:2:0")
        self.bit_depth = int(chroma[2] or 8)
        check_format(path, self.width, self.height, self.bit_depth)
        self._layout = chroma[1]
        self.conversion = {"420": NO_CONVERSION, "mono": GREY}.get(self._layout, CHROMA_BOX)
        self.frames = self._count()
        self.coding = Coding(
            pixel_format=f"C{kind}",
            range=_range(further),
            scan=_SCANS.get(fields.get("I", "?").lower(), "unstated"),
        )

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
                luma = read_plane(file, self.height, self.width, self.bit_depth)
                if self._layout == "mono":
                    yield grey_to_420(luma, self.bit_depth)
                    continue
                rows, cols = self._chroma_shape()
                u, v = (read_plane(file, rows, cols, self.bit_depth) for _ in range(2))
                yield to_420(luma, u, v)


def _value(further: list[str], key: str) -> str | None:
    """Return the value of an X word of the header, such as `COLORRANGE=FULL`."""
    return next((w.partition("=")[2] for w in further if w.startswith(f"{key}=")), None)


def _range(further: list[str]) -> Range:
    ranges: dict[str | None, Range] = {"FULL": "full", "LIMITED": "limited"}
    return ranges.get(_value(further, "COLORRANGE"), "unstated")
