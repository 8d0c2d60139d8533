"""Pixel formats of FFmpeg: which are taken, and decoded frames as YUV 4:2:0."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from av1part.data.build.coding import Range
from av1part.data.build.yuv import (
    CHROMA_BOX,
    GREY,
    NO_CONVERSION,
    RGB,
    YuvFrame,
    grey_to_420,
    rgb_to_420,
    to_420,
)
from av1part.system.errors import SourceError

_PLANAR = re.compile(r"yuv[aj]?(420|422|444|440)p(?:\d+le)?")
_REPACKED = {
    "nv12": "yuv420p",
    "nv21": "yuv420p",
    "nv16": "yuv422p",
    "nv24": "yuv444p",
    "yuyv422": "yuv422p",
    "uyvy422": "yuv422p",
    "p010le": "yuv420p10le",
    "p210le": "yuv422p10le",
}
"""Formats that FFmpeg only rearranges into a planar one, without changing samples."""

_GREY = ("gray", "gray10le", "ya8")

_PNM = ("pam", "pbm", "pgm", "ppm")
_OTHERS = ("bmp", "dpx", "gif", "jpeg2000", "pcx", "psd", "qoi", "sgi", "sunrast", "targa", "tiff")
RGB_CODECS = frozenset(("apng", "png", *_PNM, *_OTHERS))
"""Codecs of pictures that store RGB; their grey is R = G = B, and not the Y of YCbCr."""

RANGES: dict[int, Range] = {1: "limited", 2: "full"}
"""FFmpeg's AVColorRange to its name."""


def conversion_of(frame: VideoFrame, codec: str, path: Path) -> str:
    """Return the conversion that a frame's pixel format needs.

    Args:
        frame: The first frame.
        codec: FFmpeg's name of its codec.
        path: Its file, for the error.

    Returns:
        A key of `CONVERSIONS`.

    Raises:
        SourceError: if the format is not supported.
    """
    format_ = frame.format
    name = _REPACKED.get(format_.name, format_.name)
    planar = _PLANAR.fullmatch(name)
    if codec == "mjpeg" and any(c.is_alpha for c in format_.components):
        raise SourceError(f"{path} is a JPEG in CMYK, made for print: convert it to RGB")
    bits = {c.bits for c in format_.components}
    if max(bits) not in (8, 10) and not format_.has_palette:
        raise SourceError(f"{path} has {max(bits)} bits a sample; 8 and 10 are taken: convert it")
    if any(plane.line_size < 0 for plane in frame.planes):
        raise SourceError(f"{path} has its rows from bottom to top: convert it")
    if planar:
        return NO_CONVERSION if planar[1] == "420" else CHROMA_BOX
    if name in _GREY:
        return (
            RGB if codec in RGB_CODECS and RANGES.get(int(frame.color_range)) != "limited" else GREY
        )
    if (format_.is_rgb or format_.has_palette) and (bits == {8} or name == "gbrp10le"):
        if RANGES.get(int(frame.color_range)) == "limited":
            raise SourceError(f"{path} has RGB of limited range: convert it to full range")
        return RGB
    raise SourceError(f"{path} has pixel format {name}: convert it to yuv420p or rgb24")


def planes_of(frame: VideoFrame, bit_depth: int, conversion: str) -> YuvFrame:
    """Convert a frame whose format `conversion_of` accepts."""
    if frame.format.name in _REPACKED:
        frame = frame.reformat(format=_REPACKED[frame.format.name])
    if _PLANAR.fullmatch(frame.format.name):
        return to_420(*(_plane(frame, i, bit_depth) for i in range(3)))
    if frame.format.name in _GREY:
        samples = 2 if frame.format.name == "ya8" else 1
        grey = _plane(frame, 0, bit_depth, samples)[:, ::samples]
        if conversion == GREY:
            return grey_to_420(grey, bit_depth)
        return rgb_to_420(np.repeat(grey[..., None], 3, axis=2), bit_depth)
    if frame.format.name == "gbrp10le":
        green, blue, red = (_plane(frame, i, bit_depth) for i in range(3))
        return rgb_to_420(np.stack([red, green, blue], axis=-1), bit_depth)
    return rgb_to_420(frame.to_ndarray(format="rgb24"), bit_depth)


def _plane(frame: VideoFrame, index: int, bit_depth: int, samples: int = 1) -> NDArray[Any]:
    """Copy one plane, of so many samples a pixel, out of a decoded frame, whose rows are padded."""
    plane = frame.planes[index]
    dtype = np.dtype("u1" if bit_depth == 8 else "<u2")
    rows: NDArray[Any] = np.frombuffer(memoryview(plane), dtype)
    rows = rows.reshape(-1, plane.line_size // dtype.itemsize)
    return rows[: plane.height, : plane.width * samples].copy()
