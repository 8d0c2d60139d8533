"""The figures of a sweep, made for a thesis: arrays in, a figure out."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from av1part.options import INPUT_KEYS
from av1part.report.draw.plots import LINES, confusion_figure
from av1part.report.draw.svg import (
    BLUE,
    INK,
    MUTED,
    ORANGE,
    light_grid,
    literal,
    new_figure,
    paper_style,
)
from av1part.report.sweep import Sweep, Variant

MOST_PANELS = 12
"""Variants that get a panel or a matrix of their own; the best ones."""
_COLUMNS = 4
_MARKERS = "osD^vP*X<>"
"""Of the classes, at most as many as AV1 has types."""


def curves_figure(sweep: Sweep) -> Figure:
    """Draw macro-F1, or log loss, over the epochs, a panel a variant, the baseline behind each.

    A line is the mean over members, its band one standard deviation; runs that stopped early end
    where the first of them does.
    """
    shown = sweep.variants[:MOST_PANELS]
    base = next((v for v in sweep.variants if v.name == sweep.baseline), None)
    rows = -(-len(shown) // _COLUMNS)
    with paper_style():
        figure = new_figure(0.4 + 1.75 * rows)
        panels = figure.subplots(
            rows, min(_COLUMNS, len(shown)), sharex=True, sharey=True, squeeze=False
        ).ravel()
        for axes, variant in zip(panels, shown, strict=False):
            if base is not None and base is not variant:
                _band(axes, base, MUTED, "--", _scale(sweep))
            _band(axes, variant, BLUE, "-", _scale(sweep))
            axes.set_title(_short(variant.name))
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            light_grid(axes)
        for axes in panels[len(shown) :]:
            axes.set_axis_off()
        figure.supxlabel("epoch", fontsize=8.5)
        figure.supylabel(_score_label(sweep), fontsize=8.5)
    return figure


def _scale(sweep: Sweep) -> float:
    """Return what makes a score that of the figures: percent, or nats as they are."""
    return 1 if sweep.by_log_loss else 100


def _score_label(sweep: Sweep) -> str:
    if sweep.by_log_loss:
        return "log loss on val (nats), less is better"
    return "macro-F1 on val (%)"


def _band(axes: object, variant: Variant, colour: str, dash: str, scale: float) -> None:
    length = min(len(member.curve) for member in variant.members)
    curves = scale * np.array([member.score_curve[:length] for member in variant.members])
    epochs, mean = np.arange(length), curves.mean(0)
    axes.plot(epochs, mean, dash, color=colour)  # type: ignore[attr-defined]
    if len(curves) > 1:
        sd = curves.std(0, ddof=1)
        axes.fill_between(epochs, mean - sd, mean + sd, color=colour, alpha=0.18, linewidth=0)  # type: ignore[attr-defined]


def parameters_figure(sweep: Sweep) -> Figure:
    """Draw macro-F1, or log loss, against trained parameters, mean with its interval."""
    scale = _scale(sweep)
    with paper_style():
        figure = new_figure(3.2, 6.5)
        axes = figure.subplots()
        for variant in sweep.variants:
            best, trained = variant.score, variant.number("trainable_parameters")
            is_base = variant.name == sweep.baseline
            colour = ORANGE if is_base else BLUE
            if best.low is not None and best.high is not None:
                ends = [scale * best.low, scale * best.high]
                axes.plot([trained] * 2, ends, "-", color=colour, lw=1)
            axes.plot([trained], [scale * best.mean], "D" if is_base else "o", color=colour, ms=4)
        axes.set_xscale("log")
        axes.margins(x=0.12)
        _label_points(axes, sweep)
        axes.set(xlabel="trained parameters", ylabel=_score_label(sweep))
        light_grid(axes)
    return figure


def _label_points(axes: Axes, sweep: Sweep) -> None:
    """Name the points, the baseline first, then the best, as far as names do not overlap."""
    size = 6.5
    taken: list[tuple[float, float, float]] = []
    for variant in sorted(sweep.variants, key=lambda v: v.name != sweep.baseline):
        point = variant.number("trainable_parameters"), _scale(sweep) * variant.score.mean
        name = _short(variant.name)
        left, base = axes.transData.transform(point) * 72 / axes.figure.dpi
        right = left + 0.6 * size * len(name)
        if any(abs(base - y) < size and left < b and a < right for a, b, y in taken):
            continue
        taken.append((left, right, base))
        axes.annotate(
            name, point, xytext=(4, 2), textcoords="offset points", fontsize=size, color=INK
        )


def classes_figure(sweep: Sweep) -> Figure:
    """Draw the F1 of each class of each variant, a row a variant, means over members."""
    names = sweep.class_names
    shown = sweep.variants[: 3 * MOST_PANELS]
    with paper_style():
        figure = new_figure(0.9 + 0.2 * len(shown) + 0.2 * (len(names) > 5), 6.5)
        axes = figure.subplots()
        rows = np.arange(len(shown))[::-1]
        for index, name in enumerate(names):
            colour, _ = LINES[index % len(LINES)]
            values = [100 * float(np.mean([m.class_f1[index] for m in v.members])) for v in shown]
            axes.plot(values, rows, _MARKERS[index], color=colour, ms=4, label=name)
        axes.set_yticks(rows, [_short(v.name) for v in shown], fontsize=7)
        axes.set_xlabel("F1 on val (%)")
        light_grid(axes, "both")
        axes.legend(
            frameon=False, ncols=min(len(names), 5), loc="lower left", bbox_to_anchor=(0, 1)
        )
    return figure


def best_epochs_figure(sweep: Sweep) -> Figure:
    """Count in how many runs each epoch was the best."""
    epochs = [member.best_epoch for variant in sweep.variants for member in variant.members]
    with paper_style():
        figure = new_figure(2.4, 5.0)
        axes = figure.subplots()
        axes.hist(epochs, bins=(np.arange(max(epochs) + 2) - 0.5).tolist(), color=BLUE, rwidth=0.85)
        axes.set(xlabel="best epoch", ylabel="runs")
        axes.xaxis.set_major_locator(MaxNLocator(12, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        light_grid(axes)
    return figure


def confusions(sweep: Sweep) -> list[tuple[Variant, Figure]]:
    """Draw the confusion matrix of the best variant and of the baseline, over all members."""
    base = [v for v in sweep.variants[1:] if v.name == sweep.baseline]
    return [
        (variant, confusion_figure(variant.confusion, sweep.class_names))
        for variant in (sweep.variants[0], *base)
    ]


def grid_figure(sweep: Sweep, columns: str, rows: str) -> Figure | None:
    """Draw mean macro-F1 over two settings that were varied against each other.

    Args:
        sweep: The sweep.
        columns: The setting along the columns, a dotted key.
        rows: The setting along the rows.

    Returns:
        The figure; None unless some variants differ in these two alone, in both.
    """
    cells = _cells(sweep, columns, rows)
    xs, ys = (sorted({key[axis] for key in cells}) for axis in (0, 1))
    if len(xs) < 2 or len(ys) < 2:
        return None
    values: NDArray[np.float64] = np.full((len(ys), len(xs)), np.nan)
    for (x, y), variant in cells.items():
        values[ys.index(y), xs.index(x)] = 100 * variant.best.mean
    with paper_style():
        figure = new_figure(0.9 + 0.45 * len(ys), 4.8)
        axes = figure.subplots()
        axes.imshow(values, cmap="Blues", aspect="auto", alpha=0.85)
        middle = (np.nanmin(values) + np.nanmax(values)) / 2
        for (row, column), value in np.ndenumerate(values):
            text = "" if np.isnan(value) else f"{value:.2f}"
            colour = "white" if value > middle else INK
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)
        axes.set_xticks(range(len(xs)), [f"{x:g}" for x in xs])
        axes.set_yticks(range(len(ys)), [f"{y:g}" for y in ys])
        axes.set(xlabel=columns, ylabel=rows)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    return figure


def _cells(sweep: Sweep, columns: str, rows: str) -> dict[tuple[float, float], Variant]:
    """Return the largest set of variants that differ in two settings alone, by their values."""
    groups: dict[str, dict[tuple[float, float], Variant]] = {}
    ignored = {columns, rows, "seed", "name", "resume", *INPUT_KEYS}
    for variant in sweep.variants:
        settings = variant.members[0].run.settings
        place = settings.get(columns), settings.get(rows)
        if not all(isinstance(value, int | float) for value in place):
            continue
        rest = sorted((k, str(v)) for k, v in settings.items() if k not in ignored)
        groups.setdefault(str(rest), {})[(float(place[0]), float(place[1]))] = variant  # type: ignore[arg-type]
    return max(groups.values(), key=len, default={})


def _short(name: str, most: int = 34) -> str:
    short = name if len(name) <= most else f"{name[: most - 1]}…"
    return literal(short)
