"""Weights of nodes by their regrets, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from av1part.data.serve.costs import CostWeights

NAN = np.nan


@pytest.mark.parametrize(
    ("power", "regret", "types", "expected"),
    [
        (1, [1, 3, 4, 8], [0, 0, 1, 1], [0.25, 0.75, 1, 2]),
        (0.5, [1, 9], [0, 0], [0.5, 1.5]),
        # Unknown: the mean of the type, and of the size where no node of the type is known.
        (1, [1, 3, 8, NAN, NAN], [0, 0, 1, 0, 2], np.array([1, 3, 8, 2, 4]) / 3.6),
        (0, [0, 3, NAN], [0, 1, 2], [1, 1, 1]),
        (1, [NAN, NAN], [0, 1], [1, 1]),
        (1, [0, 0, NAN], [0, 1, 1], [1, 1, 1]),
        (1, [], [], []),
    ],
)
def test_by_hand(power: float, regret: list[float], types: list[int], expected: object) -> None:
    found = CostWeights(power)(np.array(regret, np.float32), np.array(types, np.int8))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_the_cap_is_in_means() -> None:
    regret = np.array([1.0] * 99 + [901.0])  # of mean 10
    found = CostWeights(cap=20)(regret, np.zeros(100, np.int8))
    np.testing.assert_allclose(found, np.array([1.0] * 99 + [200.0]) / 2.99, rtol=1e-6)
    assert CostWeights(cap=1000)(regret, np.zeros(100, np.int8))[-1] == pytest.approx(90.1)
