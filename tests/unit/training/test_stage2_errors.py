"""What Stage 2 sends where, by type."""

from __future__ import annotations

import numpy as np

from av1part.evaluation.evaluate import Evaluation
from av1part.partition import Partition
from av1part.training.stage2_errors import sent_by_type


def test_rates_are_counted_by_the_true_type() -> None:
    said = np.array([0, 1, 1, 2, 1, 0, 1])
    evaluation = Evaluation(
        logits=np.eye(3, dtype=np.float32)[said],
        node=np.arange(7),
        partition=np.array([3, 3, 3, 3, 4, 5, 1]),
        qindex=np.full(7, 80),
    )
    expected = {Partition.SPLIT: 0.5, Partition.HORZ_A: 1.0, Partition.HORZ: 1.0}
    rates = sent_by_type(evaluation, 1)
    assert rates == tuple(expected.get(p, 0.0) for p in Partition)
    assert sent_by_type(evaluation, 2) == tuple(0.25 * (p == Partition.SPLIT) for p in Partition)
