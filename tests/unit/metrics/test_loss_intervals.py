"""Intervals of log losses: paired, by sequence, over several sizes."""

from __future__ import annotations

import numpy as np
import pytest

from av1part.metrics.intervals import Bootstrap
from av1part.metrics.loss_intervals import SizeLosses, loss_intervals

RNG = np.random.default_rng(5)
FEW = Bootstrap(resamples=200, seed=3)


def size(count: int, names: str, *, trees: bool = True) -> SizeLosses:
    own = RNG.exponential(1.0, count)
    others = {"prior": own + RNG.normal(0.3, 0.2, count)}
    if trees:
        others["trees"] = own - 0.1
    return SizeLosses(own, others, RNG.choice(list(names), count))


def test_an_interval_is_that_of_a_loop_over_the_same_draws() -> None:
    sizes = [size(60, "abcd"), size(17, "abc")]  # no node of the second size in d
    found = loss_intervals(sizes, FEW)
    assert list(found) == ["value", "margin_prior", "margin_trees"]
    own = [s.own.mean() for s in sizes]
    assert found["value"].estimate == pytest.approx(np.mean(own), abs=1e-12)
    assert found["margin_trees"].estimate == pytest.approx(0.1, abs=1e-12)
    drawn = np.random.default_rng(3).multinomial(4, [1 / 4] * 4, size=200)
    margins = []
    for weights in drawn:
        of_sizes = []
        for s in sizes:
            count = weights[np.searchsorted(list("abcd"), s.sequences)]
            if count.sum():
                of_sizes.append(np.average(s.own - s.others["prior"], weights=count))
        margins.append(np.mean(of_sizes))
    ends = np.quantile(margins, [0.025, 0.975])
    interval = found["margin_prior"]
    assert (interval.low, interval.high) == pytest.approx(tuple(ends), abs=1e-12)
    assert interval.clusters == 4
    assert interval.sign == "negative"  # less loss than the prior
    # A constant difference has no spread, since resamples are paired.
    assert found["margin_trees"].low == pytest.approx(0.1, abs=1e-12)


def test_a_margin_is_over_what_all_sizes_have() -> None:
    found = loss_intervals([size(20, "ab"), size(20, "ab", trees=False)], FEW)
    assert list(found) == ["value", "margin_prior"]


def test_one_sequence_gives_no_interval() -> None:
    assert loss_intervals([size(20, "a")], FEW) == {}
