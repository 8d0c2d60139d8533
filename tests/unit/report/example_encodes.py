"""Folders of `av1part encode`, made in a moment from a rate-distortion model.

A clip's luma PSNR falls by 0.22 dB a cq level, its bytes by 6 %. A point has factors on bytes,
time and work, and a shift of all qualities, to which noise of the clip can be added.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

LEVELS = (20, 32, 43, 55)


@dataclass(frozen=True)
class Example:
    """A point: its plan's facts, and what it does to time, work and bytes."""

    kind: str
    time: float
    work: float
    size: float
    cpu_used: int = 0
    sb_size: int | None = None
    repeats: int = 1


def clips(number: int, *contents: str) -> dict[str, dict[str, Any]]:
    """Return clips named clip0, clip1, ... of the contents in turn."""
    contents = contents or ("photographs",)
    facts = {"frames": 1, "width": 512, "height": 384, "bit_depth": 8}
    return {f"clip{i}": {"content": contents[i % len(contents)], **facts} for i in range(number)}


def rows(
    points: Mapping[str, Example],
    clip_names: Sequence[str],
    levels: Sequence[int] = LEVELS,
    *,
    noise: float = 0.0,
    jobs: int = 1,
    vmaf: bool = False,
) -> Iterator[dict[str, Any]]:
    """Yield the rows of a finished folder: clip, cq level, then points with their repeats."""
    draws = np.random.default_rng(7)
    for index, clip in enumerate(clip_names):
        own = {name: 1 + noise * draws.standard_normal(3) for name in points}
        for level in levels:
            for name, point in points.items():
                for repeat in range(point.repeats):
                    psnr = 52 - 0.22 * level - index
                    seconds = 100 * point.time * (1 + (own[name][0] - 1)) * 0.97 ** (level - 20)
                    yield {
                        "clip": clip,
                        "cq_level": level,
                        "point": name,
                        "repeat": repeat,
                        "qindex": 4 * level,
                        "bytes": round(
                            4e6 * 0.94**level * (1 + (point.size - 1) * own[name][1] ** 2)
                        ),
                        "work": round(1e8 * point.work * (1 + (own[name][2] - 1) / 2)),
                        "seconds": seconds,
                        "inference_seconds": 0.5 if point.kind == "learned" else 0.0,
                        "psnr_y": psnr,
                        "psnr_u": psnr + 2,
                        "psnr_v": psnr + 3,
                        "ssim": 1 - 10 ** (-psnr / 20),
                        "vmaf": psnr * 2 if vmaf else None,
                        "jobs": jobs,
                    }


def write_encodes(
    folder: Path,
    points: Mapping[str, Example],
    clip_facts: Mapping[str, Mapping[str, Any]],
    lines: Sequence[Mapping[str, Any]],
    anchors: Sequence[str] = ("cpu0",),
    levels: Sequence[int] = LEVELS,
) -> Path:
    """Write plan.json and encodes.jsonl; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    plan = {
        "format": 1,
        "made_by": "av1part 0.1.0",
        "encoder": {"version": "3.6.0"},
        "points": {
            name: {
                "kind": point.kind,
                "cpu_used": point.cpu_used,
                "sb_size": point.sb_size,
                "line": f"cpu_used={point.cpu_used}",
                "repeats": point.repeats,
            }
            for name, point in points.items()
        },
        "clips": clip_facts,
        "cq_levels": list(levels),
        "anchors": list(anchors),
    }
    (folder / "plan.json").write_text(json.dumps(plan))
    (folder / "encodes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


CLAIM = {
    "cpu0": Example("preset", 1.0, 1.0, 1.0),
    "cpu1": Example("preset", 0.55, 0.58, 1.006, 1),
    "cpu2": Example("preset", 0.46, 0.52, 1.0095, 2),
    "cpu3": Example("preset", 0.30, 0.36, 1.034, 3),
    "cpu0_sb64": Example("preset", 0.92, 0.93, 0.998, 0, 64),
    "cpu1_sb64": Example("preset", 0.50, 0.53, 1.004, 1, 64),
    "cpu2_sb64": Example("preset", 0.43, 0.478, 1.0094, 2, 64),
    "cpu3_sb64": Example("preset", 0.28, 0.34, 1.033, 3, 64),
    "cpu1_no_1to4": Example("switch", 0.44, 0.45, 1.013, 1, 64),
    "cpu1_no_ab": Example("baseline", 0.46, 0.48, 1.009, 1, 64),
    "cpu1_oracle": Example("oracle", 0.21, 0.17, 1.0048, 1, 64),
    "cpu1_variance_95": Example("baseline", 0.485, 0.51, 1.0075, 1, 64),
    "cpu1_variance_90": Example("baseline", 0.47, 0.49, 1.0115, 1, 64),
    "cpu1_variance_80": Example("baseline", 0.43, 0.45, 1.021, 1, 64),
    "cpu1_model_95": Example("learned", 0.435, 0.454, 1.0071, 1, 64),
    "cpu1_model_90": Example("learned", 0.395, 0.404, 1.0074, 1, 64),
    "cpu1_model_80": Example("learned", 0.335, 0.33, 1.0108, 1, 64),
    "cpu1_random_90": Example("baseline", 0.40, 0.405, 1.045, 1, 64),
}
"""Points as they may come out of a claim, against which the page and the plot are looked at."""
