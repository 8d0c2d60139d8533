"""BD-rate: by how much one rate-distortion curve lies above another, in rate at equal quality.

The logarithm of the rate is interpolated over quality by PCHIP, a cubic that keeps monotone data
monotone, and the difference of the two curves is averaged over the qualities that both reach. A
curve that cannot be compared has a reason instead of a number, so that no average can take it in.

Reference: G. Bjøntegaard, Calculation of average PSNR differences between RD-curves, VCEG-M33,
2001; PCHIP instead of one cubic as in AOM's common test conditions.
"""

from __future__ import annotations

from enum import Enum

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import PchipInterpolator

LEAST_POINTS = 4
"""Points of a curve below which its shape is not known."""

LEAST_OVERLAP = 0.5
"""Part of the qualities of both curves together that both have to reach."""


class BadCurve(Enum):
    """Why two curves have no BD-rate; the value is the reason in words."""

    FEW_POINTS = f"fewer than {LEAST_POINTS} points"
    NO_QUALITY = "a quality is infinite or was not measured"
    EQUAL_RATES = "two points have the same rate"
    EQUAL_QUALITIES = "two points have the same quality"
    NOT_MONOTONE = "a higher rate has a lower quality"
    NO_OVERLAP = "the curves have no quality in common"
    LITTLE_OVERLAP = f"the curves share less than {LEAST_OVERLAP:.0%} of their qualities"


def curve_problem(rates: ArrayLike, quality: ArrayLike) -> BadCurve | None:
    """Check that a curve can be compared.

    Args:
        rates: Bits or bytes, positive, shape (n,), in any order.
        quality: Quality of each in dB or on another scale on which more is better, shape (n,);
            NaN where it is not known.

    Returns:
        The first problem, or None.

    Raises:
        ValueError: if the shapes differ or a rate is not positive.
    """
    rate, value = np.asarray(rates, np.float64), np.asarray(quality, np.float64)
    if rate.ndim != 1 or rate.shape != value.shape or not (rate > 0).all():
        raise ValueError(f"rates {rate} and qualities {value} are no curve")
    if len(rate) < LEAST_POINTS:
        return BadCurve.FEW_POINTS
    if not np.isfinite(value).all():
        return BadCurve.NO_QUALITY
    rate, value = _by_quality(rate, value)
    if (np.diff(np.sort(rate)) == 0).any():
        return BadCurve.EQUAL_RATES
    if (np.diff(value) == 0).any():
        return BadCurve.EQUAL_QUALITIES
    return BadCurve.NOT_MONOTONE if (np.diff(rate) < 0).any() else None


def bd_rate(
    anchor_rates: ArrayLike, anchor_quality: ArrayLike, rates: ArrayLike, quality: ArrayLike
) -> float | BadCurve:
    """Compute the BD-rate of a curve against an anchor's.

    Args:
        anchor_rates: As of `curve_problem`.
        anchor_quality: Likewise.
        rates: Of the curve, in the anchor's unit; it may have another number of points.
        quality: Likewise.

    Returns:
        Mean difference in rate at equal quality as a fraction of the anchor's, positive where the
        curve needs more; or the reason why there is none.
    """
    for curve in ((anchor_rates, anchor_quality), (rates, quality)):
        if problem := curve_problem(*curve):
            return problem
    anchor, other = (
        _by_quality(np.asarray(rate, np.float64), np.asarray(value, np.float64))
        for rate, value in ((anchor_rates, anchor_quality), (rates, quality))
    )
    low, high = max(anchor[1][0], other[1][0]), min(anchor[1][-1], other[1][-1])
    if low >= high:
        return BadCurve.NO_OVERLAP
    union = max(anchor[1][-1], other[1][-1]) - min(anchor[1][0], other[1][0])
    if high - low < LEAST_OVERLAP * union:
        return BadCurve.LITTLE_OVERLAP
    first, second = (
        float(PchipInterpolator(value, np.log(rate)).integrate(low, high))
        for rate, value in (anchor, other)
    )
    return float(np.expm1((second - first) / (high - low)))


def _by_quality(
    rate: NDArray[np.float64], value: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sort the points of a curve by quality; rates in order where qualities are equal."""
    order = np.lexsort((rate, value))
    return rate[order], value[order]


def ssim_decibels(ssim: ArrayLike) -> NDArray[np.float64]:
    """Return SSIM on a scale of decibels, as curves of it are compared.

    Args:
        ssim: Fractions, any shape.

    Returns:
        -10 log10(1 - SSIM), infinite at 1, NaN above, float64 of the same shape.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(-10 * np.log10(1 - np.asarray(ssim, np.float64)))
