"""The learning curve of a comparison whose predictors were trained on more and more pictures.

Predictors called NAME_COUNT, such as `net_13` and `net_25`, are the points of the curve NAME.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from matplotlib.figure import Figure

from av1part.metrics.paired import Resampled, compare_with
from av1part.report.chapters.compared_tables import decimals, limits
from av1part.report.draw.learning_curve import learning_curve
from av1part.report.render.tables import EMPTY_CELL, Table, p_text, table
from av1part.runs.compared import Compared
from av1part.runs.compared_scores import resampled_at

_POINT = re.compile(r"(?P<name>.+)_(?P<count>\d+)")
_SIZE = 16
_SCORE = "log_loss"


def curves_of(names: Sequence[str]) -> dict[str, dict[int, str]]:
    """Group names of the form NAME_COUNT by NAME.

    Args:
        names: Names of predictors.

    Returns:
        NAME to two or more counts, ascending, with the name of each.

    >>> curves_of(["net_25", "net_13", "trees_13", "prior"])
    {'net': {13: 'net_13', 25: 'net_25'}}
    """
    curves: dict[str, dict[int, str]] = {}
    for name in names:
        if (found := _POINT.fullmatch(name)) is not None:
            curves.setdefault(found["name"], {})[int(found["count"])] = name
    return {name: dict(sorted(own.items())) for name, own in curves.items() if len(own) > 1}


def curve_table(compared: Compared) -> Table | None:
    """Put the log loss of each curve side by side, a row a number of training pictures.

    Args:
        compared: The folder.

    Returns:
        Log loss at 16x16 with its interval, and of two curves the difference at equal numbers of
        pictures; None if there is no curve.
    """
    resampled = resampled_at(compared.table, _SIZE)
    curves = curves_of(list(resampled))
    if not curves:
        return None
    first, *others = curves
    rows = []
    for number in sorted({number for own in curves.values() for number in own}):
        cells = [str(number)]
        for own in curves.values():
            cells += _cells(resampled.get(own.get(number, "")))
        for other in others:
            cells += _difference(resampled, curves[first].get(number), curves[other].get(number))
        rows.append(cells)
    columns = ["Pictures", *(c for name in curves for c in (name, "95%"))]
    columns += [c for other in others for c in (f"{first} less {other}", "95%", "p")]
    caption = (
        f"Log loss in nats at {_SIZE}x{_SIZE} by the number of training pictures, with intervals "
        "by bootstrap over the pictures scored. p: paired t test over these pictures on jackknife "
        "pseudo-values, each row by itself."
    )
    tab = table(caption, columns, rows)
    several = next(iter(resampled.values())).pictures > 1
    return tab if several else tab.without("95%", "p")


def _cells(scores: Resampled | None) -> list[str]:
    if scores is None:
        return [EMPTY_CELL, EMPTY_CELL]
    return [decimals(scores.estimate[_SCORE]), limits(scores.intervals()[_SCORE])]


def _difference(resampled: dict[str, Resampled], first: str | None, other: str | None) -> list[str]:
    if first is None or other is None:
        return [EMPTY_CELL] * 3
    pair = {"first": resampled[first], "other": resampled[other]}
    found = compare_with(pair, "other")["first"][_SCORE]
    return [
        decimals(found.interval.estimate, signed=True),
        limits(found.interval, signed=True),
        p_text(found.p),
    ]


def curve_figure(compared: Compared) -> Figure | None:
    """Draw the curves with their intervals; None if there is none."""
    resampled = resampled_at(compared.table, _SIZE)
    curves = {
        name: {number: resampled[own].intervals()[_SCORE] for number, own in points.items()}
        for name, points in curves_of(list(resampled)).items()
    }
    if not curves:
        return None
    return learning_curve(curves, f"log loss at {_SIZE}x{_SIZE} (nats)")
