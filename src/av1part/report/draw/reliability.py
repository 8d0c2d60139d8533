"""Reliability diagrams of several predictors, a panel a node size."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from av1part.metrics.calibration import Reliability
from av1part.report.draw.plots import LINES
from av1part.report.draw.svg import MUTED, light_grid, literal, new_figure, paper_style

_LEAST_SHARE = 0.001
"""Share of the nodes below which a bin is not drawn: its accuracy is of too few."""


def reliability_panels(sizes: Mapping[str, Mapping[str, Reliability]]) -> Figure:
    """Draw accuracy against confidence.

    Args:
        sizes: Title of a panel to the bins of each predictor.

    Returns:
        One panel a size, side by side, under one legend.
    """
    with paper_style():
        figure = new_figure(2.9 if len(sizes) > 2 else 3.4)
        panels = np.atleast_1d(figure.subplots(1, len(sizes), sharey=True))
        for axes, (title, predictors) in zip(panels, sizes.items(), strict=True):
            axes.plot([0, 100], [0, 100], color=MUTED, linewidth=0.7, linestyle=(0, (4, 3)))
            lines = LINES * (1 + len(predictors) // len(LINES))
            for (name, bins), (colour, dash) in zip(predictors.items(), lines, strict=False):
                drawn = bins.count > _LEAST_SHARE * bins.count.sum()
                axes.plot(
                    100 * bins.confidence[drawn],
                    100 * bins.accuracy[drawn],
                    dash,
                    marker="o",
                    markersize=3,
                    linewidth=1,
                    color=colour,
                    label=literal(name),
                )
            axes.set(xlim=(0, 100), ylim=(0, 100), xlabel="confidence (%)")
            axes.set_title(title)
            axes.set_aspect("equal")
            light_grid(axes, "both")
        panels[0].set_ylabel("accuracy (%)")
        named: dict[str, Artist] = {}
        for axes in panels:
            handles, labels = axes.get_legend_handles_labels()
            named |= dict(zip(map(str, labels), handles, strict=True))
        figure.legend(
            list(named.values()),
            list(named),
            loc="outside upper left",
            ncols=4,
            frameon=False,
            fontsize=7.5,
        )
    return figure
