"""Sums over the parts that a node can be cut into, exact in integers.

Shapes: R, C rows and columns of nodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[Any]
Named = dict[str, Floats]
"""Features by name, `[R, C]` each."""

CUTS: Mapping[str, tuple[int, int]] = {
    "halves_y": (2, 1),
    "halves_x": (1, 2),
    "quadrants": (2, 2),
    "rows": (4, 1),
    "cols": (1, 4),
    "cells": (4, 4),
}
"""Name of a cut into equal parts to their number along y and x."""

PARTS: Mapping[str, tuple[str, ...]] = {
    "halves_y": ("top", "bottom"),
    "halves_x": ("left", "right"),
    "quadrants": tuple(f"quadrant_{i}" for i in range(4)),
    "rows": tuple(f"row_{i}" for i in range(4)),
    "cols": tuple(f"col_{i}" for i in range(4)),
    "cells": tuple(f"cell_{i}" for i in range(16)),
}


def sums_of(values: NDArray[Any], height: int, width: int) -> Ints:
    """Return the sum over each part of height x width, int64."""
    # Lines first: adding whole lines is fast, adding few numbers in a line is not.
    lines = values.reshape(-1, height, values.shape[1]).sum(1, dtype=np.int64)
    sums: Ints = lines.reshape(len(lines), -1, width).sum(2)
    return sums


def joined(sums: Ints, height: int, width: int) -> Ints:
    """Return the sum over each height x width of sums."""
    rows, cols = sums.shape
    joined: Ints = sums.reshape(rows // height, height, cols // width, width).sum((1, 3))
    return joined


def variance_of(sums: Ints, squares: Ints, count: int, scale: float) -> Floats:
    """Return the variance of parts of `count` samples, in units of `1 / scale` of a sample."""
    variance: Floats = (count * squares - sums * sums) / (count * scale) ** 2
    return variance


def log_of(values: Floats) -> Floats:
    """Return log2(1 + value)."""
    logs: Floats = np.log2(1 + values)
    return logs


def parts_of(values: Floats, along_y: int, along_x: int) -> Floats:
    """Bring the parts of each node, `[R * y, C * x]`, to `[R, C, y * x]`."""
    rows, cols = values.shape[0] // along_y, values.shape[1] // along_x
    apart = values.reshape(rows, along_y, cols, along_x).swapaxes(1, 2)
    return apart.reshape(rows, cols, along_y * along_x)
