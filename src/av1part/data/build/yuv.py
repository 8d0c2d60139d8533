"""YUV 4:2:0 frames, the encoder's input: conversions to it, and y4m writing.

A source in 4:2:0 is not changed. Other formats are converted in integer arithmetic, so that every
machine gets the same samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from av1part.system.errors import SourceError

YuvFrame = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]
"""Y, U, V of one frame; luma `[h, w]`, chroma `[(h + 1) // 2, (w + 1) // 2]`, uint8 or uint16."""

SOURCE_BIT_DEPTHS = (8, 10)
MIN_SIDE, MAX_SIDE = 8, 16384
"""Limits on the sides of a frame: the smallest node, and twice the width of 8K."""


NO_CONVERSION = "none"
CHROMA_BOX = "chroma-box"
GREY = "neutral-chroma"
RGB = "rgb-bt601-limited-box"

CONVERSIONS: Mapping[str, str] = {
    NO_CONVERSION: "the source's own Y, U and V in 4:2:0",
    CHROMA_BOX: "the source's own Y; each chroma sample the mean of those it covers, "
    "rounded half up, the last row and column repeated where the size is odd",
    GREY: "the source's own Y; U and V at mid-scale",
    RGB: "BT.601 matrix (Kr 0.299, Kb 0.114), limited range, coefficients in 1/65536; chroma from "
    "the mean RGB of 2x2 pixels, the last row and column repeated where the size is odd; one "
    "rounding, half up; full-range grey is R = G = B; alpha is ignored",
}
"""Name in a manifest to the meaning of the conversion."""

_FRACTION_BITS = 16


def check_format(path: Path, width: int, height: int, bit_depth: int) -> None:
    """Check that frames have a supported size and bit depth.

    Args:
        path: The file, for the error.
        width: Luma samples.
        height: Luma samples.
        bit_depth: Bits per sample.

    Raises:
        SourceError: if they have not.
    """
    if not (MIN_SIDE <= width <= MAX_SIDE and MIN_SIDE <= height <= MAX_SIDE):
        raise SourceError(
            f"{path} has frames of {width}x{height}; a side is {MIN_SIDE} to {MAX_SIDE} samples"
        )
    if bit_depth not in SOURCE_BIT_DEPTHS:
        raise SourceError(f"{path} has {bit_depth} bits a sample; 8 and 10 are taken: convert it")


def mean_chroma(plane: NDArray[Any], rows: int, cols: int) -> NDArray[Any]:
    """Average boxes of `rows` x `cols` samples, rounded half up.

    Args:
        plane: Integers `[h, w]`; the last row and column are repeated to fill the last boxes.
        rows: Height of a box, 1, 2 or 4.
        cols: Width of a box, 1, 2 or 4.

    Returns:
        Same dtype, `[ceil(h / rows), ceil(w / cols)]`.
    """
    count = rows * cols
    mean = (_box_sums(plane, rows, cols) + count // 2) // count
    return mean.astype(plane.dtype)


def to_420(luma: NDArray[Any], u: NDArray[Any], v: NDArray[Any]) -> YuvFrame:
    """Average chroma planes of any subsampling down to half the luma's rows and columns."""
    rows, cols = ((side + 1) // 2 for side in luma.shape)
    box = -(-u.shape[0] // rows), -(-u.shape[1] // cols)
    if box == (1, 1):
        return luma, u, v
    return luma, mean_chroma(u, *box), mean_chroma(v, *box)


def _box_sums(plane: NDArray[Any], rows: int, cols: int) -> NDArray[np.int32]:
    height, width = plane.shape
    padded = np.pad(plane.astype(np.int32), ((0, -height % rows), (0, -width % cols)), mode="edge")
    boxes = padded.reshape(padded.shape[0] // rows, rows, padded.shape[1] // cols, cols)
    sums: NDArray[np.int32] = boxes.sum(axis=(1, 3), dtype=np.int32)
    return sums


def grey_to_420(luma: NDArray[Any], bit_depth: int) -> YuvFrame:
    """Add chroma at mid-scale to a luma plane `[h, w]`."""
    height, width = luma.shape
    chroma = np.full(((height + 1) // 2, (width + 1) // 2), 1 << (bit_depth - 1), luma.dtype)
    return luma, chroma, chroma


@cache
def _rgb_coefficients(bit_depth: int) -> tuple[tuple[int, int, int], ...]:
    """Return the BT.601 limited-range matrix in units of 2**-16; its chroma rows sum to 0."""
    red, blue = Fraction(299, 1000), Fraction(114, 1000)
    full, step = (1 << bit_depth) - 1, 1 << (bit_depth - 8)
    luma = Fraction(219 * step << _FRACTION_BITS, full)
    chroma = Fraction(224 * step << _FRACTION_BITS, full)
    half = round(chroma / 2)
    y_red, y_blue = round(luma * red), round(luma * blue)
    u_red, v_blue = round(-chroma * red / (1 - blue) / 2), round(-chroma * blue / (1 - red) / 2)
    return (
        (y_red, round(luma) - y_red - y_blue, y_blue),
        (u_red, -half - u_red, half),
        (half, -half - v_blue, v_blue),
    )


def rgb_to_420(rgb: NDArray[Any], bit_depth: int) -> YuvFrame:
    """Convert full-range RGB to limited-range BT.601 4:2:0.

    BT.601 in limited range is FFmpeg's default for pictures, and almost all video has this range:
    blocks of pictures and of video share one scale.

    Args:
        rgb: Integers `[h, w, 3]`.
        bit_depth: Bits per sample, 8 or 10.

    Returns:
        Y, U and V, of the dtype of `rgb`.
    """
    luma_row, *chroma_rows = _rgb_coefficients(bit_depth)
    half = 1 << (_FRACTION_BITS - 1)
    channels = [rgb[..., i].astype(np.int32) for i in range(3)]
    sums = [_box_sums(channel, 2, 2) for channel in channels]
    y = ((_weighted(luma_row, channels) + half) >> _FRACTION_BITS) + (16 << (bit_depth - 8))
    # A sum of four pixels carries two more fraction bits.
    u, v = (
        ((_weighted(row, sums) + 4 * half) >> (_FRACTION_BITS + 2)) + (128 << (bit_depth - 8))
        for row in chroma_rows
    )
    return y.astype(rgb.dtype), u.astype(rgb.dtype), v.astype(rgb.dtype)


def _weighted(
    weights: tuple[int, int, int], channels: list[NDArray[np.int32]]
) -> NDArray[np.int32]:
    red, green, blue = channels
    return weights[0] * red + weights[1] * green + weights[2] * blue


def y4m_header(width: int, height: int, bit_depth: int) -> bytes:
    """Return the header line of a 4:2:0 y4m stream of 30 frames a second.

    The rate is always the same: at a constant quantiser it changes no decision of the encoder,
    whose time base does not hold every rate there is.
    """
    colour = "C420jpeg" if bit_depth == 8 else f"C420p{bit_depth} XYSCSS=420P{bit_depth}"
    return f"YUV4MPEG2 W{width} H{height} F30:1 Ip A1:1 {colour}\n".encode()


def write_y4m_frame(file: BinaryIO, planes: YuvFrame) -> None:
    """Append one frame to a y4m stream; samples above 8 bits are little endian."""
    file.write(b"FRAME\n")
    for plane in planes:
        file.write(np.ascontiguousarray(plane, plane.dtype.newbyteorder("<")).tobytes())


def write_y4m(path: Path, frames: Iterable[YuvFrame], bit_depth: int) -> None:
    """Write a y4m file.

    Args:
        path: The file.
        frames: At least one, all of the first one's size.
        bit_depth: Bits per sample.
    """
    with path.open("wb") as file:
        for number, planes in enumerate(frames):
            if not number:
                height, width = planes[0].shape
                file.write(y4m_header(width, height, bit_depth))
            write_y4m_frame(file, planes)
