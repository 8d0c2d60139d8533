"""From the rows of an encoding comparison to its figures.

Time saved is 1 - t / t0 of a clip and cq level, t the median over repeats of the encoder's seconds
with those of the inference; it is averaged over cq levels, then over clips. Work likewise, once,
since it is the same in every repeat. BD-rate is a figure a clip, averaged over clips.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from av1part.metrics.bdrate import BadCurve, bd_rate, curve_problem, ssim_decibels
from av1part.report.encodes import (
    QUALITIES,
    AnchorComparison,
    BadClip,
    Change,
    ClipChange,
    PointChange,
    Quality,
)
from av1part.runs.encodes import ROWS_FILE, Encodes, Point
from av1part.system.errors import ReportError


def compare(encodes: Encodes) -> tuple[AnchorComparison, ...]:
    """Compare all points with each anchor of a plan.

    Args:
        encodes: A folder, finished or not: a clip and cq level enters where all repeats of point
            and anchor are there.

    Returns:
        One comparison an anchor, in the plan's order.

    Raises:
        ReportError: if an encode took no time, no work or no bytes.
    """
    table = _complete(encodes)
    qualities: tuple[Quality, ...] = tuple(
        q for q in QUALITIES if q != "vmaf" or (len(table) and not table["vmaf"].null_count())
    )
    cells = {
        (row["point"], row["clip"], row["cq_level"]): row for row in table.iter_rows(named=True)
    }
    comparisons = []
    for name in encodes.anchors:
        anchor = encodes.points[name]
        changes = [
            PointChange(
                point,
                tuple(_clip_changes(encodes, cells, anchor, point, qualities)),
                point.sb_size == anchor.sb_size,
            )
            for point in encodes.points.values()
            if point != anchor
        ]
        changes.sort(key=lambda change: not change.same_size)
        comparisons.append(AnchorComparison(anchor, tuple(changes), qualities))
    return tuple(comparisons)


def repeat_spread(encodes: Encodes) -> float | None:
    """Measure by how much the times of one encode differ.

    Args:
        encodes: A folder.

    Returns:
        Mean over repeated encodes of (largest - smallest) / median; None without repeats that ran
        alone.
    """
    time = pl.col("seconds") + pl.col("inference_seconds")
    alone = encodes.rows.filter(pl.col("jobs") == 1)
    groups = alone.group_by("point", "clip", "cq_level", maintain_order=True).agg(
        n=pl.len(), spread=(time.max() - time.min()) / time.median()
    )
    spreads = groups.filter(pl.col("n") > 1)["spread"]
    return float(np.mean(spreads.to_numpy())) if len(spreads) else None


def _complete(encodes: Encodes) -> pl.DataFrame:
    """Return a row for each point, clip and cq level whose repeats are all there.

    Raises:
        ReportError: if an encode took no time, no work or no bytes.
    """
    time = pl.col("seconds") + pl.col("inference_seconds")
    empty = encodes.rows.filter((time <= 0) | (pl.col("work") < 1) | (pl.col("bytes") < 1))
    if len(empty):
        clip, level, point = empty.row(0)[:3]
        raise ReportError(
            f"{encodes.folder / ROWS_FILE}: the encode of {clip} at cq {level} by {point} took no "
            "time, work or bytes: remove the line and encode again"
        )
    once = ("work", "bytes", "psnr_y", "psnr_u", "psnr_v", "ssim", "vmaf")
    table = encodes.rows.group_by("point", "clip", "cq_level", maintain_order=True).agg(
        repeats=pl.len(),
        time=time.median(),
        inference=pl.col("inference_seconds").median(),
        alone=(pl.col("jobs") == 1).all(),
        **{name: pl.col(name).sort_by("repeat").first() for name in once},
    )
    planned = {name: point.repeats for name, point in encodes.points.items()}
    whole = pl.col("repeats") >= pl.col("point").replace_strict(planned, return_dtype=pl.Int64)
    mean = (6 * pl.col("psnr_y") + pl.col("psnr_u") + pl.col("psnr_v")) / 8
    table = table.filter(whole).with_columns(psnr_611=mean)
    decibels = ssim_decibels(table["ssim"].cast(pl.Float64).fill_null(float("nan")).to_numpy())
    return table.with_columns(ssim=pl.Series(decibels))


def _clip_changes(
    encodes: Encodes,
    cells: Mapping[tuple[str, str, int], Mapping[str, float]],
    anchor: Point,
    point: Point,
    qualities: Sequence[Quality],
) -> list[ClipChange]:
    """Compare a point with an anchor on each clip that has a level complete for both."""
    changes = []
    for clip in encodes.clips.values():
        pairs = {
            level: (cells[anchor.name, clip.name, level], cells[point.name, clip.name, level])
            for level in sorted(encodes.cq_levels)
            if (anchor.name, clip.name, level) in cells and (point.name, clip.name, level) in cells
        }
        if not pairs:
            continue
        levels = {level: _change(*pair) for level, pair in pairs.items()}
        loss: dict[Quality, float | BadClip] = {}
        for quality in qualities:
            stock, other = (
                ([pair[i]["bytes"] for pair in pairs.values()], _values(pairs, i, quality))
                for i in (0, 1)
            )
            rate = bd_rate(*stock, *other)
            if isinstance(rate, BadCurve):
                own = rate is BadCurve.FEW_POINTS or curve_problem(*stock) is None
                loss[quality] = BadClip(point.name if own else anchor.name, rate)
            else:
                loss[quality] = rate
        changes.append(ClipChange(clip, levels, loss))
    return changes


def _values(
    pairs: Mapping[int, tuple[Mapping[str, float], Mapping[str, float]]], i: int, quality: Quality
) -> list[float]:
    values = [pair[i][quality] for pair in pairs.values()]
    return [np.nan if value is None else value for value in values]


def _change(anchor: Mapping[str, float], point: Mapping[str, float]) -> Change:
    alone = anchor["alone"] and point["alone"]
    luma = anchor["psnr_y"], point["psnr_y"]
    return Change(
        1 - point["time"] / anchor["time"] if alone else None,
        point["inference"] / point["time"] if alone else None,
        1 - point["work"] / anchor["work"],
        point["bytes"] / anchor["bytes"] - 1,
        None if None in luma else luma[1] - luma[0],
    )
