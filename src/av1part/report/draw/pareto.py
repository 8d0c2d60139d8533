"""The plot of an encoding comparison: what each point saves against what it loses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

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
from av1part.report.encodes import AnchorComparison, PointChange
from av1part.runs.encodes import Kind, Point

MARKERS: Mapping[Kind, tuple[str, str, float]] = {
    "preset": ("o", INK, 5),
    "switch": ("s", GREEN, 4.6),
    "baseline": ("^", MUTED, 5.4),
    "oracle": ("*", BLUE, 8),
    "learned": ("D", ORANGE, 5.2),
}
"""Marker, colour and size of each kind: distinguishable without colour too."""

_SLOWER = 0.15
"""Fraction of the anchor's time or work: points slower by more are left out of the plot."""
_WORSE = 1.5
"""Baselines that lose this many times as much as any point of another kind are, too."""

_FONT = 7.0
_SIDES = ((1, 0), (1, -1), (1, 1), (-1, 1), (-1, -1), (-1, 0), (0, -1), (0, 1))
"""Directions in which a label is tried, in this order."""
_DISTANCES = (5, 12, 20, 30, 42)
"""Between point and label, in typographic points."""
_SAMPLES = 60
"""Places along a line that a label must not cover."""
_ORDER: Sequence[Kind] = ("learned", "preset", "switch", "oracle", "baseline")
"""Whose labels are placed first."""

Place = tuple[float, float]
"""Savings and loss in percent."""

Box = tuple[float, float, float, float]
"""Left, lower, right and upper end, in typographic points."""


def outside(comparison: AnchorComparison) -> list[PointChange]:
    """Return the points that the plot leaves out, so that the others do not shrink to a dot.

    These are points much slower than the anchor, and baselines that lose far more than all
    points of other kinds, unless little would be left.
    """
    judged = [change for change in comparison.points if comparison.judged(change)]
    places = {change.point.name: comparison.place(change.point) for change in judged}
    most = max(
        (loss for _, loss in (places[c.point.name] for c in judged if c.point.kind != "baseline")),
        default=0,
    )
    far = [
        change
        for change in judged
        if places[change.point.name][0] < -_SLOWER
        or (change.point.kind == "baseline" and places[change.point.name][1] > _WORSE * most > 0)
    ]
    return far if len(judged) - len(far) > 1 else []


def pareto_figure(comparison: AnchorComparison) -> Figure:
    """Draw savings against BD-rate (PSNR-Y), right and low is better.

    Args:
        comparison: The points of which both are known are drawn, but for those `outside`; those
            whose superblocks have another size than the anchor's as outlines.

    Returns:
        One panel, with a line through the presets of each size of superblocks.
    """
    far = outside(comparison)
    judged = [change for change in comparison.points if comparison.judged(change)]
    shown = [change for change in judged if change not in far]
    with paper_style():
        figure = new_figure(5.2, 8.6)
        axes = figure.subplots()
        axes.axhline(0, color=RULE, linewidth=0.8, zorder=0)
        axes.axvline(0, color=RULE, linewidth=0.8, zorder=0)
        lines = _preset_lines(comparison, judged)
        for same, places in lines:
            dash, colour = ("-", INK) if same else ((0, (4, 3)), MUTED)
            axes.plot(*zip(*places, strict=True), linestyle=dash, color=colour, lw=1, zorder=2)
        for change in shown:
            _mark(axes, comparison, change)
        marker, colour, size = MARKERS[comparison.anchor.kind]
        axes.plot(0, 0, marker, color=colour, markersize=size, zorder=4)
        axes.set_xlabel(f"{comparison.measure} saved (%)")
        axes.set_ylabel("BD-rate, PSNR-Y (%)")
        _window(axes, comparison, shown)
        light_grid(axes, "both")
        _legend(axes, comparison, shown)
        figure.draw_without_rendering()  # now the axes have their place
        _labels(figure, axes, comparison, shown, [places for _, places in lines])
    return figure


def _preset_lines(
    comparison: AnchorComparison, judged: Sequence[PointChange]
) -> list[tuple[bool, list[Place]]]:
    """Return the presets' places, slow to fast, a line a superblock size: the anchor's or not."""
    presets = [change.point for change in judged if change.point.kind == "preset"]
    if comparison.anchor.kind == "preset":
        presets.append(comparison.anchor)
    lines = []
    for size in dict.fromkeys(preset.sb_size for preset in presets):
        line = sorted((p for p in presets if p.sb_size == size), key=lambda p: p.cpu_used)
        places = [_percents(comparison, point) for point in line]
        lines.append((size == comparison.anchor.sb_size, places))
    return lines


def _window(axes: Axes, comparison: AnchorComparison, shown: Sequence[PointChange]) -> None:
    """Set the limits to the points that are shown and the anchor, with room for labels."""
    places = [(0.0, 0.0), *(comparison.place(change.point) for change in shown)]
    for low, high, limit in (
        (min(x for x, _ in places), max(x for x, _ in places), axes.set_xlim),
        (min(y for _, y in places), max(y for _, y in places), axes.set_ylim),
    ):
        room = max(high - low, 1e-3)
        limit(100 * (low - 0.1 * room), 100 * (high + 0.14 * room))


def _mark(axes: Axes, comparison: AnchorComparison, change: PointChange) -> None:
    marker, colour, size = MARKERS[change.point.kind]
    x, y = _percents(comparison, change.point)
    for low, high in _bars(comparison, change):
        ends = (low[0], high[0]), (low[1], high[1])
        axes.plot(*ends, color=colour, linewidth=0.7, alpha=0.4, zorder=1)
    axes.plot(
        x,
        y,
        marker,
        color=colour,
        markersize=size,
        markerfacecolor=colour if change.same_size else PAPER,
        markeredgewidth=0.9,
        zorder=3,
    )


def _percents(comparison: AnchorComparison, point: Point) -> Place:
    saved, loss = comparison.place(point)
    return 100 * saved, 100 * loss


def _bars(comparison: AnchorComparison, change: PointChange) -> list[tuple[Place, Place]]:
    """Return the ends of a point's two intervals, where there are any."""
    x, y = _percents(comparison, change.point)
    saved, loss = change.saved(comparison.measure), change.loss()
    bars: list[tuple[Place, Place]] = []
    if saved is not None and saved.low is not None and saved.high is not None:
        bars.append(((100 * saved.low, y), (100 * saved.high, y)))
    if loss is not None and loss.low is not None and loss.high is not None:
        bars.append(((x, 100 * loss.low), (x, 100 * loss.high)))
    return bars


def _legend(axes: Axes, comparison: AnchorComparison, shown: Sequence[PointChange]) -> None:
    """Put the kinds that there are above the axes."""
    kinds = {comparison.anchor.kind, *(change.point.kind for change in shown)}
    for kind, (marker, colour, size) in MARKERS.items():
        if kind in kinds:
            axes.plot([], [], marker, color=colour, markersize=size, label=kind)
    if not all(change.same_size for change in shown):
        axes.plot(
            [], [], "o", color=INK, markerfacecolor=PAPER, label="outline: other superblock size"
        )
    axes.legend(
        loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=6, frameon=False, handlelength=1.2
    )


def _labels(
    figure: Figure,
    axes: Axes,
    comparison: AnchorComparison,
    shown: Sequence[PointChange],
    lines: Sequence[Sequence[Place]],
) -> None:
    """Name the points, the anchor and learned ones first, where a name covers nothing else."""
    scale = 72 / figure.dpi
    named = [comparison.anchor, *(change.point for change in shown)]
    places = {point.name: _percents(comparison, point) for point in named}
    spots = {name: axes.transData.transform(place) * scale for name, place in places.items()}
    frame = axes.get_window_extent()
    room = frame.x0 * scale, frame.y0 * scale, frame.x1 * scale, frame.y1 * scale
    taken: list[Box] = [(x - 3, y - 3, x + 3, y + 3) for x, y in spots.values()]
    strokes = _strokes(axes, scale, comparison, shown, lines)
    for point in sorted(named, key=lambda p: (p != comparison.anchor, _ORDER.index(p.kind))):
        text = f"{point.name} (anchor)" if point == comparison.anchor else point.name
        x, y = spots[point.name]
        # Rather across a line than not at all.
        found = _free(x, y, text, room, [*taken, *strokes]) or _free(x, y, text, room, taken)
        if found is None:
            continue
        place, near = found
        taken.append(place)
        line = {"arrowstyle": "-", "color": MUTED, "linewidth": 0.4, "shrinkA": 0, "shrinkB": 2}
        axes.annotate(
            literal(text),
            places[point.name],
            xytext=(place[0] - x, place[1] - y + 0.25 * _FONT),
            textcoords="offset points",
            fontsize=_FONT,
            arrowprops=None if near else line,
        )


def _strokes(
    axes: Axes,
    scale: float,
    comparison: AnchorComparison,
    shown: Sequence[PointChange],
    lines: Sequence[Sequence[Place]],
) -> list[Box]:
    """Return the places that bars and lines of presets cover."""
    strokes: list[Box] = []
    for change in shown:
        for bar in _bars(comparison, change):
            (x0, y0), (x1, y1) = axes.transData.transform(bar) * scale
            strokes.append((x0, y0 - 0.5, x1, y1 + 0.5))
    for line in lines:
        for start, end in pairwise(axes.transData.transform(line) * scale):
            for x, y in np.linspace(start, end, _SAMPLES):
                strokes.append((x - 1, y - 1, x + 1, y + 1))
    return strokes


def _free(
    x: float, y: float, text: str, room: Box, taken: Sequence[Box]
) -> tuple[Box, bool] | None:
    """Find a free place for a label, near its point if possible.

    Args:
        x: Of the point, in typographic points.
        y: Likewise.
        text: The label.
        room: Left, lower, right and upper end of where labels may lie.
        taken: Places that are not free.

    Returns:
        The place, and whether it touches the point; None if there is none.
    """
    width, height = 0.6 * _FONT * len(text), 1.15 * _FONT
    for distance in _DISTANCES:
        for across, up in _SIDES:
            left = x + distance * across - width * (1 - across) / 2
            low = y + distance * up - height / 2
            place = left, low, left + width, low + height
            inside = room[0] <= left and place[2] <= room[2]
            inside = inside and room[1] <= low and place[3] <= room[3]
            if inside and not any(_overlap(place, other) for other in taken):
                return place, distance == _DISTANCES[0]
    return None


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
