"""Conversions to YUV 4:2:0 against floating-point formulas, and y4m as FFmpeg reads it."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from av1part.data.build.yuv import (
    _rgb_coefficients,
    grey_to_420,
    mean_chroma,
    rgb_to_420,
    write_y4m_frame,
    y4m_header,
)


def bt601(rgb: np.ndarray, bit_depth: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """BT.601 limited range as the recommendation writes it, in floats, before any rounding."""
    r, g, b = (rgb[..., i] / ((1 << bit_depth) - 1) for i in range(3))
    y = 0.299 * r + 0.587 * g + 0.114 * b
    scale = 1 << (bit_depth - 8)
    return (
        (16 + 219 * y) * scale,
        (128 + 224 * (b - y) / 1.772) * scale,
        (128 + 224 * (r - y) / 1.402) * scale,
    )


def boxes(plane: np.ndarray) -> np.ndarray:
    height, width = plane.shape
    return np.array(
        [
            [
                np.mean(
                    [
                        plane[min(r + i, height - 1), min(c + j, width - 1)]
                        for i in (0, 1)
                        for j in (0, 1)
                    ]
                )
                for c in range(0, width, 2)
            ]
            for r in range(0, height, 2)
        ]
    )


@pytest.mark.parametrize("bit_depth", [8, 10])
@pytest.mark.parametrize("shape", [(6, 8), (7, 9), (1, 1), (5, 4)])
def test_rgb_follows_bt601_limited_range(bit_depth: int, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    dtype = np.uint8 if bit_depth == 8 else np.uint16
    rgb = rng.integers(0, 1 << bit_depth, (*shape, 3)).astype(dtype)
    y, u, v = rgb_to_420(rgb, bit_depth)
    wanted_y, wanted_u, wanted_v = bt601(rgb.astype(float), bit_depth)
    # Half a step of rounding, and a little for coefficients rounded to 1/65536.
    assert np.abs(y - wanted_y).max() < 0.52
    assert np.abs(u - boxes(wanted_u)).max() < 0.52
    assert np.abs(v - boxes(wanted_v)).max() < 0.52
    assert y.dtype == u.dtype == v.dtype == dtype


@pytest.mark.parametrize(("bit_depth", "scale"), [(8, 1), (10, 4)])
def test_grey_keeps_neutral_chroma_and_the_ends_of_the_range(bit_depth: int, scale: int) -> None:
    top = (1 << bit_depth) - 1
    rgb = np.repeat(np.arange(top + 1, dtype=np.uint16).reshape(2, -1)[..., None], 3, axis=2)
    y, u, v = rgb_to_420(rgb, bit_depth)
    assert (y.min(), y.max()) == (16 * scale, 235 * scale)
    assert (np.diff(y.ravel().astype(int)) >= 0).all()
    assert (u == 128 * scale).all()
    assert (v == 128 * scale).all()


@pytest.mark.parametrize("bit_depth", [8, 10])
def test_no_colour_overflows(bit_depth: int) -> None:
    top = (1 << bit_depth) - 1
    corners = np.array(np.meshgrid(*[[0, top]] * 3)).reshape(3, -1).T.astype(np.uint16)
    for corner in corners:
        _, u, v = rgb_to_420(np.tile(corner, (2, 2, 1)), bit_depth)
        for plane in (u, v):
            assert 16 << (bit_depth - 8) <= plane.min() <= plane.max() <= 240 << (bit_depth - 8)


def test_coefficients_are_the_known_ones() -> None:
    # 8 bit: the familiar 66/129/25, -38/-74/112 and 112/-94/-18, in units of 1/65536.
    table = np.array(_rgb_coefficients(8))
    assert (np.abs(table / 256 - [[66, 129, 25], [-38, -74, 112], [112, -94, -18]]) < 0.6).all()
    assert table[1].sum() == table[2].sum() == 0


@given(
    rows=st.sampled_from([1, 2, 4]),
    cols=st.sampled_from([1, 2, 4]),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    seed=st.integers(0, 999),
)
def test_mean_chroma_rounds_half_up(
    rows: int, cols: int, height: int, width: int, seed: int
) -> None:
    plane = np.random.default_rng(seed).integers(0, 1024, (height, width)).astype(np.uint16)
    mean = mean_chroma(plane, rows, cols)
    assert mean.shape == (-(-height // rows), -(-width // cols))
    assert mean.dtype == plane.dtype
    for r, c in np.ndindex(mean.shape):
        rr = np.minimum(np.arange(r * rows, (r + 1) * rows), height - 1)
        cc = np.minimum(np.arange(c * cols, (c + 1) * cols), width - 1)
        total = int(plane[np.ix_(rr, cc)].sum())
        assert mean[r, c] == (2 * total + rows * cols) // (2 * rows * cols)


@pytest.mark.parametrize(("bit_depth", "pixels"), [(8, "yuv420p"), (10, "yuv420p10le")])
def test_ffmpeg_reads_our_y4m(bit_depth: int, pixels: str, tmp_path: Path) -> None:
    dtype = np.uint8 if bit_depth == 8 else np.uint16
    rng = np.random.default_rng(2)
    frames = [
        tuple(
            rng.integers(0, 1 << bit_depth, shape).astype(dtype)
            for shape in [(9, 13), (5, 7), (5, 7)]
        )
        for _ in range(3)
    ]
    with (tmp_path / "a.y4m").open("wb") as file:
        file.write(y4m_header(13, 9, bit_depth))
        for planes in frames:
            write_y4m_frame(file, planes)
    with av.open(str(tmp_path / "a.y4m")) as container:
        read = list(container.decode(video=0))
    assert [f.format.name for f in read] == [pixels] * 3
    for frame, planes in zip(read, frames, strict=True):
        for ours, theirs in zip(planes, frame.planes, strict=True):
            rows = np.frombuffer(memoryview(theirs), dtype).reshape(
                -1, theirs.line_size // dtype().itemsize
            )
            assert (rows[: ours.shape[0], : ours.shape[1]] == ours).all()


def test_grey_to_420_puts_chroma_at_mid_scale() -> None:
    luma = np.arange(15, dtype=np.uint16).reshape(3, 5)
    y, u, v = grey_to_420(luma, 10)
    assert y is luma
    assert u.shape == v.shape == (2, 3)
    assert (u == 512).all()
    assert (v == 512).all()
