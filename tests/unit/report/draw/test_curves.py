"""Learning curves show the rows of a history, the best epoch, and what thawed."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from av1part.report.draw.curves import learning_curves, thaws
from av1part.report.draw.svg import GREEN


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
