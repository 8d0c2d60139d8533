from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from av1part.calibration import expected_calibration_error
from av1part.report.fields import Interval
from av1part.report.plots import (
    calibration_bins,
    cascade_figure,
    confusion_figure,
    learning_curves,
    margins_figure,
    qindex_figure,
    reliability_figure,
    thaws,
)
from av1part.report.svg import BLUE, GREEN, ORANGE

MATRIX = np.array([[8, 2, 0], [1, 3, 0], [0, 0, 0]])


def history(epochs: int = 5) -> pl.DataFrame:
    n = np.arange(epochs, dtype=float)
    return pl.DataFrame(
        {"epoch": n, "train_loss": 1 / (n + 1), "val_loss": 2 / (n + 1), "macro_f1": n / 10}
        | {"accuracy": n / 8, "lr.adapter": 1e-4 / (n + 1), "lr.head": 5e-4 / (n + 1)}
    )


def test_learning_curves_show_the_rows_and_mark_the_best_epoch() -> None:
    loss, scores, rates = learning_curves(history(), 3, {"class prior": 0.25}).axes
    assert [line.get_label() for line in loss.lines] == ["train", "val"]
    np.testing.assert_allclose(loss.lines[1].get_ydata(), history()["val_loss"])
    np.testing.assert_allclose(scores.lines[0].get_ydata(), 100 * history()["macro_f1"])
    marks = [line for line in scores.lines if line.get_marker() == "o"]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in marks] == [
        (3, pytest.approx(30))
    ]
    assert any(list(line.get_ydata()) == [25, 25] for line in scores.lines)
    assert [line.get_label() for line in rates.lines] == ["adapter", "head"]


def test_the_epochs_in_which_layers_thaw_are_drawn() -> None:
    thawing = history().with_columns(
        pl.Series("lr.layer4", [0.0, 1e-4, 1e-4, 1e-4, 1e-4]),
        pl.Series("lr.layer3", [0.0, 0.0, 0.0, 1e-5, 1e-5]),
        pl.Series("lr.stem", [0.0, 0.0, 0.0, 1e-6, 1e-6]),
        pl.Series("lr.layer1", [0.0] * 5),
    )
    assert thaws(thawing) == {1: ["layer4"], 3: ["layer3", "stem"]}
    assert thaws(history()) == {}
    figure = learning_curves(thawing, 3, {})
    for axes in figure.axes:
        lines = [line for line in axes.lines if line.get_color() == GREEN]
        marked = {x[0] for x in (line.get_xdata() for line in lines) if len(set(x)) == 1}
        assert marked == {1, 3}
    assert "layer3, stem thawed" in {text.get_text() for text in figure.axes[2].texts}
    (layer3,) = (line for line in figure.axes[2].lines if line.get_label() == "layer3")
    np.testing.assert_array_equal(np.isnan(layer3.get_ydata()), [True, True, True, False, False])


def test_one_epoch_and_no_rates_still_draw() -> None:
    only = history(1).drop("lr.adapter", "lr.head")
    assert len(learning_curves(only, 0, {}).axes) == 2


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
    bins = calibration_bins(probability, label)
    assert bins.count.sum() == 500
    filled = bins.count > 0
    assert (bins.confidence[filled] > bins.edges[:-1][filled]).all()
    assert (bins.confidence[filled] <= bins.edges[1:][filled]).all()
    assert bins.error == pytest.approx(
        expected_calibration_error(probability, label), abs=1e-6
    )  # torchmetrics counts in float32


def test_reliability_draws_each_filled_bin() -> None:
    probability = np.array([[0.95, 0.05], [0.95, 0.05], [0.45, 0.55]])
    bins = calibration_bins(probability, np.array([0, 1, 1]))
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
