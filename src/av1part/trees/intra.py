"""Gradients, and residuals of intra predictions from the source's own samples."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from av1part.trees.parts import CUTS, PARTS, Floats, Named, joined, parts_of, sums_of


def gradients(padded: NDArray[np.int32], size: int, scale: float) -> Named:
    """Compute mean absolute differences of neighbouring samples."""
    core = padded[size:-size, size:-size]
    before = {
        "x": padded[size:-size, size - 1 : -size - 1],
        "y": padded[size - 1 : -size - 1, size:-size],
    }
    found: Named = {}
    for axis, other in before.items():
        steps = np.abs(core - other)
        quadrants = sums_of(steps, size // 2, size // 2)
        found[f"gradient_{axis}"] = joined(quadrants, 2, 2) / (size * size * scale)
        parts = parts_of(quadrants, 2, 2) / (size * size / 4 * scale)
        found |= {f"gradient_{axis}_quadrant_{i}": parts[..., i] for i in range(4)}
        for quarter in (1, 2, 3):
            start = quarter * size // 4
            line = steps[:, start::size].T if axis == "x" else steps[start::size]
            of_nodes = line.reshape(len(line), -1, size).sum(2) / (size * scale)
            found[f"line_{axis}_{quarter}"] = of_nodes.T if axis == "x" else of_nodes
    ratio = np.log2((1 + found["gradient_x"]) / (1 + found["gradient_y"]))
    return {**found, "gradient_ratio": ratio}


def residuals(padded: NDArray[np.int32], size: int, scale: float) -> Named:
    """Compute mean absolute residuals of intra predictions of nodes and their parts."""
    dc, vertical, horizontal = _intra(padded, size, size, size, scale)
    least = np.minimum(np.minimum(dc, vertical), horizontal)
    found: Named = {"dc": dc, "vertical": vertical, "horizontal": horizontal}
    found |= {"smooth": _smooth(padded, size, scale), "residual": least}
    gains: Named = {}
    for cut, (along_y, along_x) in CUTS.items():
        if cut == "cells":
            continue
        of_parts = _intra(padded, size, size // along_y, size // along_x, scale)
        parts = parts_of(np.minimum.reduce(of_parts), along_y, along_x)
        found |= {f"residual_{name}": parts[..., i] for i, name in enumerate(PARTS[cut])}
        gains[f"gain_{cut}"] = np.log2((1 + least) / (1 + parts.mean(-1)))
    return found | gains


def _intra(
    padded: NDArray[np.int32], ring: int, height: int, width: int, scale: float
) -> tuple[Floats, Floats, Floats]:
    """Return the mean absolute residuals of DC, vertical and horizontal prediction of each part."""
    core = padded[ring:-ring, ring:-ring]
    lines, samples = core.shape
    above = padded[ring - 1 : -ring - 1 : height, ring:-ring]
    left = padded[ring:-ring, ring - 1 : -ring - 1 : width]
    count = height * width * scale
    vertical = np.abs(core.reshape(-1, height, samples) - above[:, None])
    horizontal = np.abs(core.reshape(lines, -1, width) - left[:, :, None])
    # DC times the number of neighbours, which keeps it an integer.
    neighbours = height + width
    total = above.reshape(len(above), -1, width).sum(2) + left.reshape(
        -1, height, left.shape[1]
    ).sum(1)
    dc = core.reshape(-1, height, samples) * np.int32(neighbours)
    dc -= total.astype(np.int32).repeat(width, axis=1)[:, None]
    np.abs(dc, out=dc)
    return (
        sums_of(dc.reshape(lines, samples), height, width) / (neighbours * count),
        sums_of(vertical.reshape(lines, samples), height, width) / count,
        sums_of(horizontal.reshape(lines, samples), height, width) / count,
    )


def _smooth(padded: NDArray[np.int32], size: int, scale: float) -> Floats:
    """Return the mean absolute residual of interpolating between the samples above and left."""
    core = padded[size:-size, size:-size]
    rows, cols = (side // size for side in core.shape)
    above = padded[size - 1 : -size - 1 : size, size:-size].reshape(rows, 1, cols, size)
    left = padded[size:-size, size - 1 : -size - 1 : size].reshape(rows, size, cols, 1)
    to_end = np.arange(1, size + 1, dtype=np.int32)
    across, down = to_end[None, None, None, :], to_end[None, :, None, None]
    predicted = (size - across) * left + across * above[..., -1:]
    predicted = predicted + (size - down) * above + down * left[:, -1:]
    predicted -= 2 * size * core.reshape(rows, size, cols, size)
    residual = np.abs(predicted, out=predicted).reshape(core.shape)
    return sums_of(residual, size, size) / (2 * size**3 * scale)
