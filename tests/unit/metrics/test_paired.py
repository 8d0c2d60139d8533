"""Scores of predictors on the same pictures: intervals, differences and tests by hand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from av1part.metrics.intervals import Bootstrap
from av1part.metrics.paired import Resampled, compare_with
from av1part.metrics.statistics import holm


def mean(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of sums (nodes, values)."""
    return sums[..., 1] / sums[..., 0]


def resampled(values: list[float], nodes: int = 10) -> Resampled:
    sums = np.array([[nodes, nodes * value] for value in values])
    return Resampled.of(sums, {"mean": mean})


FIRST = [0.50, 0.61, 0.55, 0.40, 0.72]
SECOND = [0.45, 0.60, 0.52, 0.38, 0.69]


def test_of_pictures_of_one_size_it_is_the_paired_t_test() -> None:
    """The pseudo-values of a mean are the values themselves."""
    found = resampled(FIRST).minus(resampled(SECOND))["mean"]
    assert found.interval.estimate == pytest.approx(np.mean(FIRST) - np.mean(SECOND))
    assert found.p == pytest.approx(stats.ttest_rel(FIRST, SECOND).pvalue)
    assert found.interval.clusters == 5


def test_intervals_are_those_of_the_bootstrap() -> None:
    interval = resampled(FIRST).intervals()["mean"]
    expected = Bootstrap().mean(FIRST)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))
    # Differences are paired: pictures differ far more than the predictors.
    difference = resampled(FIRST).minus(resampled(SECOND))["mean"].interval
    expected = Bootstrap().mean(np.subtract(FIRST, SECOND))
    assert (difference.low, difference.high) == pytest.approx((expected.low, expected.high))


def test_large_pictures_count_more() -> None:
    sums = np.array([[10.0, 5.0], [30.0, 30.0]])
    found = Resampled.of(sums, {"mean": mean})
    assert found.estimate["mean"] == 35 / 40
    assert found.without["mean"].tolist() == [1.0, 0.5]


def test_one_picture_gives_no_interval_and_no_test() -> None:
    interval = resampled([0.5]).intervals()["mean"]
    assert (interval.estimate, interval.low, interval.clusters) == (0.5, None, 1)
    difference = resampled([0.5]).minus(resampled([0.2]))["mean"]
    assert difference.p is None
    assert difference.to_json()["estimate"] == pytest.approx(0.3)


def test_holm_over_all_that_are_compared() -> None:
    third = [0.10, 0.70, 0.50, 0.60, 0.20]
    same = {"ref": resampled(FIRST), "b": resampled(SECOND), "c": resampled(third)}
    same["d"] = resampled(FIRST)
    found = compare_with(same, "ref")
    assert list(found) == ["b", "c", "d"]
    p = [found[name]["mean"].p for name in found]
    assert p[2] == 1.0  # the same everywhere
    assert [found[name]["mean"].p_holm for name in found] == pytest.approx(holm([*map(float, p)]))


def test_a_mean_of_seeds_is_tested_over_pictures() -> None:
    both = Resampled.mean([resampled(FIRST), resampled(SECOND)])
    averaged = list(np.mean([FIRST, SECOND], axis=0))
    assert both.estimate["mean"] == pytest.approx(np.mean(averaged))
    interval, expected = both.intervals()["mean"], Bootstrap().mean(averaged)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))
    other = [0.41, 0.62, 0.50, 0.35, 0.66]
    found = both.minus(resampled(other))["mean"]
    assert found.p == pytest.approx(stats.ttest_rel(averaged, other).pvalue)
