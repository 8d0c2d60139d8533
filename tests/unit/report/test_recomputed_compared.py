"""The figures of comparisons of predictors, computed again without any of the project's code.

Every folder of `av1part compare` that is committed under experiments/ is checked, and two that are
made up: scores.json and the tables of the pages follow from the sums in pictures.parquet.
"""

from __future__ import annotations

import csv
import json
import re
from collections import defaultdict
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.stats import ttest_1samp

ROOT = Path(__file__).parents[3]
COMMITTED = sorted(file.parent for file in (ROOT / "experiments").rglob("pictures.parquet"))
SEEDS = {"net-1": 5.0, "net-2": 4.0, "trees-1": 4.3, "trees-2": 4.5, "prior": 0.5}
CURVE = {"net_13": 4.0, "net_25": 6.0, "trees_13": 3.0, "trees_25": 3.5}


@pytest.fixture(params=["seeds", "curve", *COMMITTED], ids=str)
def folder(request: pytest.FixtureRequest, compared_examples: ModuleType, tmp_path: Path) -> Path:
    if isinstance(request.param, Path):
        return request.param
    names = SEEDS if request.param == "seeds" else CURVE
    made = compared_examples.write_compared_example(tmp_path / "x/made", sharpness=names)
    return Path(made)


def macro_f1(matrix: np.ndarray) -> float:
    hit, total = np.diag(matrix), matrix.sum(0) + matrix.sum(1)
    return float((2 * hit[total > 0] / total[total > 0]).mean())


def summed(rows: pl.DataFrame, column: str) -> np.ndarray:
    return np.sum([np.array(cell) for cell in rows[column].to_list()], 0)


def scores(rows: pl.DataFrame) -> dict[str, float]:
    nodes = rows["nodes"].sum()
    matrix = summed(rows, "confusion").reshape(10, 10)
    found = {
        "log_loss": rows["log_loss"].sum() / nodes,
        "accuracy": np.trace(matrix) / nodes,
        "macro_f1": macro_f1(matrix),
        "top_2": summed(rows, "ranks")[:2].sum() / nodes,
        "top_3": summed(rows, "ranks")[:3].sum() / nodes,
    }
    for i, tau in enumerate(("0.80", "0.90", "0.95", "0.99")):
        found[f"coverage_{tau}"] = summed(rows, "covered")[i] / nodes
        found[f"set_size_{tau}"] = summed(rows, "set_size")[i] / nodes
    off = np.abs(summed(rows, "bin_confidence") - summed(rows, "bin_correct"))
    return found | {"calibration_error": off.sum() / nodes}


def stage2(rows: pl.DataFrame, column: str) -> dict[str, float]:
    matrix = summed(rows.drop_nulls(column), column).reshape(3, 3)
    return {"macro_f1": macro_f1(matrix), "accuracy": np.trace(matrix) / matrix.sum()}


def by_name(table: pl.DataFrame, size: int) -> dict[str, pl.DataFrame]:
    rows = table.filter(size=size)
    return {name: rows.filter(predictor=name) for name in rows["predictor"].unique().to_list()}


def told(folder: Path, name: str) -> dict[str, dict[str, str]]:
    """Return the rows of a table by their first cell; of columns with one title the first."""
    with (folder / f"tables/{name}.csv").open() as file:
        titles, *rows = list(csv.reader(file))
    return {row[0]: dict(reversed([*zip(titles, row, strict=True)])) for row in rows}


def drawn(folder: Path, tool: ModuleType, tmp_path: Path) -> Path:
    """Copy a folder and have its tables made."""
    copy = tmp_path / "copy" / folder.name
    copy.mkdir(parents=True)
    for file in ("scores.json", "pictures.parquet"):
        (copy / file).write_bytes((folder / file).read_bytes())
    tool.report(tmp_path / "copy", None)
    return copy


def test_the_record_follows_from_the_pictures(folder: Path) -> None:
    record = json.loads((folder / "scores.json").read_text())
    table = pl.read_parquet(folder / "pictures.parquet")
    against = record["against"]
    for size, of_size in record["sizes"].items():
        own = {name: scores(rows) for name, rows in by_name(table, int(size)).items()}
        assert set(own) == set(of_size["predictors"])
        for name, each in of_size["predictors"].items():
            for score, value in own[name].items():
                said = each["scores"][score]["estimate"]
                assert said == pytest.approx(value, abs=2e-6), (size, name, score)
                if name != against and against in own:
                    less = each["difference"][score]["estimate"]
                    assert less == pytest.approx(value - own[against][score], abs=3e-6)
    rows = by_name(table, 16)
    for name, decisions in record.get("stage2", {"predictors": {}})["predictors"].items():
        for decision, each in decisions.items():
            for score, value in stage2(rows[name], f"stage2_{decision}").items():
                assert each["scores"][score]["estimate"] == pytest.approx(value, abs=2e-6)


def seeds(table: pl.DataFrame, size: int) -> dict[str, list[pl.DataFrame]]:
    groups: dict[str, list[pl.DataFrame]] = defaultdict(list)
    for name, rows in sorted(by_name(table, size).items()):
        if found := re.fullmatch(r"(.+)-\d+", name):
            groups[found[1]].append(rows)
    return {name: own for name, own in groups.items() if len(own) > 1}


def number(cell: str) -> float:
    return float(cell.replace("−", "-"))


def mean_loss(members: list[pl.DataFrame]) -> float:
    return float(np.mean([rows["log_loss"].sum() / rows["nodes"].sum() for rows in members]))


def holm(p: dict[str, float]) -> dict[str, float]:
    """Multiply the least p by their number, the next by one less, ..., never falling."""
    corrected, last = {}, 0.0
    for left, name in zip(range(len(p), 0, -1), sorted(p, key=p.__getitem__), strict=True):
        last = corrected[name] = min(1.0, max(last, left * p[name]))
    return corrected


def contributions(own: list[pl.DataFrame], other: list[pl.DataFrame]) -> list[float]:
    """Return the jackknife's pseudo-values of the difference in mean log loss, a picture each."""

    def less(picture: str | None) -> float:
        kept = [[r.filter(pl.col("picture") != (picture or "")) for r in s] for s in (own, other)]
        return mean_loss(kept[0]) - mean_loss(kept[1])

    pictures = sorted(own[0]["picture"].unique())
    g = len(pictures)
    return [g * less(None) - (g - 1) * less(picture) for picture in pictures]


def test_means_over_seeds_follow_from_the_pictures(
    folder: Path, experiments_tool: ModuleType, tmp_path: Path
) -> None:
    record = json.loads((folder / "scores.json").read_text())
    table = pl.read_parquet(folder / "pictures.parquet")
    copy = drawn(folder, experiments_tool, tmp_path)
    for size in record["sizes"]:
        groups = seeds(table, int(size))
        if not groups:
            assert not (copy / f"tables/seeds-{size}.csv").exists()
            continue
        rows = told(copy, f"seeds-{size}")
        assert not any(re.fullmatch(r".+-\d+", name) for name in rows)
        for name, members in groups.items():
            each = [scores(member) for member in members]
            losses, hits = ([score[key] for score in each] for key in ("log_loss", "accuracy"))
            assert int(rows[name]["Seeds"]) == len(members)
            of_all = told(copy, "sizes")[name]
            assert of_all[f"{size}: log loss"] == rows[name]["Log loss"]
            assert of_all[f"{size}: accuracy"] == rows[name]["Accuracy"]
            assert number(rows[name]["Log loss"]) == pytest.approx(np.mean(losses), abs=6e-5)
            assert number(rows[name]["Accuracy"]) == pytest.approx(100 * np.mean(hits), abs=6e-3)
        reference = record["against"].rpartition("-")[0]
        if reference not in groups:
            continue
        less = told(copy, f"seeds-differences-{size}")
        alone = {n: [rows] for n, rows in by_name(table, int(size)).items() if n in less}
        values = {n: contributions((groups | alone)[n], groups[reference]) for n in less}
        corrected = holm({n: float(ttest_1samp(own, 0).pvalue) for n, own in values.items()})
        for name, row in less.items():
            assert number(row["Log loss"]) == pytest.approx(
                mean_loss((groups | alone)[name]) - mean_loss(groups[reference]), abs=6e-5
            )
            if row["p"] == "< 0.0001":
                assert corrected[name] < 1e-4
            else:
                assert number(row["p"]) == pytest.approx(corrected[name], abs=6e-5)
    for decision, name in (("argmax", "argmax"), ("weighted", "weights")):
        groups = seeds(table, 16)
        if not groups or not (copy / f"tables/seeds-stage2-{name}.csv").exists():
            continue
        rows = told(copy, f"seeds-stage2-{name}")
        for group, members in groups.items():
            f1 = [stage2(member, f"stage2_{decision}")["macro_f1"] for member in members]
            assert number(rows[group]["Macro-F1"]) == pytest.approx(100 * np.mean(f1), abs=6e-3)


def test_the_learning_curve_follows_from_the_pictures(
    folder: Path, experiments_tool: ModuleType, tmp_path: Path
) -> None:
    table = pl.read_parquet(folder / "pictures.parquet")
    copy = drawn(folder, experiments_tool, tmp_path)
    points = {
        (found[1], found[2]): rows
        for name, rows in by_name(table, 16).items()
        if (found := re.fullmatch(r"(.+)_(\d+)", name))
    }
    assert (copy / "figures/learning-curve.svg").exists() == bool(points)
    if points:
        rows = told(copy, "learning-curve")
        for (name, count), own in points.items():
            said = number(rows[count][name])
            assert said == pytest.approx(scores(own)["log_loss"], abs=6e-5)


def test_a_page_shows_cells_of_a_comparison(
    compared_examples: ModuleType, experiments_tool: ModuleType, tmp_path: Path
) -> None:
    folder = compared_examples.write_compared_example(tmp_path / "e/x/gb82-a", sharpness=SEEDS)
    page = tmp_path / "e/x/README.md"
    page.write_text(
        "<!-- gb82-a/scores-16 net-1 Log loss --><!-- end -->\n"
        "<!-- table gb82-a/seeds-stage2-weights --><!-- end -->\n"
    )
    experiments_tool.report(tmp_path / "e", tmp_path / "pages")
    record = json.loads((folder / "scores.json").read_text())
    loss = record["sizes"]["16"]["predictors"]["net-1"]["scores"]["log_loss"]["estimate"]
    text = page.read_text()
    assert f"-->{loss:.4f}<!--" in text
    assert re.search(r"\| net +\| +2 \|", text)
    assert {each.name for each in folder.iterdir()} == {
        *("scores.json", "pictures.parquet", "tables", "figures")
    }
    assert (folder / "figures/reliability.svg").is_file()
    assert "Over seeds" in (tmp_path / "pages/x/gb82-a/report.html").read_text()


def test_other_names_have_no_seeds_and_no_curve(
    compared_examples: ModuleType, experiments_tool: ModuleType, tmp_path: Path
) -> None:
    folder = compared_examples.write_compared_example(tmp_path / "x/plain")
    tables: dict[str, Any] = experiments_tool.write_compared(folder)
    assert not [name for name in tables if name.startswith(("seeds", "learning"))]
    assert not (folder / "figures/learning-curve.svg").exists()
