"""Runs and sweeps that are judged by log loss: less is better, in ranks, signs and words."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
import pytest

from av1part.report import write_report
from av1part.report.chapters.sweep import sweep_verdict
from av1part.report.chapters.thesis import thesis_chapter
from av1part.report.render.document import Prose
from av1part.report.sweep import load_sweep
from av1part.system.errors import ReportError

SEEDS = (0, 1, 2)
PRIOR, TREES = 1.5, 1.3
# The variant of the least log loss has the least macro-F1.
LOSSES = {"base": (1.40, 1.41, 1.39), "good": (1.10, 1.12, 1.09), "bad": (1.80, 1.78, 1.81)}
SKILLS = {"base": 1.0, "good": 0.3, "bad": 1.8}


def interval(estimate: float) -> dict[str, Any]:
    return {"estimate": estimate, "low": estimate - 0.15, "high": estimate + 0.15}


def losses(value: float, *, trees: bool) -> dict[str, Any]:
    """What metrics.json has of a log loss."""
    margins = {"value": interval(value), "margin_prior": interval(value - PRIOR)}
    if trees:
        margins["margin_trees"] = interval(value - TREES)
    return margins


def judged_by_loss(folder: Path, value: float, *, trees: bool) -> None:
    """Make a run one of a superblock network, with this log loss over two sizes."""
    file = folder / "metrics.json"
    metrics = json.loads(file.read_text())
    beside = dict(metrics["baselines"])
    if trees:
        beside["trees"] = {**beside["prior"], "per_class": metrics["per_class"], "macro_f1": 0.25}
    for name, loss in (("prior", PRIOR), *((("trees", TREES),) if trees else ())):
        beside[name] = {**beside[name], "log_loss": loss}
    own = {
        "log_loss": value,
        "baselines": beside,
        "intervals": {**metrics["intervals"], "log_loss": losses(value, trees=trees)},
    }
    kept = {key: metrics[key] for key in ("accuracy", "macro_f1")}
    sizes = {size: {**kept, **own, "nodes": 100} for size in ("8", "64")}
    file.write_text(json.dumps({**metrics, **own, "by_size": sizes}))
    history = pl.read_csv(folder / "history.csv")
    curve = value + 0.1 * np.abs(history["epoch"].to_numpy() - metrics["epoch"])
    history.with_columns(log_loss=pl.Series(curve)).write_csv(folder / "history.csv")


def made(examples: ModuleType, folder: Path, *, trees: bool = True) -> Path:
    jobs = []
    for variant, values in LOSSES.items():
        for seed, value in zip(SEEDS, values, strict=True):
            place = f"{variant}/seed-{seed}"
            examples.write_stage_run(folder / place, seed=seed, skill=SKILLS[variant])
            judged_by_loss(folder / place, value, trees=trees)
            jobs.append({"folder": place, "variant": variant, "member": f"seed-{seed}"})
    record = {"format": 1, "experiment": "exp", "baseline": "base", "jobs": jobs}
    (folder / "sweep.json").write_text(json.dumps(record))
    return folder


def rows_of(file: Path) -> Mapping[str, list[str]]:
    with file.open() as opened:
        return {row[0]: row for row in csv.reader(opened) if row[0]}


def test_variants_are_ranked_and_tested_by_log_loss(examples: ModuleType, tmp_path: Path) -> None:
    folder = made(examples, tmp_path / "sweep")
    sweep = load_sweep(folder)
    assert sweep.by_log_loss
    assert [variant.name for variant in sweep.variants] == ["good", "base", "bad"]
    assert sweep.is_better(sweep.differences["good"])
    assert not sweep.is_better(sweep.differences["bad"])
    verdict = sweep_verdict(sweep)
    assert "`good` has the best mean, log loss 1.103 nats (less is better)" in verdict
    assert "Significantly better than `base`, in nats: `good` (−0.297)" in verdict
    assert "Significantly worse than `base`, in nats: `bad` (+0.397)" in verdict

    files = write_report([folder], tmp_path / "page")
    rows = rows_of(tmp_path / "page/tables/log-loss.csv")
    assert list(rows) == ["Variant", "good", "base", "bad"]
    differences = np.array(LOSSES["good"]) - np.array(LOSSES["base"])
    half = 4.302653 * differences.std(ddof=1) / 3**0.5
    mean = differences.mean()
    good = dict(zip(rows["Variant"], rows["good"], strict=True))
    assert good["Log loss"] == f"{np.mean(LOSSES['good']):.3f}"
    assert (good["Prior"], good["Trees"]) == ("1.500", "1.300")
    assert rows["good"][7] == f"{np.mean(LOSSES['good']) - TREES:+.3f}"
    assert good["Difference"] == f"{mean:+.3f}"
    assert rows["good"][10] == f"[{mean - half:+.3f}, {mean + half:+.3f}]"
    assert good["Significant"] == "yes"
    # Macro-F1 stands beside it, with its own differences and signs.
    f1 = rows_of(tmp_path / "page/tables/comparison.csv")
    by_f1 = {name: float(f1[name][2]) for name in LOSSES}
    assert by_f1["bad"] > by_f1["base"] > by_f1["good"]
    assert f1["bad"][f1["Variant"].index("Difference")].startswith("+")
    text = files.html.read_text()
    assert "Best variant <code>good</code>: log loss is 1.103 nats" in text
    assert "0.397 below the class prior" in text
    assert "0.197 below the boosted trees" in text
    course = rows_of(tmp_path / "page/tables/course-log-loss.csv")
    assert course["good"][1:5] == ["1.103", "1.203", "+0.100", "1.503"]
    pictures = rows_of(tmp_path / "page/tables/pictures-log-loss.csv")
    assert pictures["good (seed-0)"][2:4] == ["1.100", "[0.950, 1.250]"]
    written = thesis_chapter(sweep).sections[0].items[0]
    assert isinstance(written, Prose)
    assert "lowest log loss on the validation split was kept" in written.text


def test_a_run_is_shown_size_by_size(examples: ModuleType, tmp_path: Path) -> None:
    run = examples.write_stage_run(tmp_path / "run", seed=1)
    judged_by_loss(run, 1.2, trees=True)
    page = write_report([run], tmp_path / "page").markdown.read_text()
    assert "**Log loss is 1.200 nats (less is better)" in page
    assert "0.300 below the class prior's 1.500" in page
    assert "0.100 below the boosted trees' 1.300" in page
    assert "[−0.250, +0.050], which contains zero" in page
    for size in ("64x64", "8x8"):
        assert f"| {size} " in page
    assert "mean of the sizes" in page
    again = examples.write_stage_run(tmp_path / "again", seed=2)
    judged_by_loss(again, 1.6, trees=False)
    both = write_report([run, again], tmp_path / "both").markdown.read_text()
    rows = [line for line in both.splitlines() if line.startswith("| again ")]
    assert "1.600" in rows[0]
    assert "+0.100" in rows[0]


def test_without_trees_there_are_no_columns_of_them(examples: ModuleType, tmp_path: Path) -> None:
    folder = made(examples, tmp_path / "sweep", trees=False)
    write_report([folder], tmp_path / "page")
    for name in ("log-loss", "sizes", "comparison", "pictures", "pictures-log-loss"):
        header = rows_of(tmp_path / f"page/tables/{name}.csv")["Variant"]
        assert not [title for title in header if "rees" in title], name


def test_what_lacks_a_figure_is_one_line(examples: ModuleType, tmp_path: Path) -> None:
    run = examples.write_stage_run(tmp_path / "run", seed=1)
    judged_by_loss(run, 1.2, trees=True)
    file = run / "metrics.json"
    metrics = json.loads(file.read_text())
    del metrics["by_size"]["8"]["log_loss"]
    file.write_text(json.dumps(metrics))
    with pytest.raises(ReportError, match=r"lacks `by_size\.8\.log_loss`"):
        write_report([run], tmp_path / "page")
    del metrics["baselines"]["prior"]["log_loss"]  # as runs before there was one beside it
    file.write_text(json.dumps(metrics))
    page = write_report([run], tmp_path / "page").markdown.read_text()
    assert "**Macro-F1 is" in page
