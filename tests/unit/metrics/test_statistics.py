"""Means, paired tests and Holm's correction: by hand, by other libraries, by simulation."""

from __future__ import annotations

import math
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from av1part.metrics.statistics import against_baseline, holm, mean_of

TABLE = {
    "frozen": {"s0": 0.48, "s1": 0.50, "s2": 0.49, "s3": 0.47},
    "adapter": {"s0": 0.50, "s1": 0.53, "s2": 0.50, "s3": 0.49},
    "scratch": {"s0": 0.40, "s1": 0.39, "s2": 0.44, "s3": 0.41},
}


def test_by_hand() -> None:
    """Differences 2, 3, 1, 2 points: mean 2, sd sqrt(2/3), t = 2 / (0.8165 / 2) = 4.899, 3 df."""
    found = against_baseline(TABLE, "frozen")["adapter"]
    assert found.mean == pytest.approx(0.02)
    assert found.sd == pytest.approx(0.01 * math.sqrt(2 / 3))
    assert found.p == pytest.approx(0.01628, abs=1e-4)  # of t = 4.899 with 3 degrees of freedom
    half = 3.18245 * 0.01 * math.sqrt(2 / 3) / 2
    assert (found.low, found.high) == pytest.approx((0.02 - half, 0.02 + half), abs=1e-6)
    assert found.n == 4
    # Two tests: the smaller p counts double.
    scratch = against_baseline(TABLE, "frozen")["scratch"]
    assert scratch.p is not None
    assert found.p_holm == pytest.approx(max(found.p or 0, 2 * scratch.p))
    assert scratch.p_holm == pytest.approx(2 * scratch.p)
    assert found.significant


def test_as_scipy_has_the_paired_test() -> None:
    for variant, found in against_baseline(TABLE, "frozen").items():
        ours, theirs = (list(TABLE[name].values()) for name in (variant, "frozen"))
        independent = stats.ttest_rel(ours, theirs)
        assert found.p == pytest.approx(independent.pvalue)
        limits = independent.confidence_interval(0.95)
        assert (found.low, found.high) == pytest.approx((limits.low, limits.high))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_holm_as_statsmodels(p: list[float]) -> None:
    with mock.patch("gc.collect"):  # it collects every time, a second each here
        theirs = multipletests(p, method="holm")[1].tolist()
    assert holm(p) == pytest.approx(theirs)


def test_only_common_members_are_paired() -> None:
    scores = {"a": {"s0": 1.0, "s1": 2.0}, "b": {"s1": 5.0, "s2": 9.0}, "c": {"s9": 0.0}}
    found = against_baseline(scores, "a")
    assert list(found) == ["b"]
    assert (found["b"].n, found["b"].mean, found["b"].p, found["b"].significant) == (
        1,
        3.0,
        None,
        False,
    )


def test_no_spread() -> None:
    same = against_baseline({"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 2}}, "a")["b"]
    assert (same.p, same.significant) == (1.0, False)
    alike = against_baseline({"a": {"x": 1, "y": 2}, "b": {"x": 2, "y": 3}}, "a")["b"]
    assert (alike.p, alike.p_holm, alike.significant) == (None, None, False)
    near = {"a": {"x": 0.5, "y": 0.6, "z": 0.7}, "b": {"x": 0.6, "y": 0.7, "z": 0.8}}
    assert against_baseline(near, "a")["b"].p is None  # but for rounding
    single = mean_of([3.0])
    assert (single.mean, single.sd, single.low, single.n) == (3.0, None, None, 1)


def test_false_positives_at_the_stated_rate() -> None:
    """200 sweeps of 5 variants x 5 seeds without a difference, seeds with an effect of their own.

    Any corrected rejection is a false one: at most 5 % of sweeps, within what 200 can tell
    (binomial, 99.9 %). Uncorrected, each single test must reject in 5 %.
    """
    rng = np.random.default_rng(2026)
    wrong, uncorrected = 0, []
    for _ in range(200):
        seeds = rng.normal(0.48, 0.02, 5)
        scores = {
            f"v{v}": {f"s{s}": float(seeds[s] + rng.normal(0, 0.01)) for s in range(5)}
            for v in range(5)
        }
        found = against_baseline(scores, "v0").values()
        wrong += any(each.significant for each in found)
        uncorrected += [each.p for each in found]
    assert wrong <= stats.binom.ppf(0.999, 200, 0.05)
    rate = np.mean(np.array(uncorrected) < 0.05)
    # The four tests of a sweep share a baseline, so that 800 count as few as 200.
    assert abs(rate - 0.05) < 3.3 * math.sqrt(0.05 * 0.95 / 200)
