"""Plots of numbers: curves, matrices, calibration, margins. Arrays in, a figure out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from av1part.metrics.calibration import Reliability
from av1part.metrics.intervals import Interval
from av1part.report.draw.svg import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    PAPER,
    RULE,
    light_grid,
    literal,
    new_figure,
    paper_style,
)

LINES = ((BLUE, "-"), (ORANGE, "--"), (GREEN, "-."), (MUTED, ":"))
"""Colour and dash of the first, second, ... line: distinguishable without colour too."""


def legend_above(axes: Axes) -> None:
    """Put the keys of the lines into the axes' upper right, above the data."""
    axes.legend(
        loc="lower right",
        bbox_to_anchor=(1.02, 0.97),
        ncols=3,
        frameon=False,
        handlelength=1.6,
        columnspacing=1.0,
        borderpad=0.2,
        fontsize=7.5,
    )


def confusion_figure(matrix: NDArray[np.int64], class_names: Sequence[str]) -> Figure:
    """Draw a confusion matrix twice: counts, and rows in percent of the true class.

    Args:
        matrix: Counts of shape (k, k), rows true, columns predicted.
        class_names: Names in class-index order.

    Returns:
        Two panels side by side.
    """
    rows = matrix.sum(1, keepdims=True)
    share = np.divide(matrix, rows, out=np.zeros(matrix.shape), where=rows > 0)
    k = len(class_names)
    with paper_style():
        figure = new_figure(min(4.6, 1.3 + 0.42 * k))
        left, right = figure.subplots(1, 2)
        counts = [[f"{n:,}" for n in row] for row in matrix.tolist()]
        percents = [[f"{100 * s:.1f}" for s in row] for row in share.tolist()]
        _matrix(left, share, counts, class_names, "Nodes")
        _matrix(right, share, percents, class_names, "Percent of the true class")
    return figure


def _matrix(
    axes: Axes,
    share: NDArray[np.float64],
    texts: Sequence[Sequence[str]],
    class_names: Sequence[str],
    title: str,
) -> None:
    k = len(class_names)
    small = 6.8 if k > 6 else 8
    for i in range(k):
        for j in range(k):
            axes.add_patch(
                Rectangle(
                    (j - 0.5, i - 0.5),
                    1,
                    1,
                    facecolor=to_rgba(BLUE, 0.04 + 0.9 * share[i, j]),
                    edgecolor=INK if i == j else RULE,
                    linewidth=0.9 if i == j else 0.4,
                    zorder=2 if i == j else 1,
                )
            )
            colour = PAPER if share[i, j] > 0.65 else INK
            axes.text(
                j, i, texts[i][j], ha="center", va="center", fontsize=small, color=colour, zorder=3
            )
    axes.set(xlim=(-0.52, k - 0.48), ylim=(k - 0.48, -0.52), xlabel="predicted", ylabel="true")
    slant: dict[str, Any] = (
        {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if k > 4 else {}
    )
    axes.set_xticks(range(k), class_names, fontsize=small, **slant)
    axes.set_yticks(range(k), class_names, fontsize=small)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(title, pad=8)


def reliability_figure(bins: Reliability) -> Figure:
    """Draw accuracy against confidence, and how many nodes each bin holds."""
    width = bins.edges[1] - bins.edges[0]
    centres = 100 * (bins.edges[:-1] + width / 2)
    filled = bins.count > 0
    with paper_style():
        figure = new_figure(2.9, 6.0)
        left, right = figure.subplots(1, 2)
        left.plot([0, 100], [0, 100], color=MUTED, linewidth=0.7, linestyle=(0, (4, 3)))
        left.text(97, 4, "dashed: confidence equals accuracy", color=MUTED, fontsize=7, ha="right")
        left.plot(
            100 * bins.confidence[filled],
            100 * bins.accuracy[filled],
            "-o",
            color=BLUE,
            markersize=3.5,
            linewidth=1,
        )
        left.set(xlim=(0, 100), ylim=(0, 100), xlabel="confidence (%)", ylabel="accuracy (%)")
        left.set_title("Reliability")
        left.set_aspect("equal")
        light_grid(left, "both")
        right.bar(centres, 100 * bins.count / bins.count.sum(), 92 * width, color=BLUE, alpha=0.75)
        right.set(xlim=(0, 100), xlabel="confidence (%)", ylabel="nodes (%)")
        right.set_title("Where the nodes are")
        light_grid(right)
    return figure


def qindex_figure(
    qindex: Sequence[float],
    accuracy: Sequence[float],
    constant: Sequence[float],
    macro_f1: Sequence[float],
) -> Figure:
    """Draw accuracy, its best constant and macro-F1 against the quantiser.

    Args:
        qindex: Base quantiser indices.
        accuracy: At each qindex, a fraction.
        constant: Accuracy of the best constant guess at each qindex, a fraction.
        macro_f1: At each qindex, a fraction.

    Returns:
        One panel.
    """
    series = (
        (accuracy, BLUE, "-", "accuracy"),
        (constant, MUTED, ":", "accuracy of the best constant"),
        (macro_f1, ORANGE, "--", "macro-F1"),
    )
    with paper_style():
        figure = new_figure(2.6, 6.0)
        axes = figure.subplots()
        for values, colour, dash, label in series:
            axes.plot(
                qindex,
                100 * np.asarray(values),
                dash,
                marker="o",
                markersize=4,
                color=colour,
                label=label,
            )
        axes.set(xlabel="qindex (coarser quantisation to the right)", ylabel="%")
        axes.set_xticks(list(qindex))
        axes.set_ylim(bottom=0)
        light_grid(axes)
        legend_above(axes)
    return figure


def margins_figure(
    names: Sequence[str],
    margins: Sequence[Interval],
    title: str,
    *,
    scale: float = 100,
    unit: str = "percentage points",
) -> Figure:
    """Draw one margin a row with its interval against zero; the names are the tick labels.

    Args:
        names: What each row is called.
        margins: Positive is good; an interval without ends is drawn as its estimate alone.
        title: What the margins are of.
        scale: What makes them `unit`.
        unit: What the axis is called.

    Returns:
        One panel.
    """
    with paper_style():
        figure = new_figure(0.85 + 0.25 * len(names), 6.2)  # legible on a phone too
        axes = figure.subplots()
        axes.axvline(0, color=INK, linewidth=0.8)
        for i, margin in enumerate(margins):
            good = margin.sign == "positive"
            colour = BLUE if good else ORANGE
            if margin.low is not None and margin.high is not None:
                ends = [scale * margin.low, scale * margin.high]
                axes.plot(ends, [i, i], color=colour, linewidth=1.2)
            axes.plot(
                scale * margin.estimate, i, "o" if good else "D", color=colour, markersize=4.5
            )
        axes.set_yticks(range(len(names)), [literal(name) for name in names])
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlabel(unit, fontsize=9.5)
        axes.set_title(title, fontsize=9.5)
        axes.tick_params(labelsize=9.5)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        light_grid(axes, "x")
    return figure


def cascade_figure(
    names: Sequence[str], standalone: Sequence[float], inside: Sequence[float], title: str
) -> Figure:
    """Draw each stage's score on its own nodes against its score inside the cascade.

    Args:
        names: What each row is called.
        standalone: Score of each stage on its own nodes, fractions.
        inside: Score of the same stages inside the cascade, fractions.
        title: What the scores are.

    Returns:
        One panel.
    """
    with paper_style():
        figure = new_figure(0.85 + 0.27 * len(names), 6.6)
        axes = figure.subplots()
        for i, (alone, within) in enumerate(zip(standalone, inside, strict=True)):
            axes.plot([100 * within, 100 * alone], [i, i], color=RULE, linewidth=2.4, zorder=1)
        axes.plot(
            100 * np.asarray(standalone),
            range(len(names)),
            "o",
            markersize=6,
            markerfacecolor=PAPER,
            color=BLUE,
            label="standalone",
        )
        axes.plot(
            100 * np.asarray(inside),
            range(len(names)),
            "D",
            markersize=5,
            color=ORANGE,
            label="inside the cascade",
        )
        axes.set_yticks(range(len(names)), names)
        axes.set(ylim=(len(names) - 0.5, -0.5), xlim=(0, 100), xlabel="%")
        axes.set_title(title)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        light_grid(axes, "x")
        legend_above(axes)
    return figure
