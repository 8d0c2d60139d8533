"""Sets of the most probable classes, by hand and as minimal sets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from av1part.metrics.sets import cumulated_sets, ranked, top_sets

ROW = np.array([[0.1, 0.5, 0.1, 0.3, 0.0]], np.float32)


@pytest.mark.parametrize(
    ("tau", "members"),
    [(0.0, {1}), (0.5, {1}), (0.51, {1, 3}), (0.8, {1, 3}), (0.9, {0, 1, 3}), (1.0, {0, 1, 2, 3})],
)
def test_cumulated(tau: float, members: set[int]) -> None:
    assert set(np.flatnonzero(cumulated_sets(ROW, tau)[0])) == members
    assert set(np.flatnonzero(cumulated_sets(ROW, tau, ranked(ROW))[0])) == members


def test_of_equal_ones_the_lower_class_comes_first() -> None:
    assert ranked(ROW).tolist() == [[1, 3, 0, 2, 4]]
    assert np.flatnonzero(top_sets(ROW, 3)[0]).tolist() == [0, 1, 3]
    assert top_sets(ROW, 99).all()


@given(arrays(np.float64, (6, 10), elements=st.floats(0, 1)), st.floats(0, 1))
def test_a_set_is_the_smallest_that_reaches_tau(drawn: NDArray[np.float64], tau: float) -> None:
    rows = (drawn + np.eye(6, 10)) / (drawn + np.eye(6, 10)).sum(1, keepdims=True)
    for row, members in zip(rows, cumulated_sets(rows, tau), strict=True):
        falling = np.sort(row)[::-1]
        size = members.sum()
        assert row[members].sum() >= min(tau, 1) - 1e-5
        assert falling[: size - 1].sum() < tau or size == 1
        assert row[members].min() >= row[~members].max(initial=0)
