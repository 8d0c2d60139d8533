"""The folder of `av1part encode`: its plan, and a row an encode.

plan.json       points, clips and quantisers, what encoded and what predicted
encodes.jsonl   appended to while encodes finish; a line cut short by a kill does not count
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import polars as pl

from av1part.runs.fields import Fields
from av1part.system.errors import ReportError
from av1part.system.files import parse_json
from av1part.system.formats import refusal

PLAN_FILE = "plan.json"
ROWS_FILE = "encodes.jsonl"
FORMAT = 1
"""Version of both files."""
REMEDY = "restore it, or remove the folder and encode again"

Kind = Literal["preset", "switch", "baseline", "oracle", "learned"]
"""What a point is: the encoder's own speed; with further switches; with hints that need no
training; with hints that know the answer; with hints of a trained predictor."""

ROWS = {
    "clip": pl.String,
    "cq_level": pl.Int16,
    "point": pl.String,
    "repeat": pl.Int16,
    "qindex": pl.Int16,
    "bytes": pl.Int64,
    "work": pl.Int64,
    "seconds": pl.Float64,
    "inference_seconds": pl.Float64,
    "psnr_y": pl.Float64,
    "psnr_u": pl.Float64,
    "psnr_v": pl.Float64,
    "ssim": pl.Float64,
    "vmaf": pl.Float64,
    "jobs": pl.Int16,
}
"""Columns of the rows: bytes of all frames without IVF's headers; luma samples searched; user and
system seconds of the encoder; seconds from decoded planes to the hint file; qualities as the mean
over frames, in dB, SSIM as a fraction, null where they are infinite or not measured; encodes that
ran at a time, as seconds count at one alone."""

KEY = ("clip", "cq_level", "point", "repeat")
"""Columns that no two rows share."""

_NULLABLE = ("psnr_y", "psnr_u", "psnr_v", "ssim", "vmaf")


@dataclass(frozen=True)
class Point:
    """One way to encode, compared with the others.

    Attributes:
        name: Its name in the plan.
        kind: See `Kind`.
        cpu_used: aomenc's `--cpu-used`.
        sb_size: aomenc's `--sb-size`; None for the encoder's choice.
        line: Its line in the plan, as text.
        repeats: How often each of its encodes is made.
    """

    name: str
    kind: Kind
    cpu_used: int
    sb_size: int | None
    line: str
    repeats: int = 1


@dataclass(frozen=True)
class Clip:
    """A source of the comparison.

    Attributes:
        name: Its sequence name.
        content: Class of its content, such as `photographs`, `video` or `screen`.
        frames: Frames encoded.
        width: Luma samples.
        height: Luma samples.
        bit_depth: Bits per sample.
    """

    name: str
    content: str
    frames: int
    width: int
    height: int
    bit_depth: int


@dataclass(frozen=True)
class Encodes:
    """What a folder of `av1part encode` holds.

    Attributes:
        folder: The folder.
        facts: plan.json.
        points: By name, in the plan's order.
        clips: By name, sorted.
        cq_levels: aomenc's `--cq-level`, as planned.
        anchors: Points that the others are compared with.
        rows: Columns of `ROWS`, in the order in which the encodes ended.
        planned: Number of rows that a finished folder has.
    """

    folder: Path
    facts: Mapping[str, Any]
    points: Mapping[str, Point]
    clips: Mapping[str, Clip]
    cq_levels: tuple[int, ...]
    anchors: tuple[str, ...]
    rows: pl.DataFrame
    planned: int

    @property
    def finished(self) -> bool:
        """Whether all encodes of the plan have ended."""
        return len(self.rows) >= self.planned


def read_encodes(folder: Path) -> Encodes:
    """Read a folder of `av1part encode`, finished or not.

    Args:
        folder: The folder.

    Returns:
        Its plan and rows.

    Raises:
        ReportError: if a file is missing, damaged, of another format, or contradicts the plan.
    """
    plan = Fields.read(folder / PLAN_FILE)
    if plan.get("format") != FORMAT:
        wrote = plan.get("made_by", "av1part")
        raise ReportError(refusal(str(plan.file), plan.get("format"), FORMAT, wrote, REMEDY))
    try:
        points = {
            name: Point(name, **_of(Point, facts)) for name, facts in plan.data["points"].items()
        }
        clips = {name: Clip(name, **_of(Clip, facts)) for name, facts in plan.data["clips"].items()}
        cq_levels = tuple(int(level) for level in plan.data["cq_levels"])
        anchors = tuple(str(name) for name in plan.data["anchors"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ReportError(f"{plan.file} is damaged ({error}): {REMEDY}") from None
    known = all(point.kind in get_args(Kind) for point in points.values())
    if not (known and points and clips and cq_levels and set(anchors) <= points.keys()):
        raise ReportError(f"{plan.file} is damaged: {REMEDY}")
    rows = pl.DataFrame(read_rows(folder / ROWS_FILE)[0], ROWS, orient="row")
    strange = (
        set(rows["point"]) - points.keys()
        | set(rows["clip"]) - clips.keys()
        | {str(level) for level in set(rows["cq_level"]) - set(cq_levels)}
    )
    if strange:
        raise ReportError(f"{folder / ROWS_FILE} has {min(strange)}, not of its plan: {REMEDY}")
    planned = len(clips) * len(cq_levels) * sum(point.repeats for point in points.values())
    return Encodes(folder, plan.data, points, clips, cq_levels, anchors, rows, planned)


def _of(kind: type, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts that are attributes of a class beside its name."""
    return {name: facts[name] for name in kind.__dataclass_fields__ if name != "name"}  # type: ignore[attr-defined]


def read_rows(file: Path) -> tuple[list[dict[str, Any]], int]:
    """Read the rows of a folder, of which the last may have been cut short by a kill.

    Args:
        file: encodes.jsonl; missing before the first encode.

    Returns:
        The rows, each with all columns of `ROWS`, and the number of bytes that they take.

    Raises:
        ReportError: if a whole line is no row, or one is there twice.
    """
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return [], 0
    except OSError as error:
        raise ReportError(f"{file} cannot be read ({error.strerror})") from None
    end = content.rfind(b"\n") + 1
    rows: list[dict[str, Any]] = []
    keys = set()
    for number, line in enumerate(content[:end].splitlines(), 1):
        try:
            row = parse_json(line)
        except ValueError:
            row = None
        if not _is_row(row):
            raise ReportError(f"{file} has a line that is no row, line {number}: {REMEDY}")
        key = tuple(row[name] for name in KEY)
        if key in keys:
            raise ReportError(f"{file} has the same encode twice, line {number}: {REMEDY}")
        keys.add(key)
        rows.append(row)
    return rows, end


def _is_row(row: Any) -> bool:
    if not isinstance(row, dict) or row.keys() != ROWS.keys():
        return False
    for name, dtype in ROWS.items():
        value = row[name]
        if value is None and name in _NULLABLE:
            continue
        if dtype == pl.String:
            good = isinstance(value, str)
        elif dtype == pl.Float64:
            good = type(value) in (int, float) and math.isfinite(value) and value >= -1
        else:
            good = type(value) is int and 0 <= value < 1 << (15 if dtype == pl.Int16 else 62)
        if not good:
            return False
    return True
