from __future__ import annotations

import numpy as np
import pytest

from av1part.metrics.calibration import reliability
from av1part.metrics.intervals import Interval
from av1part.report.draw.plots import (
    cascade_figure,
    confusion_figure,
    margins_figure,
    qindex_figure,
    reliability_figure,
)
from av1part.report.draw.svg import BLUE, ORANGE

MATRIX = np.array([[8, 2, 0], [1, 3, 0], [0, 0, 0]])


def test_confusion_prints_counts_and_row_percents_in_place() -> None:
    counts, percents = confusion_figure(MATRIX, ["A", "B", "C"]).axes
    place = {text.get_position(): text.get_text() for text in counts.texts}
    assert place[(1, 0)] == "2"  # x is the predicted class, y the true one
    assert place[(0, 1)] == "1"
    place = {text.get_position(): text.get_text() for text in percents.texts}
    assert (place[(0, 0)], place[(1, 0)], place[(0, 2)]) == ("80.0", "20.0", "0.0")
    assert [label.get_text() for label in counts.get_yticklabels()] == ["A", "B", "C"]


def test_calibration_error_is_that_of_the_cascade() -> None:
    rng = np.random.default_rng(3)
    probability = rng.dirichlet([0.5] * 8, size=500)
    label = rng.integers(0, 8, 500)
    bins = reliability(probability, label)
    assert bins.count.sum() == 500
    filled = bins.count > 0
    assert (bins.confidence[filled] > bins.edges[:-1][filled]).all()
    assert (bins.confidence[filled] <= bins.edges[1:][filled]).all()
    assert bins.error == pytest.approx(
        reliability(probability, label).error, abs=1e-6
    )  # torchmetrics counts in float32


def test_reliability_draws_each_filled_bin() -> None:
    probability = np.array([[0.95, 0.05], [0.95, 0.05], [0.45, 0.55]])
    bins = reliability(probability, np.array([0, 1, 1]))
    line = reliability_figure(bins).axes[0].lines[-1]
    np.testing.assert_allclose(line.get_xdata(), [55, 95])
    np.testing.assert_allclose(line.get_ydata(), [100, 50])


def test_margins_tell_by_shape_and_colour_whether_zero_is_left() -> None:
    margins = [Interval(0.1, 0.05, 0.2), Interval(0.1, -0.1, 0.2), Interval(0.1, None, None)]
    axes = margins_figure(["a", "b", "c"], margins, "t").axes[0]
    marks = [line for line in axes.lines if line.get_marker() != "None"]
    assert [line.get_marker() for line in marks] == ["o", "D", "D"]
    assert [line.get_color() for line in marks] == [BLUE, ORANGE, ORANGE]
    bars = [list(line.get_xdata()) for line in axes.lines if len(line.get_xdata()) == 2]
    assert [5, 20] in [pytest.approx(bar) for bar in bars]


def test_cascade_and_qindex_draw_percents() -> None:
    axes = cascade_figure(["stage1", "stage2"], [0.8, 0.6], [0.7, 0.3], "t").axes[0]
    by_label = {line.get_label(): line for line in axes.lines}
    np.testing.assert_allclose(by_label["standalone"].get_xdata(), [80, 60])
    np.testing.assert_allclose(by_label["inside the cascade"].get_xdata(), [70, 30])
    lines = qindex_figure([80, 172], [0.5, 0.6], [0.4, 0.55], [0.3, 0.2]).axes[0].lines
    np.testing.assert_allclose(lines[1].get_ydata(), [40, 55])
