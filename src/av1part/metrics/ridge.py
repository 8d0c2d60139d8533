"""Ridge regression of classes on features, in closed form: what few labels allow without a network.

Shapes: n labelled nodes, q nodes that are asked for, c features, k classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike, NDArray


def ridge_classes(
    features: ArrayLike,
    labels: ArrayLike,
    asked: ArrayLike,
    k: int,
    strengths: Sequence[float],
    *,
    balanced: bool = False,
) -> dict[float, NDArray[np.int64]]:
    """Fit a linear map from features to one-hot classes, and predict the classes of other nodes.

    The map W minimises the sum over the nodes of v (y - m - W x)^2, plus s t W^2, for features x
    less their mean, one-hot classes y of mean m, weights v, and t the mean of v x^2: a strength s
    means the same for features of any scale.

    Args:
        features: float, shape (n, c).
        labels: Class indices, shape (n,).
        asked: float, shape (q, c).
        k: Number of classes.
        strengths: Values of s, above 0.
        balanced: Weights v are n over the nodes of the class and over the classes that occur,
            instead of 1; means are weighted alike.

    Returns:
        Strength to the predicted classes, int64, shape (q,).

    Reference: Hoerl and Kennard, Ridge regression, Technometrics 12 (1970).
    """
    x, classes = np.asarray(features, dtype=np.float64), np.asarray(labels)
    counts = np.bincount(classes, minlength=k)
    weight = np.ones(len(x))
    if balanced:
        weight = (len(x) / np.count_nonzero(counts) / np.maximum(counts, 1))[classes]
    centre = np.average(x, axis=0, weights=weight)
    y = np.eye(k)[classes]
    mean = np.average(y, axis=0, weights=weight)
    root = np.sqrt(weight)[:, None]
    x, y = root * (x - centre), root * (y - mean)
    gram = x @ x.T  # the dual form, since there are fewer labels than features
    scale = float(np.trace(gram)) / len(gram) or 1.0  # 0 where no feature differs
    others = np.asarray(asked, dtype=np.float64) - centre
    found = {}
    for strength in strengths:
        ridged = gram + strength * scale * np.eye(len(gram))
        linear = x.T @ scipy.linalg.solve(ridged, y, assume_a="pos")
        found[strength] = np.asarray((others @ linear + mean).argmax(1), dtype=np.int64)
    return found
