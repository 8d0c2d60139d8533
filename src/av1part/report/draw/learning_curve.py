"""A score over the number of training pictures: a line a predictor, with its intervals."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from av1part.metrics.intervals import Interval
from av1part.report.draw.plots import LINES
from av1part.report.draw.svg import light_grid, literal, new_figure, paper_style


def learning_curve(curves: Mapping[str, Mapping[int, Interval]], label: str) -> Figure:
    """Draw curves over a logarithmic axis of pictures.

    Args:
        curves: Name to number of training pictures to the score; a point without limits has no
            bar.
        label: Of the score's axis.

    Returns:
        The figure. Bars of several curves stand beside each other, so that none hides another.
    """
    with paper_style():
        figure = new_figure(3.2, 6.5)
        axes = figure.subplots()
        lines = LINES * (1 + len(curves) // len(LINES))
        for index, (name, points) in enumerate(curves.items()):
            colour, dash = lines[index]
            shift = 1.02 ** (index - (len(curves) - 1) / 2)
            x = [number * shift for number in points]
            y = [point.estimate for point in points.values()]
            axes.plot(x, y, dash, color=colour, marker="o", markersize=3.5, label=literal(name))
            for at, point in zip(x, points.values(), strict=True):
                if point.low is not None and point.high is not None:
                    axes.plot([at, at], [point.low, point.high], "-", color=colour, linewidth=1)
        numbers = sorted({number for points in curves.values() for number in points})
        axes.set_xscale("log")
        axes.set_xticks(numbers, [str(number) for number in numbers])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set(xlabel="training pictures", ylabel=label)
        axes.legend(frameon=False)
        light_grid(axes)
    return figure
