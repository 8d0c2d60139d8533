"""Features equal what a slow reading of the node computes, wherever the node is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.fft import dctn

from av1part.partition import SIZES
from av1part.quantiser import AC_STEPS
from av1part.trees.features import feature_names, node_features, step_of

Plane = NDArray[Any]


def picture(height: int, width: int, seed: int, depth: int = 8) -> Plane:
    """Edges, slopes and noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    smooth = 90 + 50 * np.sin(y / 9 + seed) + 30 * (x > rng.integers(width)) + x / 7
    noisy = smooth + rng.normal(0, 4 + 20 * (y > height / 2), (height, width))
    top = 2**depth - 1
    return np.clip(noisy * 2 ** (depth - 8), 0, top).astype(np.uint8 if depth == 8 else np.uint16)


@pytest.mark.parametrize("size", SIZES)
@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_a_node_of_a_plane_is_the_node_of_a_crop_with_its_context(
    size: int, data: st.DataObject
) -> None:
    side = st.integers(size, 6 * size - 1)
    depth = data.draw(st.sampled_from([8, 10]))
    plane = picture(data.draw(side), data.draw(side), data.draw(st.integers(0, 99)), depth)
    row, col = (data.draw(st.integers(0, length // size - 1)) for length in plane.shape)
    qindex = data.draw(st.integers(0, 255))
    whole = node_features(plane, depth, size).at(qindex)[row, col]
    # From two nodes before the parent to two after it, or to the frame's edge.
    top, left = (max(0, place // 2 * 2 * size - 2 * size) for place in (row, col))
    crop = plane[top : top + 6 * size, left : left + 6 * size]
    alone = node_features(crop, depth, size).at(qindex)[row - top // size, col - left // size]
    np.testing.assert_allclose(alone, whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_samples_outside_of_the_context_do_not_count(size: int) -> None:
    plane = picture(6 * size, 6 * size, 3)
    other = plane.copy()
    other[:size] ^= 255
    other[:, 5 * size :] ^= 255
    row = col = 2
    expected = node_features(plane, 8, size).at(99)[row, col]
    np.testing.assert_array_equal(node_features(other, 8, size).at(99)[row, col], expected)
    other[3 * size, 3 * size] ^= 255
    assert (node_features(other, 8, size).at(99)[row, col] != expected).any()


@pytest.mark.parametrize("size", SIZES)
def test_ten_bits_of_the_same_picture_are_the_same(size: int) -> None:
    plane = picture(2 * size + 5, 3 * size, 1)
    ten = plane.astype(np.uint16) * 4
    eight = node_features(plane, 8, size).at(120)
    np.testing.assert_array_equal(node_features(ten, 10, size).at(120), eight)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("depth", [8, 10])
def test_features_are_what_their_names_say(size: int, depth: int) -> None:
    plane = picture(3 * size, 3 * size + 7, size, depth)
    qindex = 100
    names = feature_names(size)
    assert len(names) == len(set(names))
    features = node_features(plane, depth, size).at(qindex)
    assert features.shape == (3, 3, len(names))
    found = dict(zip(names, features[1, 2].astype(float), strict=True))
    x = plane / 2.0 ** (depth - 8)
    row, col = size, 2 * size
    node = x[row : row + size, col : col + size]
    half, quarter, step = size // 2, size // 4, AC_STEPS[qindex] / 8
    assert step_of(qindex) == step

    def log(value: Any) -> Any:
        return np.log2(1 + value)

    def intra(top: int, left: int, height: int, width: int) -> list[float]:
        block = x[top : top + height, left : left + width]
        above = x[top - 1, left : left + width]
        before = x[top : top + height, left - 1]
        mean = np.concatenate([above, before]).mean()
        guesses = (np.full_like(block, mean), above[None], before[:, None])
        return [float(np.abs(block - guess).mean()) for guess in guesses]

    cells = [
        node[i : i + quarter, j : j + quarter]
        for i in range(0, size, quarter)
        for j in range(0, size, quarter)
    ]
    parts = [min(intra(row + i * half, col + j * half, half, half)) for i in (0, 1) for j in (0, 1)]
    spectrum = np.abs(dctn(node, norm="ortho"))
    high = spectrum[1:2, 1:2] ** 2
    quadrant = np.abs(dctn(node[half:, :half], norm="ortho"))
    padded = np.pad(x, ((size, size), (size, 2 * size)), mode="edge")
    around = padded[size : 4 * size, 2 * size : 5 * size]
    parent = padded[size : 3 * size, 3 * size : 5 * size]
    line = np.abs(x[row : row + size, col + quarter] - x[row : row + size, col + quarter - 1])
    expected = {
        "mean": node.mean(),
        "variance": log(node.var()),
        "variance_right": log(node[:, half:].var()),
        "variance_row_3": log(node[-quarter:].var()),
        "variance_cell_7": log(cells[7].var()),
        "cells_least": min(log(cell.var()) for cell in cells),
        "cells_spread": np.std([log(cell.var()) for cell in cells]),
        "mean_quadrant_1": node[:half, half:].mean() - node.mean(),
        "mean_top_bottom": node[:half].mean() - node[half:].mean(),
        "means_cols": log(np.var(_means(node.T, quarter))),
        "means_cells": log(np.var([cell.mean() for cell in cells])),
        "gradient_y": np.abs(node - x[row - 1 : row + size - 1, col : col + size]).mean(),
        "line_x_1": line.mean(),
        **dict(zip(("dc", "vertical", "horizontal"), intra(row, col, size, size), strict=True)),
        "residual": min(intra(row, col, size, size)),
        "residual_bottom": min(intra(row + half, col, half, size)),
        "residual_col_2": min(intra(row, col + half, size, quarter)),
        "residual_quadrant_2": parts[2],
        "gain_quadrants": np.log2((1 + min(intra(row, col, size, size))) / (1 + np.mean(parts))),
        "smooth": _smooth(x, row, col, size),
        "variance_west": log(x[row : row + size, col - size : col].var()),
        "mean_south": x[row + size :, col : col + size].mean() - node.mean(),
        "variance_around": log(around.var()),
        "variance_parent": log(parent.var()),
        "odd_row": 1,
        "odd_col": 0,
        "band_0_xy": log(high.mean() / step**2),
        "nonzero": (spectrum > step).mean(),
        "rate": log(spectrum / step).mean(),
        "rate_quadrant_2": log(quadrant / step).mean(),
        "variance_steps": log(node.var() / step**2),
        "residual_quadrants_steps": log(np.mean(parts) / step),
        "qindex": qindex,
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-4, abs=1e-4), name


def _means(lines: Plane, height: int) -> list[float]:
    return [float(lines[i : i + height].mean()) for i in range(0, len(lines), height)]


def _smooth(x: Plane, row: int, col: int, size: int) -> float:
    above, before = x[row - 1, col : col + size], x[row : row + size, col - 1]
    total = 0.0
    for i in range(size):
        for j in range(size):
            across = (before[i] * (size - 1 - j) + above[-1] * (j + 1)) / size
            down = (above[j] * (size - 1 - i) + before[-1] * (i + 1)) / size
            total += abs(x[row + i, col + j] - (across + down) / 2)
    return total / size**2
