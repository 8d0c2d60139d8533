"""BD-rate: by hand, by another library, and the curves that have none."""

from __future__ import annotations

import math

import bjontegaard
import numpy as np
import pytest

from av1part.metrics.bdrate import BadCurve, bd_rate, curve_problem, ssim_decibels

RATES = [1000, 2000, 4000, 8000]
QUALITY = [30.0, 33.0, 36.0, 39.0]


def test_same_factor_at_every_quality() -> None:
    assert bd_rate(RATES, QUALITY, [1.1 * r for r in RATES], QUALITY) == pytest.approx(0.1)
    assert bd_rate(RATES, QUALITY, [0.8 * r for r in RATES], QUALITY) == pytest.approx(-0.2)


def test_by_hand_over_the_common_qualities() -> None:
    """Both curves double in rate with 3 dB; the other one lies 1 dB lower: 2^(1/3) of the rate."""
    lower = [quality - 1 for quality in QUALITY]
    assert bd_rate(RATES, QUALITY, RATES, lower) == pytest.approx(2 ** (1 / 3) - 1)


def test_order_does_not_matter_and_numbers_of_points_may_differ() -> None:
    assert bd_rate(RATES[::-1], QUALITY[::-1], RATES, QUALITY) == pytest.approx(0)
    more = bd_rate(RATES, QUALITY, [*RATES, 16000], [*QUALITY, 42.0])
    assert more == pytest.approx(0)


def test_equals_bjontegaard_on_random_curves() -> None:
    draws = np.random.default_rng(3)
    far = 0.0
    for _ in range(100):
        points = int(draws.integers(4, 8))
        quality = 28 + np.cumsum(draws.uniform(1, 4, (2, points)), axis=1)
        rates = np.exp(6 + np.cumsum(draws.uniform(0.2, 0.9, (2, points)), axis=1))
        quality[1] += (quality[0].mean() - quality[1].mean()) + draws.uniform(-0.5, 0.5)
        ours = bd_rate(rates[0], quality[0], rates[1], quality[1])
        if ours is BadCurve.LITTLE_OVERLAP:
            quality[1] = np.interp(quality[1], quality[1][[0, -1]], quality[0][[0, -1]])
            ours = bd_rate(rates[0], quality[0], rates[1], quality[1])
        assert isinstance(ours, float)
        theirs = bjontegaard.bd_rate(
            rates[0], quality[0], rates[1], quality[1], method="pchip", min_overlap=0
        )
        assert 100 * ours == pytest.approx(theirs, abs=0.01)
        far = max(far, abs(100 * ours))
    assert far > 10  # the curves do differ


@pytest.mark.parametrize(
    ("rates", "quality", "reason"),
    [
        (RATES[:3], QUALITY[:3], BadCurve.FEW_POINTS),
        ([], [], BadCurve.FEW_POINTS),
        (RATES, [30, 33, 36, math.nan], BadCurve.NO_QUALITY),
        (RATES, [30, 33, 36, math.inf], BadCurve.NO_QUALITY),
        ([1000, 2000, 2000, 8000], QUALITY, BadCurve.EQUAL_RATES),
        (RATES, [30, 33, 33, 39], BadCurve.EQUAL_QUALITIES),
        (RATES, [30, 36, 33, 39], BadCurve.NOT_MONOTONE),
        (RATES, [39, 36, 33, 30], BadCurve.NOT_MONOTONE),
    ],
)
def test_bad_curve_has_a_reason_on_either_side(
    rates: list[float], quality: list[float], reason: BadCurve
) -> None:
    assert curve_problem(rates, quality) is reason
    assert bd_rate(rates, quality, RATES, QUALITY) is reason
    assert bd_rate(RATES, QUALITY, rates, quality) is reason


@pytest.mark.parametrize(
    ("shift", "reason"),
    [(9.0, BadCurve.NO_OVERLAP), (20.0, BadCurve.NO_OVERLAP), (5.0, BadCurve.LITTLE_OVERLAP)],
)
def test_qualities_apart(shift: float, reason: BadCurve) -> None:
    """Of 30 to 39 and 35 to 44 dB, 4 of 14 are common."""
    assert bd_rate(RATES, QUALITY, RATES, [q + shift for q in QUALITY]) is reason
    assert bd_rate(RATES, [q + shift for q in QUALITY], RATES, QUALITY) is reason


def test_half_of_the_qualities_is_enough() -> None:
    """Of 30 to 39 and 33 to 42 dB, 6 of 12 are common."""
    found = bd_rate(RATES, QUALITY, RATES, [q + 3 for q in QUALITY])
    assert found == pytest.approx(-0.5)


@pytest.mark.parametrize(
    ("rates", "quality"), [([0, 1, 2, 3], QUALITY), ([1, 2, 3], QUALITY), ([-1, 1, 2, 3], QUALITY)]
)
def test_no_curve_at_all(rates: list[float], quality: list[float]) -> None:
    with pytest.raises(ValueError, match="no curve"):
        curve_problem(rates, quality)


def test_ssim_in_decibels() -> None:
    found = ssim_decibels([0.9, 0.99, 1.0, 1.5])
    assert found[:2] == pytest.approx([10, 20])
    assert math.isinf(found[2])
    assert math.isnan(found[3])
