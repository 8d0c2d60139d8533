"""Means and variances of nodes, their parts and their surroundings."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from av1part.trees.parts import (
    CUTS,
    PARTS,
    Floats,
    Ints,
    Named,
    joined,
    log_of,
    parts_of,
    sums_of,
    variance_of,
)

_AROUND: Mapping[str, tuple[int, int]] = {
    "north": (-1, 0),
    "south": (1, 0),
    "west": (0, -1),
    "east": (0, 1),
    "north_west": (-1, -1),
    "north_east": (-1, 1),
    "south_west": (1, -1),
    "south_east": (1, 1),
}


def moments(padded: NDArray[np.int32], size: int, scale: float) -> Named:
    """Compute means and variances of the nodes, their parts and their surroundings."""
    cell = size // 4
    sums = sums_of(padded, cell, cell)
    squares = sums_of(padded.astype(np.int64) ** 2, cell, cell)
    of_node = joined(sums, 4, 4), joined(squares, 4, 4)
    means = of_node[0] / (size * size * scale)
    variances = log_of(variance_of(*of_node, size * size, scale))
    mean = means[1:-1, 1:-1]
    found: Named = {"mean": mean, "variance": variances[1:-1, 1:-1]}
    between: Named = {}
    for cut, (along_y, along_x) in CUTS.items():
        own = [joined(s[4:-4, 4:-4], 4 // along_y, 4 // along_x) for s in (sums, squares)]
        count = size * size // (along_y * along_x)
        parts = parts_of(log_of(variance_of(own[0], own[1], count, scale)), along_y, along_x)
        found |= {f"variance_{name}": parts[..., i] for i, name in enumerate(PARTS[cut])}
        totals = parts_of(own[0], along_y, along_x)
        n = along_y * along_x
        apart = variance_of(totals.sum(-1), (totals**2).sum(-1), n, count * scale)
        between[f"means_{cut}"] = log_of(apart)
        if cut == "quadrants":
            found |= {
                f"mean_quadrant_{i}": totals[..., i] / (count * scale) - mean for i in range(n)
            }
        if cut in ("halves_y", "halves_x"):
            name = "mean_top_bottom" if cut == "halves_y" else "mean_left_right"
            found[name] = (totals[..., 0] - totals[..., 1]) / (count * scale)
    found["cells_least"], found["cells_greatest"] = parts.min(-1), parts.max(-1)
    found["cells_spread"] = parts.std(-1)
    return found | between | _surroundings(of_node, means, variances, size, scale)


def _surroundings(
    of_node: tuple[Ints, Ints], means: Floats, variances: Floats, size: int, scale: float
) -> Named:
    """Compute what is around each node, of nodes with a ring around them."""
    rows, cols = means.shape[0] - 2, means.shape[1] - 2
    found: Named = {}
    for name, (down, across) in _AROUND.items():
        at = slice(1 + down, 1 + down + rows), slice(1 + across, 1 + across + cols)
        found[f"variance_{name}"] = variances[at]
        if not (down and across):
            found[f"mean_{name}"] = means[at] - means[1:-1, 1:-1]
    nine = [(slice(y, y + rows), slice(x, x + cols)) for y in range(3) for x in range(3)]
    sums, squares = (np.sum([own[at] for at in nine], axis=0) for own in of_node)
    found["variance_around"] = log_of(variance_of(sums, squares, 9 * size * size, scale))
    even = slice(1, 1 + rows + rows % 2), slice(1, 1 + cols + cols % 2)
    sums, squares = (joined(own[even], 2, 2) for own in of_node)
    parent = log_of(variance_of(sums, squares, 4 * size * size, scale))
    found["variance_parent"] = parent.repeat(2, 0).repeat(2, 1)[:rows, :cols]
    found["odd_row"], found["odd_col"] = (i % 2 for i in np.indices((rows, cols)))
    return found
