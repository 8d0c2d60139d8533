"""The figures of an encoding comparison as rows for other programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from av1part.metrics.intervals import Interval
from av1part.report.encodes import QUALITIES, AnchorComparison, BadClip
from av1part.runs.encodes import Encodes

Row = Mapping[str, Any]


def point_rows(encodes: Encodes, comparisons: Sequence[AnchorComparison]) -> Sequence[Row]:
    """Return all figures of each point against each anchor, for table.csv.

    Args:
        encodes: The folder.
        comparisons: One an anchor.

    Returns:
        A row an anchor and point; savings and losses in percent, None where there is none.
    """
    rows = []
    for comparison in comparisons:
        for change in comparison.points:
            rival = comparison.dominator(change)
            worst = change.worst
            row: dict[str, Any] = {
                "anchor": comparison.anchor.name,
                "point": change.point.name,
                "kind": change.point.kind,
                "cpu_used": change.point.cpu_used,
                "sb_size": change.point.sb_size,
                "same_sb_size": str(change.same_size).lower(),
                "finished": str(encodes.finished).lower(),
                "clips": len(change.clips),
                "encodes": sum(len(clip.levels) for clip in change.clips),
            }
            for measure in ("time", "work"):
                row |= _limits(f"{measure}_saved_percent", change.saved(measure))
            row["inference_percent"] = _percent(change.inference)
            for quality in QUALITIES:
                loss = change.loss(quality) if quality in comparison.qualities else None
                row |= _limits(f"bd_rate_{quality}_percent", loss)
                row[f"bd_rate_{quality}_clips"] = loss.clusters if loss else 0
            ratio = comparison.ratio(change)
            row |= {
                "measure": comparison.measure,
                "ratio": None if ratio is None else round(ratio, 4),
                "worst_clip": worst[0] if worst else None,
                "worst_bd_rate_psnr_y_percent": _percent(worst[1] if worst else None),
                "dominated_by": rival.name if rival else None,
            }
            rows.append(row)
    return rows


def clip_rows(comparisons: Sequence[AnchorComparison]) -> Sequence[Row]:
    """Return what each point saves and loses on each clip, for clips.csv.

    Args:
        comparisons: One an anchor.

    Returns:
        A row an anchor, point and clip, in percent, with the reason where a BD-rate is missing.
    """
    rows = []
    for comparison in comparisons:
        for change in comparison.points:
            for clip in change.clips:
                row: dict[str, Any] = {
                    "anchor": comparison.anchor.name,
                    "point": change.point.name,
                    "clip": clip.clip.name,
                    "content": clip.clip.content,
                    "cq_levels": " ".join(map(str, clip.levels)),
                    "time_saved_percent": _percent(clip.saved("time")),
                    "work_saved_percent": _percent(clip.saved("work")),
                }
                for quality in QUALITIES:
                    loss = clip.loss.get(quality)
                    bad = loss if isinstance(loss, BadClip) else None
                    number = None if isinstance(loss, BadClip) else loss
                    row[f"bd_rate_{quality}_percent"] = _percent(number)
                    row[f"problem_{quality}"] = (
                        f"{bad.curve_of}: {bad.reason.value}" if bad else None
                    )
                rows.append(row)
    return rows


def _limits(name: str, interval: Interval | None) -> Row:
    ends = ("estimate", "low", "high")
    values = [None if interval is None else getattr(interval, end) for end in ends]
    names = (name, f"{name}_low", f"{name}_high")
    return {key: _percent(value) for key, value in zip(names, values, strict=True)}


def _percent(value: float | None) -> float | None:
    return None if value is None else round(100 * value, 6)
