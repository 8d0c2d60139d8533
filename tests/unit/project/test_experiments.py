"""What experiments/ says follows from the files beside it, counted here in another way."""

from __future__ import annotations

import csv
import json
import re
import shutil
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import numpy as np
import polars as pl
import pytest

from av1part.data.store.splits import read_split_list
from av1part.partition import Partition
from av1part.report.chapters.sweep import sweep_tables
from av1part.report.render.csv import table_csv
from av1part.report.render.tables import table
from av1part.report.sweep import load_sweep
from av1part.system.errors import ConfigError, ReportError

from ...conftest import load_file

ROOT = Path(__file__).resolve().parents[3] / "experiments"
PUBLISHED = sorted(file.parent for file in ROOT.rglob("runs.jsonl"))
LOCK = (ROOT.parent / "requirements.lock").read_text()
SAME_MATPLOTLIB = f"\nmatplotlib=={version('matplotlib')} " in LOCK
QUICK = ("qindex", "leak")
"""Pages that are made again in seconds; the others take minutes in all."""
PAGES = sorted(file for file in ROOT.rglob("README.md") if file.parent != ROOT)


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "runs.jsonl").read_text().splitlines()]


def cells(text: str) -> dict[str, dict[str, str]]:
    return {row["Variant"]: row for row in csv.DictReader(text.splitlines())}


def macro_f1(prediction: np.ndarray, label: np.ndarray) -> float:
    """Macro-F1 from its definition, without the project's code."""
    scores = []
    for c in range(int(label.max()) + 1):
        hit = int(((prediction == c) & (label == c)).sum())
        wrong = int((prediction == c).sum() + (label == c).sum()) - 2 * hit
        scores.append(2 * hit / (2 * hit + wrong))
    return float(np.mean(scores))


def name(folder: Path) -> str:
    return folder.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("folder", PUBLISHED, ids=name)
def test_means_are_those_of_the_predictions(folder: Path) -> None:
    file = folder / "predictions.parquet"
    if not file.is_file():
        pytest.skip(f"{name(folder)}: the predictions may not be passed on")
    said = pl.read_parquet(file).with_columns(pl.col("folder").cast(pl.String))
    scores: dict[str, list[float]] = {}
    for (place,), nodes in said.group_by("folder", maintain_order=True):
        variant = str(place).partition("/")[0]
        score = macro_f1(nodes["prediction"].to_numpy(), nodes["label"].to_numpy())
        scores.setdefault(variant, []).append(score)
    told = cells(table_csv(sweep_tables(load_sweep(folder))["comparison"]))
    assert set(scores) == set(told)
    for variant, values in scores.items():
        assert float(told[variant]["Macro-F1"]) == pytest.approx(100 * np.mean(values), abs=0.0051)
        assert int(told[variant]["n"]) == len(values)


@pytest.mark.parametrize("folder", PUBLISHED, ids=name)
def test_each_result_says_what_made_it(folder: Path) -> None:
    for line in lines(folder):
        assert re.fullmatch(r"[0-9a-f]{40}", line["git_commit"]), "made from uncommitted code"
        assert re.fullmatch(r"[0-9a-f]{64}", line["config_sha256"])
        assert re.fullmatch(r"[0-9a-f]{64}", line["dataset_sha256"])
        assert not re.search(r'"/(?!/)', json.dumps(line)), "a path of the machine"


def quoted_by(page: Path) -> set[Path]:
    """Folders of the results that a page quotes: they are in its marks."""
    places = re.findall(r"<!-- (?:table )?([\w/-]+/[\w-]+)", page.read_text())
    folders = {ROOT / place.rpartition("/")[0] for place in places}
    return {folder for folder in folders if folder.is_dir()}


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(
            p, marks=[] if name(p.parent) in QUICK else pytest.mark.slow, id=name(p.parent)
        )
        for p in PAGES
    ],
)
def test_a_page_is_what_the_tool_makes_of_the_results(
    page: Path, experiments_tool: ModuleType, tmp_path: Path
) -> None:
    copy = tmp_path / "experiments"
    results = shutil.ignore_patterns("tables", "figures")  # built, perhaps long ago
    shutil.copytree(page.parent, copy / name(page.parent), ignore=results)
    for folder in quoted_by(page):
        if not folder.is_relative_to(page.parent):
            shutil.copytree(folder, copy / name(folder), ignore=results)
    experiments_tool.report(copy, None)
    again = copy / name(page.parent)
    assert (again / "README.md").read_text() == page.read_text(), "make experiments-report"
    links = re.findall(r"\]\(([\w./-]*(?:tables|figures)/[\w.-]+)\)", page.read_text())
    for link in links:
        assert (again / link).is_file(), f"{page} links to {link}, which is not made"
    for shown in re.findall(r"!\[[^]]*\]\(([^)]+)\)", page.read_text()):
        if SAME_MATPLOTLIB:  # another draws the same figure in other bytes
            assert (page.parent / shown).read_bytes() == (again / shown).read_bytes(), shown
    if any(folder.is_relative_to(page.parent) for folder in PUBLISHED):
        assert "<!-- table " in page.read_text(), "a page shows a table of its results"


@pytest.mark.slow
def test_a_chapter_quotes_what_the_results_say(
    experiments_tool: ModuleType, tmp_path: Path
) -> None:
    for page in experiments_tool.CHAPTERS:
        results = shutil.ignore_patterns("tables", "figures")
        for folder in quoted_by(page):
            shutil.copytree(folder, tmp_path / "experiments" / name(folder), ignore=results)
        again = Path(shutil.copy(page, tmp_path))
        experiments_tool.report(tmp_path / "experiments", None, [again])
        assert again.read_text() == page.read_text(), "make experiments-report"


def test_a_chapter_is_filled_from_any_experiment(
    experiments_tool: ModuleType, tmp_path: Path
) -> None:
    folder = tmp_path / "experiments/x"
    folder.mkdir(parents=True)
    (folder / "scores.csv").write_text(
        "variant,member,macro_f1\na,x,0.4\na,y,0.4\nb,x,0.43\nb,y,0.43\n"
    )
    page = tmp_path / "page.md"
    page.write_text("<!-- x/scores b macro F1 --><!-- end -->")
    experiments_tool.report(tmp_path / "experiments", None, [page])
    assert page.read_text() == "<!-- x/scores b macro F1 -->43.00 ± 0.00<!-- end -->"


def test_a_meta_test_that_was_opened_and_not_scored_is_one_line(
    experiments_tool: ModuleType, tmp_path: Path
) -> None:
    file = tmp_path / "score.json"
    file.write_text(json.dumps({"opened": [{"at": "2026-11-29T20:25:39+00:00"}]}))
    with pytest.raises(ReportError, match="opened, and has no scores: score again"):
        experiments_tool.write_adapted(file)
    assert [each.name for each in tmp_path.iterdir()] == ["score.json"]


def test_a_page_that_says_something_else_is_put_right(experiments_tool: ModuleType) -> None:
    of = table("Scores.", ("<Variant", "n", "F1", "n"), [("a", "1", "50.00", "−2"), ("b", *"345")])
    page = "x <!-- all/t a F1 -->49.00<!-- end --> y <!-- all/t a n 2 --><!-- end -->\n"
    assert experiments_tool.fill(page, {"all/t": of}, "p") == (
        "x <!-- all/t a F1 -->50.00<!-- end --> y <!-- all/t a n 2 -->−2<!-- end -->\n"
    )
    shown = experiments_tool.fill("<!-- table all/t -->\nold\n<!-- end -->", {"all/t": of}, "p")
    assert "| a       |   1 | 50.00 |  −2 |" in shown
    assert "old" not in shown


@pytest.mark.parametrize("mark", ["table all/x", "all/t c F1", "all/t a F2", "all/t a n 3"])
def test_a_mark_of_what_there_is_not_is_refused(experiments_tool: ModuleType, mark: str) -> None:
    of = table("Scores.", ("<Variant", "n", "F1", "n"), [("a", "1", "50.00", "-2")])
    with pytest.raises(ReportError, match="page: no"):
        experiments_tool.fill(f"<!-- {mark} --><!-- end -->", {"all/t": of}, "page")


@pytest.mark.parametrize(
    "text",
    [
        "<!-- table all/t --> written by hand <!-- table all/t --><!-- end -->",
        "<!-- table all/t -->",
        "<!-- all/t a F1 --> of",
        "nothing <!-- end -->",
    ],
)
def test_a_mark_and_its_end_belong_together(experiments_tool: ModuleType, text: str) -> None:
    of = table("Scores.", ("<Variant", "F1"), [("a", "50.00")])
    with pytest.raises(ReportError, match="page: a mark without"):
        experiments_tool.fill(text, {"all/t": of}, "page")


def test_only_figures_that_a_page_shows_are_tracked() -> None:
    lines = (ROOT.parent / ".gitignore").read_text().splitlines()
    tracked = {line.removeprefix("!/experiments/") for line in lines if line.startswith("!/exp")}
    shown = {
        f"{name(page.parent)}/{picture}"
        for page in PAGES
        for picture in re.findall(r"!\[[^]]*\]\(([^)]+)\)", page.read_text())
    }
    assert tracked == shown
    assert all((ROOT / picture).is_file() for picture in shown)


def test_near_ties_are_summed_up(experiments_tool: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / "x/ties"
    folder.mkdir(parents=True)
    (folder / "ties.csv").write_text(
        "picture,qindex,size,band,nodes,right_net\n"
        "a,80,16,0.1,1,0\na,80,16,clear,3,3\nb,80,16,clear,4,2\n"
    )
    (tmp_path / "x/README.md").write_text(
        "<!-- ties/near-ties 16x16 Below 0.1 % --><!-- end -->\n"
        "<!-- ties/accuracy-net 16x16 Clear --><!-- end -->\n"
    )
    experiments_tool.report(tmp_path, None)
    experiments_tool.report(tmp_path, None)  # its tables are no results
    assert re.findall(r"-->(.*)<!--", (tmp_path / "x/README.md").read_text()) == ["12.50", "71.43"]


def test_subsets_of_the_corpus_are_nested() -> None:
    tool = load_file(ROOT / "predictor/subsets.py")
    lists = {count: read_split_list(tool_list(count)) for count in tool.COUNTS}
    assert list(lists) == [13, 25, 50, 100, 205]
    kept: set[str] = set()
    for count, listed in lists.items():
        train = {name for name, split in listed.items() if split == "train"}
        assert len(train) == count
        assert kept < train
        kept = train
        assert listed == tool.subset(lists[205], count)
        assert sum(split == "val" for split in listed.values()) == 41
        assert listed.keys() == lists[205].keys()
    with pytest.raises(ConfigError, match="has 205 training pictures, 206"):
        tool.subset(lists[205], 206)


def tool_list(count: int) -> Path:
    return ROOT / f"predictor/splits/train-{count}.csv"


def test_times_of_types_are_of_the_nodes_that_blocks_belong_to() -> None:
    tool = load_file(ROOT / "encoder/worth.py")
    none, horz, vert_a, horz_4 = (Partition[name] for name in ("NONE", "HORZ", "VERT_A", "HORZ_4"))
    # Of VERT_A at 16x16: two squares of 8x8 and a rectangle of 8x16.
    times = pl.DataFrame(
        [
            *((64, 64, none, 1, 900), (32, 32, none, 4, 400), (16, 16, none, 16, 320)),
            *((8, 8, none, 8, 40), (4, 4, none, 8, 8)),
            *((16, 8, horz, 4, 60), (8, 8, vert_a, 2, 30), (8, 16, vert_a, 1, 20)),
            (16, 4, horz_4, 4, 80),
        ],
        ["width", "height", "type", "calls", "cycles"],
        orient="row",
    )
    found = tool.times_of_types(times)
    assert found[64, none] == 900
    assert found[16, none] == 20
    assert found[16, horz] == 30
    assert found[16, vert_a] == 50
    assert found[16, horz_4] == 80
    assert found[8, Partition.SPLIT] == 8 / 2
    assert found[16, Partition.SPLIT] == (40 + 8) / 2
    assert found[64, Partition.SPLIT] == 400 + 320 + 60 + 50 + 80 + 40 + 8


def test_other_comments_are_left_alone(experiments_tool: ModuleType) -> None:
    of = table("Scores.", ("<Variant", "F1"), [("a", "50.00")])
    text = "<!-- a note to myself --> x <!-- all/t a F1 -->50.00<!-- end -->"
    assert experiments_tool.fill(text, {"all/t": of}, "page") == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "variant,member\na,b\n",
        "member,f1\na,0.5\n",
        "variant,member,f1\n",
        "variant,member,f1\na,b,0.5\na,b,0.6\n",
        "variant,member,n\na,b,3\n",
    ],
)
def test_scores_that_cannot_be_read_are_refused(
    experiments_tool: ModuleType, tmp_path: Path, text: str
) -> None:
    (tmp_path / "scores.csv").write_text(text)
    with pytest.raises(ReportError, match=re.escape(str(tmp_path))):
        experiments_tool.write_scores(tmp_path / "scores.csv")


def test_scores_that_are_no_training_are_summed_up(
    experiments_tool: ModuleType, tmp_path: Path
) -> None:
    folder = tmp_path / "x/cascade"
    folder.mkdir(parents=True)
    rows = [("none", "a", 0.40), ("none", "b", 0.42), ("more", "a", 0.43), ("more", "b", 0.47)]
    (folder / "scores.csv").write_text(
        "variant,member,macro_f1,git_commit\n"
        + "".join(f"{variant},{member},{f1},abc\n" for variant, member, f1 in rows)
    )
    (tmp_path / "x/README.md").write_text("<!-- cascade/scores more Difference --><!-- end -->")
    experiments_tool.report(tmp_path, tmp_path / "pages")
    said = cells((folder / "tables/scores.csv").read_text())
    assert said["none"]["macro F1"] == "41.00 ± 1.41"
    # Differences 3 and 5: mean 4, standard error 1, t of 97.5 % with one degree of freedom 12.706.
    assert said["more"]["Difference"] == "+4.00"
    assert said["more"]["95% interval"] == "[-8.71, +16.71]"
    assert float(said["more"]["p (Holm)"]) == pytest.approx(0.1560, abs=1e-4)
    assert "-->+4.00<!--" in (tmp_path / "x/README.md").read_text()


def test_comparisons_of_encodes_are_summed_up(
    experiments_tool: ModuleType, encodes_examples: ModuleType, tmp_path: Path
) -> None:
    points, clips = encodes_examples.CLAIM, encodes_examples.clips(3, "photographs")
    rows = list(encodes_examples.rows(points, list(clips)))
    (tmp_path / "x").mkdir()
    folder = encodes_examples.write_encodes(tmp_path / "x/full", points, clips, rows, ("cpu0",))
    mark = "<!-- full/cpu0 cpu1 Kind --><!-- end -->"
    (tmp_path / "x/README.md").write_text(f"{mark}\n<!-- table full/cpu0-qualities --><!-- end -->")
    experiments_tool.report(tmp_path, tmp_path / "pages")
    text = (tmp_path / "x/README.md").read_text()
    assert "-->preset<!--" in text
    assert "| Worst clip" in text
    assert (folder / "figures/pareto-cpu0.svg").is_file()
    assert (tmp_path / "pages/x/full/report.html").is_file()
    assert {file.name for file in folder.iterdir()} == {
        *("plan.json", "encodes.jsonl", "tables", "figures")
    }
