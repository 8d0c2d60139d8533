"""Features of every node of a plane, from source samples alone, all nodes at once.

    plane ──pad──> strips of nodes ──> moments, gradients, residuals, DCT ──> NodeFeatures
    NodeFeatures, qindex ──> [R, C, F]

Samples are in units of 8 bits: those of 10 bits count a quarter. Sums and residuals are computed in
integers, so a node's features do not depend on what else is in the plane; the DCT is in float32.
Beyond the frame's edge, the samples at the edge repeat.

Names, of N x N nodes (`feature_names` lists them in the order of the columns):

- `mean`, `variance`; `variance_` of the halves `top, bottom, left, right`, of `quadrant_0` to 3, of
  `row_0` to 3 and `col_0` to 3 (the strips of a 1:4 cut) and of `cell_0` to 15 (N/4 x N/4);
  `cells_least, cells_greatest, cells_spread` of the cells' variances. Each variance is
  log2(1 + variance).
- `mean_quadrant_0` to 3, less the node's mean; `mean_top_bottom`, `mean_left_right`, differences of
  halves; `means_halves_y, means_halves_x, means_quadrants, means_rows, means_cols, means_cells`:
  log2(1 + variance of these parts' means), which is what a cut takes from the variance.
- `gradient_x`, `gradient_y`: mean absolute difference to the sample on the left, and above; the
  same of each quadrant; `gradient_ratio`, log2 of x over y; `line_x_1` to 3, `line_y_1` to 3: the
  same on the lines at one, two and three quarters of the side, where a cut would be.
- `dc, vertical, horizontal, smooth`: mean absolute residual of an intra prediction from the
  source's samples above and on the left (`smooth` with linear weights, AV1's are quadratic);
  `residual`, the least of the first three; `residual_` of each half, quadrant and strip, each
  predicted from its own neighbours; `gain_` of `halves_y, halves_x, quadrants, rows, cols`: log2 of
  the node's residual over the parts' mean one.
- `variance_north, south, west, east, north_west, north_east, south_west, south_east`, of the
  neighbouring nodes; `mean_north, south, west, east`, less the node's; `variance_around`, of the
  3N x 3N samples around; `variance_parent`, of the 2N x 2N node that holds this one; `odd_row`,
  `odd_col`, where in it.
- `band_<octave>_<x, y or xy>`: log2(1 + mean square of an orthonormal DCT's coefficients over the
  squared quantiser step), by octave of the greater frequency; x: mostly horizontal frequencies.
- `nonzero`, share of coefficients above the step; `rate`, mean of log2(1 + coefficient over step);
  `rate_quadrant_0` to 3 and `rate_quadrants`, the same with a DCT of each quadrant.
- `variance_steps, cells_least_steps, cells_greatest_steps`: variances over the squared step;
  `residual_steps, residual_quadrants_steps`: residuals over the step; `qindex`.

Shapes: R, C rows and columns of nodes; F features; N the node's side.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from av1part.quantiser import SAMPLE_STEPS
from av1part.trees.intra import gradients, residuals
from av1part.trees.moments import moments
from av1part.trees.parts import Floats, Named, log_of
from av1part.trees.spectrum import dct, rate, spectrum

FEATURES_VERSION = 1
"""Of names, order and meaning of the features: trees of another version are refused."""

_LINES = 128
"""Luma lines of a strip, which fit into a core's cache for widths up to 4K."""


def step_of(qindex: int) -> float:
    """Return the quantiser's step at a qindex, in units of a sample of 8 bits."""
    return SAMPLE_STEPS[qindex]


@dataclass(frozen=True)
class NodeFeatures:
    """Features of all nodes of one size of a plane, without those that depend on the qindex.

    Attributes:
        size: Side of the nodes.
        content: Features that do not depend on the qindex, by name, `[R, C]` each.
        energies: Mean square of each band's coefficients, by name, `[R, C]` each.
        whole: Coefficients of a DCT of each node, float32 `[R, C, N * N]`.
        quadrants: Those of a DCT of each of its quadrants, float32 `[R, C, 4, N * N / 4]`.
    """

    size: int
    content: Mapping[str, Floats]
    energies: Mapping[str, Floats]
    whole: NDArray[np.float32]
    quadrants: NDArray[np.float32]

    def at(self, qindex: int) -> NDArray[np.float32]:
        """Return all features at a qindex.

        Args:
            qindex: Base quantiser index, 0 to 255.

        Returns:
            Float32 `[R, C, F]`, columns in the order of `feature_names`.
        """
        columns = {**self.content, **self._over_step(qindex)}
        return np.stack(list(columns.values()), axis=-1, dtype=np.float32)

    def _over_step(self, qindex: int) -> Named:
        step = step_of(qindex)
        found = {name: log_of(energy / step**2) for name, energy in self.energies.items()}
        size = np.abs(self.whole)
        found["nonzero"] = (size > step).mean(-1, dtype=np.float32)
        found["rate"] = rate(size, step)
        parts = rate(np.abs(self.quadrants), step)
        found |= {f"rate_quadrant_{i}": parts[..., i] for i in range(4)}
        found["rate_quadrants"] = parts.mean(-1)
        for name in ("variance", "cells_least", "cells_greatest"):
            found[f"{name}_steps"] = log_of((np.exp2(self.content[name]) - 1) / step**2)
        quadrants = np.mean([self.content[f"residual_quadrant_{i}"] for i in range(4)], axis=0)
        found["residual_steps"] = log_of(self.content["residual"] / step)
        found["residual_quadrants_steps"] = log_of(quadrants / step)
        found["qindex"] = np.full(size.shape[:2], qindex)
        return found


def node_features(plane: NDArray[Any], bit_depth: int, size: int) -> NodeFeatures:
    """Compute the features of all nodes of a size that lie wholly inside a frame.

    Args:
        plane: Luma samples, integers `[h, w]`, with at least one node.
        bit_depth: Bits per sample.
        size: Side of the nodes.

    Returns:
        The features, still without a qindex.
    """
    strips = [_strip(padded, size, 2.0 ** (bit_depth - 8)) for padded in _strips(plane, size)]
    return NodeFeatures(
        size,
        {name: np.concatenate([s.content[name] for s in strips]) for name in strips[0].content},
        {name: np.concatenate([s.energies[name] for s in strips]) for name in strips[0].energies},
        np.concatenate([s.whole for s in strips]),
        np.concatenate([s.quadrants for s in strips]),
    )


@cache
def feature_names(size: int) -> tuple[str, ...]:
    """Return the names of a size's features, in the order of the columns."""
    features = node_features(np.zeros((size, size), np.uint8), 8, size)
    return (*features.content, *features._over_step(0))


def _strips(plane: NDArray[Any], size: int) -> Iterator[NDArray[np.int32]]:
    """Yield even numbers of rows of nodes, with a ring of one node around them."""
    rows, cols = plane.shape[0] // size, plane.shape[1] // size
    below, right = (
        (n + 1) * size - side for n, side in zip((rows, cols), plane.shape, strict=True)
    )
    padded = np.pad(plane, ((size, below), (size, right)), mode="edge").astype(np.int32)
    step = max(2, _LINES // size)
    for row in range(0, rows, step):
        yield padded[row * size : (min(row + step, rows) + 2) * size]


def _strip(padded: NDArray[np.int32], size: int, scale: float) -> NodeFeatures:
    """Compute the features of the nodes inside the ring; `scale` is of the samples to 8 bits."""
    core = np.ascontiguousarray(padded[size:-size, size:-size])
    content = moments(padded, size, scale)
    content |= gradients(padded, size, scale) | residuals(padded, size, scale)
    energies, whole = spectrum(core, size, scale)
    half = size // 2
    rows, cols = content["mean"].shape
    quadrants = dct(core, half, scale).reshape(rows, 2, cols, 2, half * half)
    quadrants = quadrants.swapaxes(1, 2).reshape(rows, cols, 4, half * half)
    return NodeFeatures(size, content, energies, whole, quadrants)
