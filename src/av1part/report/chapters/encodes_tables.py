"""Tables of an encoding comparison, for the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from av1part.metrics.intervals import Interval
from av1part.report.encodes import QUALITIES, AnchorComparison, BadClip, PointChange
from av1part.report.render.tables import EMPTY_CELL, Table, percent, points, span, table
from av1part.runs.encodes import Encodes, Point
from av1part.system.files import slug

_LISTED = 60
"""Rows of curves without a BD-rate on the page."""


def named_tables(comparisons: Sequence[AnchorComparison]) -> Mapping[str, Table]:
    """Return the tables that a text quotes, by name.

    Args:
        comparisons: One an anchor.

    Returns:
        `ANCHOR`, savings and losses, and `ANCHOR-qualities`, of each anchor.
    """
    found = {}
    for comparison in comparisons:
        anchor = slug(comparison.anchor.name)
        found[anchor] = savings_table(comparison)
        found[f"{anchor}-qualities"] = qualities_table(comparison)
    return found


def superblocks(point: Point) -> str:
    """Return the size of a point's superblocks in words."""
    return "auto" if point.sb_size is None else str(point.sb_size)


def savings_table(comparison: AnchorComparison) -> Table:
    """Put savings, losses and their ratio side by side, a row a point."""
    changes = comparison.points
    time = [change.saved("time") for change in changes]
    work = [change.saved("work") for change in changes]
    loss = [change.loss() for change in changes]
    timed = any(interval is not None for interval in time)
    lead = time if timed else work
    columns = [
        ("<Point", [change.point.name for change in changes]),
        ("<Kind", [change.point.kind for change in changes]),
        ("SB", [f"{superblocks(c.point)}{'' if c.same_size else ' ≠'}" for c in changes]),
        (f"{'Time' if timed else 'Work'} saved", [_estimate(interval) for interval in lead]),
        ("95%", [span(interval) for interval in lead]),
        *([("Work saved", [_estimate(interval) for interval in work])] if timed else []),
        ("BD-rate", [_signed(interval) for interval in loss]),
        ("95%", [span(interval, signed=True) for interval in loss]),
        ("Ratio", [_ratio(comparison, change) for change in changes]),
        ("<Dominated by", [_dominated(comparison, change) for change in changes]),
    ]
    most = max((len(change.clips) for change in changes), default=0)
    whole = all(interval is not None and interval.clusters == most for interval in loss)
    if not whole:
        columns.append(("Clips", [_clips(change) for change in changes]))
    over = "the one clip" if most == 1 else f"all {most} clips"
    over = over if whole else "the clips that have one (Clips: of those encoded)"
    what = "time (with inference) and work saved" if timed else "work saved"
    caption = (
        f"Each point against `{comparison.anchor.name}`, in percent: {what}; BD-rate at equal "
        f"PSNR-Y, mean over {over}; ratio of {comparison.measure} saved to BD-rate lost. "
        "First the points with the anchor's superblock size (SB), where claims are made; ≠ marks "
        "others. Dominated by: a point that needs no model, of the same superblock size, which "
        "saves at least as much at no more loss."
    )
    if most > 1:
        caption += " Intervals: bootstrap over clips."
    if any(change.inference for change in changes):
        columns.append(("Inference", [percent(change.inference) for change in changes]))
        caption += " Inference: its share of the point's time."
    rows = list(zip(*(cells for _, cells in columns), strict=True))
    tab = table(caption, [title for title, _ in columns], rows)
    return tab if most > 1 else tab.without("95%")


def _dominated(comparison: AnchorComparison, change: PointChange) -> str:
    if change.point.kind == "oracle":
        return "(a bound)"
    if not comparison.judged(change):
        return "(not known)"
    rival = comparison.dominator(change)
    return EMPTY_CELL if rival is None else rival.name


def _ratio(comparison: AnchorComparison, change: PointChange) -> str:
    ratio = comparison.ratio(change)
    if ratio is not None:
        return f"{ratio:.1f}".replace("-", "−")
    gains = comparison.judged(change) and comparison.place(change.point)[0] > 0
    return "no loss" if gains else EMPTY_CELL


def _clips(change: PointChange) -> str:
    loss = change.loss()
    return f"{0 if loss is None else loss.clusters} of {len(change.clips)}"


def _signed(interval: Interval | None) -> str:
    return points(None if interval is None else interval.estimate)


def _estimate(interval: Interval | None) -> str:
    return percent(None if interval is None else interval.estimate)


def qualities_table(comparison: AnchorComparison) -> Table:
    """Put BD-rates by all qualities side by side, with the worst clip."""
    rows = []
    for change in comparison.points:
        cells = [change.point.name]
        for quality in comparison.qualities:
            loss = change.loss(quality)
            cells += [_signed(loss), span(loss, signed=True)]
        worst = change.worst
        cells.append(EMPTY_CELL if worst is None else f"{worst[0]} ({points(worst[1])})")
        rows.append(cells)
    pairs = [title for q in comparison.qualities for title in (QUALITIES[q], "95%")]
    caption = (
        f"BD-rate against `{comparison.anchor.name}` in percent, at equal PSNR of luma, at equal "
        "PSNR 6:1:1, which is (6 Y + U + V) / 8, at equal SSIM of luma in decibels, and at equal "
        "VMAF where all encodes have it. Worst clip: the highest BD-rate by PSNR-Y."
    )
    tab = table(caption, ("<Point", *pairs, "<Worst clip"), rows)
    single = all(len(change.clips) < 2 for change in comparison.points)
    return tab.without("95%") if single else tab


def clip_tables(comparison: AnchorComparison) -> tuple[Table, Table]:
    """Make the tables of what each clip saves and of its BD-rate, a column a clip."""
    names = list(dict.fromkeys(c.clip.name for p in comparison.points for c in p.clips))
    saved, lost = [], []
    for change in comparison.points:
        clips = {c.clip.name: c for c in change.clips}
        known = [clips.get(name) for name in names]
        label = change.point.name
        saved.append(
            (label, *(percent(None if c is None else c.saved(comparison.measure)) for c in known))
        )
        losses = [None if c is None else c.loss["psnr_y"] for c in known]
        lost.append((label, *(points(None if isinstance(x, BadClip) else x) for x in losses)))
    against = f"against `{comparison.anchor.name}`, in percent, clip by clip"
    columns = ("<Point", *names)
    return (
        table(f"{comparison.measure.capitalize()} saved {against}.", columns, saved),
        table(f"BD-rate (PSNR-Y) {against}.", columns, lost),
    )


def content_table(comparison: AnchorComparison) -> Table | None:
    """Average over the clips of each class of content; None where all are of one class."""
    classes = sorted({c.clip.content for p in comparison.points for c in p.clips})
    if len(classes) < 2:
        return None
    rows = []
    for change in comparison.points:
        cells = [change.point.name]
        for content in classes:
            saved = change.saved(comparison.measure, content)
            loss = change.loss("psnr_y", content)
            clips = 0 if loss is None else loss.clusters
            cells += [_estimate(saved), _signed(loss), str(clips)]
        rows.append(cells)
    pairs = [
        title for c in classes for title in (f"{c}: {comparison.measure} saved", "BD-rate", "Clips")
    ]
    caption = (
        f"By class of content, against `{comparison.anchor.name}`, in percent; BD-rate at equal "
        "PSNR-Y, over as many clips as stated."
    )
    return table(caption, ("<Point", *pairs), rows)


def level_table(comparison: AnchorComparison) -> Table:
    """Average savings, bytes and luma PSNR over the clips at each cq level."""
    levels = sorted({level for p in comparison.points for c in p.clips for level in c.levels})
    rows = []
    for change in comparison.points:
        cells = [change.point.name]
        for level in levels:
            changes = change.level(level)
            timed = comparison.measure == "time"
            saved = _average([c.time_saved if timed else c.work_saved for c in changes])
            gain = _average([c.psnr_gain for c in changes])
            more = _average([c.more_bytes for c in changes])
            cells += [percent(saved), points(more), points(gain, scale=1)]
        rows.append(cells)
    triples = [
        title
        for level in levels
        for title in (f"cq {level}: {comparison.measure} saved", "Bytes", "dB")
    ]
    caption = (
        f"By cq level, against `{comparison.anchor.name}`: {comparison.measure} saved and change "
        "in bytes in percent, change of PSNR-Y in dB; means over clips."
    )
    return table(caption, ("<Point", *triples), rows)


def _average(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else None


def bad_table(comparison: AnchorComparison) -> Table | None:
    """List the clips that have no BD-rate; None if all have one."""
    curves: dict[tuple[str, str, str], list[str]] = {}
    for clip, bad, qualities in comparison.bad:
        shown = ", ".join(QUALITIES[quality] for quality in qualities)
        curves.setdefault((clip, shown, bad.reason.value), []).append(bad.curve_of)
    rows = [(clip, ", ".join(of), shown, why) for (clip, shown, why), of in curves.items()]
    more = f" The first {_LISTED} of {len(rows)}; `clips.csv` has all."
    caption = (
        "Curves that cannot be compared, which enter no average; a curve of the anchor "
        f"`{comparison.anchor.name}` leaves its clip out of every average."
        f"{more if len(rows) > _LISTED else ''}"
    )
    columns = ("<Clip", "<Curve of", "<Quality", "<Why it has no BD-rate")
    return table(caption, columns, rows[:_LISTED]) if rows else None


def plan_tables(encodes: Encodes) -> tuple[Table, Table]:
    """Return the points and the clips of a plan."""
    of_points = table(
        "The points of the plan: kind, aomenc's `--cpu-used` and `--sb-size` (auto: its choice).",
        ("<Point", "<Kind", "cpu-used", "SB", "Repeats", "<Line of the plan"),
        [
            (p.name, p.kind, str(p.cpu_used), superblocks(p), str(p.repeats), p.line)
            for p in encodes.points.values()
        ],
    )
    of_clips = table(
        "The clips.",
        ("<Clip", "<Content", "Frames", "Size", "Bit depth"),
        [
            (c.name, c.content, str(c.frames), f"{c.width}x{c.height}", str(c.bit_depth))
            for c in encodes.clips.values()
        ],
    )
    return of_points, of_clips
