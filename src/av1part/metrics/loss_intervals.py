"""Bootstrap intervals of log losses, clustered by sequence as in `intervals`, in nats.

Shapes: n nodes of a size, g sequences, r resamples, s sizes, m losses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from av1part.metrics.intervals import Bootstrap, Interval


@dataclass(frozen=True)
class SizeLosses:
    """Losses of the nodes of one size.

    Attributes:
        own: Of the network, shape (n,).
        others: Of what stands beside it, by name, shape (n,) each.
        sequences: Name or number of each node's sequence, shape (n,).
    """

    own: NDArray[np.float64]
    others: Mapping[str, NDArray[np.float64]]
    sequences: ArrayLike


def loss_intervals(
    sizes: Sequence[SizeLosses], bootstrap: Bootstrap | None = None
) -> dict[str, Interval]:
    """Resample a log loss, the mean of the sizes' own, and its margins over others.

    Args:
        sizes: At least one, of one node at least. Margins are over those others that all have.
        bootstrap: How to resample.

    Returns:
        `value`, and `margin_<name>` of each other: the network's log loss less the other's on the
        same nodes, so that a negative margin is in its favour. Empty if all nodes are of one
        sequence.
    """
    names = [name for name in sizes[0].others if all(name in size.others for size in sizes)]
    sequences = [np.asarray(size.sequences) for size in sizes]
    known, codes = np.unique(np.concatenate(sequences), return_inverse=True)
    g = len(known)
    if g < 2:
        return {}
    sums = np.zeros((g, len(sizes), 2 + len(names)))
    ends = np.cumsum([len(size.own) for size in sizes])[:-1]
    for index, (size, of) in enumerate(zip(sizes, np.split(codes, ends), strict=True)):
        columns = (np.ones(len(of)), size.own, *(size.others[name] for name in names))
        sums[:, index] = np.stack([np.bincount(of, c, g) for c in columns], axis=1)
    settings = bootstrap or Bootstrap()
    estimates, draws = _means(sums.sum(0)), _means(settings.resample(sums))
    found = {"value": settings.interval(float(estimates[0]), draws[:, 0], g)}
    for index, name in enumerate(names, 1):
        estimate = float(estimates[0] - estimates[index])
        margin = settings.interval(estimate, draws[:, 0] - draws[:, index], g)
        found[f"margin_{name}"] = margin
    return found


def _means(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return mean losses over sizes, (..., m), from counts and sums of losses, (..., s, 1 + m).

    A resample may have no node of a size, which its mean then leaves out.
    """
    with np.errstate(invalid="ignore"):
        means = sums[..., 1:] / sums[..., :1]
    return np.asarray(np.nanmean(means, axis=-2))
