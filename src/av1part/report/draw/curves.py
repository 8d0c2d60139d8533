"""Learning curves: losses, scores and learning rates over the epochs, and what thawed when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from av1part.report.draw.plots import LINES, legend_above
from av1part.report.draw.svg import BLUE, GREEN, MUTED, light_grid, new_figure, paper_style
from av1part.runs.schema import LOG_LOSS, rate_groups


def learning_curves(history: pl.DataFrame, best_epoch: int, guesses: Mapping[str, float]) -> Figure:
    """Draw losses, scores and learning rates over the epochs.

    Args:
        history: The rows of history.csv, all numbers.
        best_epoch: The epoch whose weights were kept; marked.
        guesses: Macro-F1 of guessers by name, fractions; a horizontal line each.

    Returns:
        Two panels, or three where learning rates were recorded.
    """
    rates = rate_groups(history.columns)
    scores = [c for c in ("macro_f1", "accuracy") if c in history.columns]
    epochs = history["epoch"].to_numpy()
    with paper_style():
        figure = new_figure(2.5)
        panels = figure.subplots(1, 3 if rates else 2)
        by_loss = LOG_LOSS in history.columns  # which chose the best epoch
        losses = {"train_loss": "train", "val_loss": "val"}
        losses |= {LOG_LOSS: "val log loss"} if by_loss else {}
        for (name, label), (colour, dash) in zip(losses.items(), LINES, strict=False):
            panels[0].plot(epochs, history[name], dash, color=colour, label=label)
        panels[0].set_title("Loss")
        for name, (colour, dash) in zip(scores, LINES, strict=False):
            label = {"macro_f1": "macro-F1", "accuracy": "accuracy"}[name]
            panels[1].plot(epochs, 100 * history[name], dash, color=colour, label=label)
        panels[1].set_title("Validation (%)")
        for name, value in guesses.items():
            _level(panels[1], 100 * value, name)
        if by_loss:
            _mark_best(panels[0], history, best_epoch, history[LOG_LOSS])
        else:
            _mark_best(panels[1], history, best_epoch, 100 * history["macro_f1"])
        for name, (colour, dash) in zip(rates, LINES * (1 + len(rates) // 4), strict=False):
            trained = np.where(history[name] > 0, history[name], np.nan)
            panels[2].plot(epochs, trained, dash, color=colour, label=rates[name])
        if rates:
            panels[2].set_title("Learning rate")
            panels[2].set_yscale("log")
        for epoch, layers in thaws(history).items():
            _mark_thaw(panels, epoch, layers)
        for axes in panels:
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            light_grid(axes)
            legend_above(axes)
    return figure


def thaws(history: pl.DataFrame) -> dict[int, list[str]]:
    """Return the epochs in which frozen layers began to train, with the layers.

    Args:
        history: The rows of history.csv; the rate of a layer still frozen is 0.

    Returns:
        Epoch to layers, ascending; empty for a run that froze the same layers throughout.
    """
    thawed: dict[int, list[str]] = {}
    for name, group in rate_groups(history.columns).items():
        trained = history[name].to_numpy() > 0
        if trained.any() and not trained[0]:
            epoch = int(history["epoch"][int(trained.argmax())])
            thawed.setdefault(epoch, []).append(group)
    return dict(sorted(thawed.items()))


def _mark_thaw(panels: Sequence[Axes], epoch: int, layers: Sequence[str]) -> None:
    for axes in panels:
        axes.axvline(epoch, color=GREEN, linewidth=0.7, linestyle=(0, (1, 2)), zorder=0)
    panels[-1].annotate(
        f"{', '.join(layers)} thawed",
        (epoch, 0.03),
        xycoords=("data", "axes fraction"),
        xytext=(-2, 0),
        textcoords="offset points",
        rotation=90,
        ha="right",
        va="bottom",
        fontsize=6.5,
        color=MUTED,
    )


def _level(axes: Axes, value: float, name: str) -> None:
    axes.axhline(value, color=MUTED, linewidth=0.8, linestyle=(0, (1, 2)))
    axes.annotate(
        name,
        (1, value),
        xycoords=("axes fraction", "data"),
        xytext=(0, 2),
        textcoords="offset points",
        ha="right",
        fontsize=7,
        color=MUTED,
    )


def _mark_best(axes: Axes, history: pl.DataFrame, best_epoch: int, scores: pl.Series) -> None:
    """Mark the best epoch; `scores` are drawn on the axes, a row of history each."""
    found = scores.filter(history["epoch"] == best_epoch)
    if not len(found):
        return
    best = found[0]
    axes.axvline(best_epoch, color=MUTED, linewidth=0.6, zorder=0)
    axes.plot([best_epoch], [best], "o", color=BLUE, markersize=5)
    late = best_epoch > history["epoch"].to_numpy().mean()
    axes.annotate(
        f"best: epoch {best_epoch}",
        (best_epoch, best),
        xytext=(-5 if late else 5, -9),
        textcoords="offset points",
        ha="right" if late else "left",
        va="top",
        fontsize=7.5,
    )
