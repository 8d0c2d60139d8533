"""Scores of distributions: a table by hand, and sums that add up."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from av1part.metrics.calibration import reliability
from av1part.metrics.distributions import SCORES, TAUS, distribution_sums, part_of
from av1part.metrics.intervals import Bootstrap
from av1part.metrics.scores import LEAST_PROBABILITY, log_loss
from av1part.partition import Partition

NONE, HORZ, VERT, SPLIT = Partition.NONE, Partition.HORZ, Partition.VERT, Partition.SPLIT


def padded(*rows: list[float]) -> NDArray[np.float32]:
    return np.array([row + [0.0] * (10 - len(row)) for row in rows], np.float32)


# Four nodes, of NONE, HORZ, SPLIT and VERT.
PROBABILITIES = padded(
    [0.75, 0.125, 0.0, 0.125],  # the true type is first
    [0.5, 0.25, 0.125, 0.125],  # second
    [0.5, 0.25, 0.125, 0.125],  # last: of equal ones, VERT comes before SPLIT
    [0.875, 0.125, 0.0, 0.0],  # held to be impossible
)
LABELS = np.array([NONE, HORZ, SPLIT, VERT])


def scores(sums: NDArray[np.float64]) -> dict[str, float]:
    return {name: float(score(sums)) for name, score in SCORES.items()}


def test_by_hand() -> None:
    sums = distribution_sums(PROBABILITIES, LABELS)
    found = scores(sums)
    nats = -math.log(0.75) - math.log(0.25) - math.log(0.125) - math.log(LEAST_PROBABILITY)
    assert found["log_loss"] == pytest.approx(nats / 4)
    assert found["log_loss"] == pytest.approx(log_loss(PROBABILITIES, LABELS))
    assert part_of(sums, "floored") == 1
    assert found["accuracy"] == 0.25
    assert found["top_2"] == 0.5
    # VERT of the last node is the third of its zeros: 0 and 1 are before it.
    assert found["top_3"] == 0.75
    # NONE: precision 1/4, recall 1, F1 2/5; the three others are never predicted.
    assert found["macro_f1"] == pytest.approx(0.4 / 4)
    confusion = part_of(sums, "confusion")
    assert confusion[[NONE, HORZ, VERT, SPLIT], NONE].tolist() == [1, 1, 1, 1]
    assert confusion.sum() == 4
    # Sets of 0.80: {NONE, HORZ} for all but those with 0.5 + 0.25 + 0.125.
    assert TAUS[0] == 0.80
    assert found["set_size_0.80"] == (2 + 3 + 3 + 1) / 4
    assert found["coverage_0.80"] == 2 / 4
    assert found["set_size_0.99"] == (3 + 4 + 4 + 2) / 4
    assert found["coverage_0.99"] == 3 / 4
    # Confidences 0.75, 0.5, 0.5 and 0.875 lie in three bins, of which that of 0.75 is right.
    assert found["calibration_error"] == pytest.approx((0.25 + 1.0 + 0.875) / 4)
    assert found["calibration_error"] == pytest.approx(reliability(PROBABILITIES, LABELS).error)


def test_sums_of_parts_add_up() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.full(10, 0.3), 500).astype(np.float32)
    labels = rng.integers(0, 10, 500)
    whole = distribution_sums(probabilities, labels)
    parts = [distribution_sums(probabilities[i::3], labels[i::3]) for i in range(3)]
    assert scores(np.sum(parts, 0)) == pytest.approx(scores(whole))
    assert found_accuracy(whole) == pytest.approx((probabilities.argmax(1) == labels).mean())


def found_accuracy(sums: NDArray[np.float64]) -> float:
    return scores(sums)["accuracy"]


def test_every_score_takes_many_sums_at_once() -> None:
    parts = np.stack(
        [distribution_sums(PROBABILITIES[rows], LABELS[rows]) for rows in ([0, 1], [2], [3])]
    )
    draws = Bootstrap(resamples=7).resample(parts)
    for name, score in SCORES.items():
        values = score(draws)
        assert values.shape == (7,)
        assert values.tolist() == pytest.approx([float(score(draw)) for draw in draws]), name
