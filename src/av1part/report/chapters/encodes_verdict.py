"""The first sentence of an encoding comparison: does a learned point pay, and beside what."""

from __future__ import annotations

from collections.abc import Sequence

from av1part.report.encodes import MODEL_FREE, AnchorComparison, PointChange
from av1part.report.render.tables import points, span
from av1part.runs.encodes import Point

_NAMED = 6
"""Points that a sentence names; the table has all."""


def verdict(comparison: AnchorComparison) -> str:
    """Say whether a learned point is undominated, and by what others are.

    Args:
        comparison: All points against one anchor.

    Returns:
        A sentence or a few. Learned points with the anchor's superblock size are meant, where
        there are any; without a learned point, those that need no model.
    """
    anchor = comparison.anchor.name
    learned = [change for change in comparison.points if change.point.kind == "learned"]
    if not learned:
        return _model_free(comparison)
    same = [change for change in learned if change.same_size]
    judged = [change for change in same or learned if comparison.judged(change)]
    prefix = "" if same else f"No learned point has the superblock size of `{anchor}`. "
    if not judged:
        return f"{prefix}Against `{anchor}` no learned point can be judged yet: none has a BD-rate."
    undominated = [change for change in judged if comparison.dominator(change) is None]
    dominated = [change for change in judged if change not in undominated]
    if not undominated:
        return prefix + _all_dominated(comparison, dominated)
    if len(undominated) == 1:
        first = undominated[0]
        text = (
            f"Against `{anchor}`, the learned point `{first.point.name}` "
            f"{'takes' if _slower(comparison, first) else 'saves'} "
            f"{_figures(comparison, first, interval=True)}; no model-free point "
            f"{_superblocks(first.point)} saves as much at as little loss."
        )
    else:
        text = (
            f"Against `{anchor}`, {len(undominated)} of {len(judged)} learned points are "
            f"undominated by model-free points of their superblock size: "
            f"{_list([_named(comparison, change, interval=True) for change in undominated])}."
        )
    if dominated:
        text += f" Dominated: {_by(comparison, dominated)}."
    return prefix + text


def _all_dominated(comparison: AnchorComparison, dominated: Sequence[PointChange]) -> str:
    against = f"against `{comparison.anchor.name}`"
    if len(dominated) == 1:
        return f"The learned point is dominated, {against}: {_by(comparison, dominated)}."
    return f"Every learned point is dominated, {against}: {_by(comparison, dominated)}."


def _model_free(comparison: AnchorComparison) -> str:
    """Say which points that need no model are undominated."""
    anchor = comparison.anchor.name
    free = [c for c in comparison.points if c.point.kind in MODEL_FREE and comparison.judged(c)]
    if not free:
        return f"No preset, switch, baseline or learned point has a BD-rate against `{anchor}` yet."
    undominated = [change for change in free if comparison.dominator(change) is None]
    dominated = [change for change in free if change not in undominated]
    text = "There is no learned point. "
    if undominated:
        best = _list([_named(comparison, change) for change in undominated])
        text += f"Undominated against `{anchor}`, each at its superblock size: {best}."
    else:
        text += f"Against `{anchor}` every other point is dominated."
    return f"{text} Dominated: {_by(comparison, dominated)}." if dominated else text


def _by(comparison: AnchorComparison, dominated: Sequence[PointChange]) -> str:
    """Name dominated points, each with the point that dominates it."""
    groups: dict[str, list[PointChange]] = {}
    for change in dominated:
        rival = comparison.dominator(change)
        assert rival is not None
        groups.setdefault(rival.name, []).append(change)
    texts = []
    for name, changes in groups.items():
        if name == comparison.anchor.name:
            by = f"the anchor `{name}` itself"
        else:
            by = _named(comparison, next(c for c in comparison.points if c.point.name == name))
        texts.append(f"{_list([_named(comparison, change) for change in changes])} by {by}")
    return "; ".join(texts)


def _named(comparison: AnchorComparison, change: PointChange, *, interval: bool = False) -> str:
    return f"`{change.point.name}` ({_figures(comparison, change, interval=interval)})"


def _slower(comparison: AnchorComparison, change: PointChange) -> bool:
    """Return whether a judged point visibly takes longer than the anchor, or more work."""
    return comparison.place(change.point)[0] <= -0.0005


def _figures(comparison: AnchorComparison, change: PointChange, *, interval: bool = False) -> str:
    """Return what a judged point saves and loses."""
    saved, loss = comparison.place(change.point)
    size = f"{100 * abs(saved):.1f} % {'more' if _slower(comparison, change) else 'of'}"
    limits = span(change.loss(), signed=True) if interval and change.loss() else ""
    shown = f" {limits}" if limits.startswith("[") else ""
    return f"{size} {comparison.measure} at {points(loss)} % BD-rate{shown}"


def _superblocks(point: Point) -> str:
    if point.sb_size is None:
        return "that leaves the superblock size to the encoder"
    return f"with superblocks of {point.sb_size}"


def _list(texts: Sequence[str]) -> str:
    """Join texts, the first few by name."""
    rest = len(texts) - _NAMED
    shown = [*texts[:_NAMED], f"{rest} more"] if rest > 1 else list(texts)
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
