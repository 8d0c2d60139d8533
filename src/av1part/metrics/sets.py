"""Sets of the most probable classes: by cumulated probability, or by number.

Of equal probabilities the lower class comes first, as in `argmax`.

Shapes: any leading axes, k classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_ROUNDING = 1e-6
"""Float32 probabilities sum to 1 within this."""


def ranked(probabilities: NDArray[Any]) -> NDArray[np.int64]:
    """Return class indices by falling probability, int64 of the same shape (..., k)."""
    return np.argsort(-probabilities, axis=-1, kind="stable")


def cumulated_sets(
    probabilities: NDArray[Any], tau: float, order: NDArray[np.int64] | None = None
) -> NDArray[np.bool_]:
    """Take the most probable classes until their probabilities add up to `tau`.

    Args:
        probabilities: Floats, shape (..., k).
        tau: Cumulated probability, 0 to 1.
        order: What `ranked` returns of the probabilities, where it is known.

    Returns:
        Whether each class is in the set, shape (..., k); the most probable one always is, and
        others only if their probability is above zero.
    """
    order = ranked(probabilities) if order is None else order
    values = np.take_along_axis(probabilities, order, -1).astype(np.float64)
    before = np.cumsum(values, -1) - values
    taken = (before < tau - _ROUNDING) & (values > 0)
    taken[..., 0] = True
    return _placed(taken, order)


def top_sets(probabilities: NDArray[Any], k: int) -> NDArray[np.bool_]:
    """Take the `k` most probable classes; arguments and result as `cumulated_sets`."""
    order = ranked(probabilities)
    return _placed(np.broadcast_to(np.arange(order.shape[-1]) < k, order.shape), order)


def _placed(taken: NDArray[np.bool_], order: NDArray[np.int64]) -> NDArray[np.bool_]:
    members = np.empty(order.shape, np.bool_)
    np.put_along_axis(members, order, taken, -1)
    return members
