"""The figures of a comparison, computed again from its rows without any of the project's code.

Every folder of encodes that is committed under experiments/ is checked, and one that is made up.
"""

from __future__ import annotations

import csv
import json
import math
from collections import defaultdict
from pathlib import Path
from statistics import mean, median
from types import ModuleType
from typing import Any

import bjontegaard
import pytest

from av1part.report import write_encodes_report

ROOT = Path(__file__).parents[3]
COMMITTED = sorted(plan.parent for plan in (ROOT / "experiments").rglob("plan.json"))

Rows = dict[tuple[str, str], dict[int, list[dict[str, Any]]]]
"""Repeats by point, clip and cq level."""


@pytest.fixture
def made_up(encodes_examples: ModuleType, tmp_path: Path) -> Path:
    points, clips = encodes_examples.CLAIM, encodes_examples.clips(5, "photographs", "video")
    rows = list(encodes_examples.rows(points, list(clips), noise=0.05, vmaf=True))
    anchors = ("cpu0", "cpu1_sb64")
    return Path(encodes_examples.write_encodes(tmp_path / "made", points, clips, rows, anchors))


def quality(row: dict[str, Any], name: str) -> float:
    if name == "psnr_611":
        return (6 * row["psnr_y"] + row["psnr_u"] + row["psnr_v"]) / 8
    if name == "ssim":
        return -10 * math.log10(1 - row["ssim"])
    return float(row[name])


def seconds(repeats: list[dict[str, Any]]) -> float:
    return median(row["seconds"] + row["inference_seconds"] for row in repeats)


def curve(levels: dict[int, list[dict[str, Any]]], name: str) -> tuple[list[int], list[float]]:
    """Return bytes and qualities, worst quality first."""
    rows = [levels[level][0] for level in sorted(levels, reverse=True)]
    return [row["bytes"] for row in rows], [quality(row, name) for row in rows]


def check(folder: Path, out: Path) -> None:
    """Compare table.csv with what the rows say."""
    rows: Rows = defaultdict(lambda: defaultdict(list))
    for line in (folder / "encodes.jsonl").read_text().splitlines():
        row = json.loads(line)
        rows[row["point"], row["clip"]][row["cq_level"]].append(row)
    clips = sorted({clip for _, clip in rows})
    write_encodes_report(folder, out)
    with (out / "clips.csv").open() as file:
        bad = {
            (r["anchor"], r["point"], r["clip"], name)
            for r in csv.DictReader(file)
            for name in ("psnr_y", "psnr_611", "ssim", "vmaf")
            if r[f"problem_{name}"]
        }
    with (out / "table.csv").open() as file:
        table = list(csv.DictReader(file))
    assert table
    for line in table:
        assert line["finished"] == "true"
        pairs = [(rows[line["anchor"], clip], rows[line["point"], clip]) for clip in clips]
        alone = all(r["jobs"] == 1 for pair in pairs for x in pair for y in x.values() for r in y)
        assert bool(line["time_saved_percent"]) == alone
        if alone:
            time = mean(mean(1 - seconds(b[q]) / seconds(a[q]) for q in a) for a, b in pairs)
            assert float(line["time_saved_percent"]) == pytest.approx(100 * time, abs=1e-4)
        work = mean(mean(1 - b[q][0]["work"] / a[q][0]["work"] for q in a) for a, b in pairs)
        assert float(line["work_saved_percent"]) == pytest.approx(100 * work, abs=1e-4)
        for name in ("psnr_y", "psnr_611", "ssim", "vmaf"):
            if not line[f"bd_rate_{name}_percent"]:
                continue
            losses = [
                bjontegaard.bd_rate(*curve(a, name), *curve(b, name), method="pchip", min_overlap=0)
                for clip, (a, b) in zip(clips, pairs, strict=True)
                if (line["anchor"], line["point"], clip, name) not in bad
            ]
            assert int(line[f"bd_rate_{name}_clips"]) == len(losses)
            assert float(line[f"bd_rate_{name}_percent"]) == pytest.approx(mean(losses), abs=0.01)


@pytest.mark.parametrize("folder", [None, *COMMITTED], ids=lambda x: x.name if x else "made up")
def test_figures_follow_from_the_rows(folder: Path | None, made_up: Path, tmp_path: Path) -> None:
    check(folder or made_up, tmp_path / "out")
