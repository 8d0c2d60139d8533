"""The page on a comparison of encodes: its first sentence, its warnings, its files."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from av1part.report import ReportFiles, is_encodes, write_encodes_report, write_report
from av1part.report.chapters.encodes_verdict import verdict
from av1part.report.files import write_latex_tables
from av1part.report.render.tables import table
from av1part.report.savings import compare
from av1part.runs.encodes import read_encodes
from av1part.system.errors import ReportError
from av1part.system.files import write_text

Points = dict[str, tuple[Any, ...]]
ANCHOR: Points = {"cpu1": ("preset", 1.0, 1.0, 64)}


@pytest.fixture
def written(encodes_examples: ModuleType, tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a folder of points given by kind, time, bytes and superblock size."""

    def write(
        points: Points,
        clips: int = 2,
        leave_out: int = 0,
        anchors: Sequence[str] = ("cpu1",),
        **how: Any,
    ) -> Path:
        example = encodes_examples.Example
        made = {
            name: example(kind, time, time, size, speed, sb_size)
            for speed, (name, (kind, time, size, sb_size)) in enumerate(points.items())
        }
        names = encodes_examples.clips(clips, "photographs", "video")
        rows = list(encodes_examples.rows(made, list(names), **how))
        rows = [row | {"inference_seconds": 0.0} for row in rows]
        folder = tmp_path / "encodes"
        return Path(
            encodes_examples.write_encodes(
                folder, made, names, rows[: len(rows) - leave_out], anchors
            )
        )

    return write


def first(folder: Path) -> str:
    return verdict(compare(read_encodes(folder))[0])


def test_undominated_learned_point(written: Callable[..., Path]) -> None:
    points = {"cpu2": ("preset", 0.9, 1.005, 64), "model": ("learned", 0.78, 1.0031, 64)}
    assert first(written(ANCHOR | points)) == (
        "Against `cpu1`, the learned point `model` saves 22.0 % of time at +0.31 % BD-rate "
        "[+0.31, +0.31]; no model-free point with superblocks of 64 saves as much at as little "
        "loss."
    )


def test_some_learned_points_are_dominated(written: Callable[..., Path]) -> None:
    points = {
        "cpu2": ("preset", 0.7, 1.005, 64),
        "a": ("learned", 0.9, 1.01, 64),
        "b": ("learned", 0.6, 1.01, 64),
        "c": ("learned", 0.5, 1.02, 64),
        "other": ("learned", 0.4, 1.0, None),  # no claim: another superblock size
    }
    assert first(written(ANCHOR | points, clips=1, jobs=2)) == (
        "Against `cpu1`, 2 of 3 learned points are undominated by model-free points of their "
        "superblock size: `b` (40.0 % of work at +1.00 % BD-rate) and `c` (50.0 % of work at "
        "+2.00 % BD-rate). Dominated: `a` (10.0 % of work at +1.00 % BD-rate) by `cpu2` (30.0 % "
        "of work at +0.50 % BD-rate)."
    )


def test_all_learned_points_are_dominated(written: Callable[..., Path]) -> None:
    points = {
        "cpu2": ("preset", 0.7, 1.005, 64),
        "a": ("learned", 0.8, 1.01, 64),
        "b": ("learned", 1.1, 1.001, 64),
    }
    assert first(written(ANCHOR | points, clips=1)) == (
        "Every learned point is dominated, against `cpu1`: `a` (20.0 % of time at +1.00 % "
        "BD-rate) by `cpu2` (30.0 % of time at +0.50 % BD-rate); `b` (10.0 % more time at +0.10 % "
        "BD-rate) by the anchor `cpu1` itself."
    )


def test_no_learned_point(written: Callable[..., Path]) -> None:
    points = {
        "cpu2": ("preset", 0.7, 1.005, 64),
        "cpu2_auto": ("preset", 0.75, 1.006, None),
        "slow": ("switch", 0.8, 1.01, 64),
        "bound": ("oracle", 0.1, 1.0, 64),
    }
    assert first(written(ANCHOR | points, clips=1)) == (
        "There is no learned point. Undominated against `cpu1`, each at its superblock size: "
        "`cpu2` (30.0 % of time at +0.50 % BD-rate) and `cpu2_auto` (25.0 % of time at +0.60 % "
        "BD-rate). Dominated: `slow` (20.0 % of time at +1.00 % BD-rate) by `cpu2` (30.0 % of "
        "time at +0.50 % BD-rate)."
    )


def test_no_learned_point_and_nothing_undominated(written: Callable[..., Path]) -> None:
    points = {"slower": ("preset", 1.2, 1.01, 64)}
    assert first(written(ANCHOR | points)) == (
        "There is no learned point. Against `cpu1` every other point is dominated. Dominated: "
        "`slower` (20.0 % more time at +1.00 % BD-rate) by the anchor `cpu1` itself."
    )


def test_other_superblocks_and_nothing_to_judge(written: Callable[..., Path]) -> None:
    points = ANCHOR | {"model": ("learned", 0.8, 1.01, None)}
    assert first(written(points, clips=1)) == (
        "No learned point has the superblock size of `cpu1`. Against `cpu1`, the learned point "
        "`model` saves 20.0 % of time at +1.00 % BD-rate; no model-free point that leaves the "
        "superblock size to the encoder saves as much at as little loss."
    )
    assert "can be judged yet" in first(written(points, clips=1, leave_out=2))


def test_anchor_with_comparable_learned_points_comes_first(written: Callable[..., Path]) -> None:
    points = {"cpu0": ("preset", 2.0, 1.0, None), "model": ("learned", 0.8, 1.01, 64)}
    folder = written(ANCHOR | points, anchors=("cpu0", "cpu1"))
    files = write_encodes_report(folder)
    text = files.markdown.read_text()
    assert text.index("Against `cpu1`, the learned point") < text.index("No learned point has")
    assert [path.name for path in files.plots] == ["pareto-cpu1.svg", "pareto-cpu0.svg"]


@pytest.fixture(scope="module")
def claim(encodes_examples: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> ReportFiles:
    """The report on a claim with two anchors; not to be changed."""
    points, clips = encodes_examples.CLAIM, encodes_examples.clips(3, "photographs", "screen")
    rows = list(encodes_examples.rows(points, list(clips), noise=0.05))
    bad = next(r for r in rows if r["clip"] == "clip2" and r["point"] == "cpu2_sb64")
    bad["psnr_y"] = None
    folder = tmp_path_factory.mktemp("claim")
    anchors = ("cpu1_sb64", "cpu0")
    return write_encodes_report(
        encodes_examples.write_encodes(folder, points, clips, rows, anchors)
    )


def table_of(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / name).open() as file:
        return list(csv.DictReader(file))


def test_tables_for_other_programs(claim: ReportFiles, encodes_examples: ModuleType) -> None:
    folder = claim.html.parent
    points = {(r["anchor"], r["point"]): r for r in table_of(folder, "table.csv")}
    names = list(encodes_examples.CLAIM)
    assert len(points) == 2 * (len(names) - 1)
    row = points["cpu1_sb64", "cpu1_model_90"]
    assert (row["kind"], row["sb_size"], row["same_sb_size"]) == ("learned", "64", "true")
    assert (row["finished"], row["clips"], row["encodes"]) == ("true", "3", "12")
    assert (row["measure"], row["dominated_by"]) == ("time", "")
    low, high = (float(row[f"bd_rate_psnr_y_percent_{end}"]) for end in ("low", "high"))
    assert low <= float(row["bd_rate_psnr_y_percent"]) <= high
    ratio = float(row["time_saved_percent"]) / float(row["bd_rate_psnr_y_percent"])
    assert float(row["ratio"]) == pytest.approx(ratio, rel=1e-3)
    assert row["bd_rate_vmaf_percent"] == ""
    assert points["cpu1_sb64", "cpu2_sb64"]["bd_rate_psnr_y_clips"] == "2"
    assert points["cpu1_sb64", "cpu2_sb64"]["bd_rate_ssim_clips"] == "3"
    clips = table_of(folder, "clips.csv")
    assert len(clips) == 3 * len(points)
    of_point = [r for r in clips if (r["anchor"], r["point"]) == ("cpu1_sb64", "cpu1_model_90")]
    mean = sum(float(r["bd_rate_psnr_y_percent"]) for r in of_point) / 3
    assert float(row["bd_rate_psnr_y_percent"]) == pytest.approx(mean, abs=1e-5)
    problems = {(r["clip"], r["problem_psnr_y"]) for r in clips if r["problem_psnr_y"]}
    assert problems == {("clip2", "cpu2_sb64: a quality is infinite or was not measured")}


def test_page_and_markdown_hold_the_same(claim: ReportFiles) -> None:
    markdown, page = claim.markdown.read_text(), claim.html.read_text()
    for title in (
        *("Against cpu1_sb64", "Against cpu0", "Savings and losses", "By measure of quality"),
        *("Curves without a BD-rate", "By class of content", "By cq level", "By clip"),
        "What was encoded",
    ):
        assert title in markdown
        assert f">{title}</h" in page
    row = re.search(r"\| clip2 +\| cpu2_sb64 +\| (.+?) +\| (.+?) +\|", markdown)
    assert row is not None
    assert row.groups() == ("PSNR-Y, PSNR 6:1:1", "a quality is infinite or was not measured")
    assert "2 of 3" in markdown  # clips of cpu2_sb64
    assert "Every encode was timed once" in markdown
    assert "Intervals come from 3 clips only" in markdown
    assert "UNFINISHED" not in markdown
    assert "screen: time saved" in markdown
    assert page.count("<svg") == 2
    assert not re.search(r"""(?:src|href)=["'](?!#)""", page)


def test_savings_table_has_the_figures(claim: ReportFiles) -> None:
    rows = {r["point"]: r for r in table_of(claim.html.parent, "table.csv")[:17]}
    lines = claim.markdown.read_text().splitlines()
    line = next(line for line in lines if line.startswith("| cpu1_no_1to4"))
    cells = [cell.strip().replace("−", "-") for cell in line.strip("|").split("|")]
    row = rows["cpu1_no_1to4"]
    assert cells[1:3] == ["switch", "64"]
    for cell, key in ((3, "time_saved"), (5, "work_saved"), (6, "bd_rate_psnr_y")):
        assert float(cells[cell]) == pytest.approx(float(row[f"{key}_percent"]), abs=0.0051)
    assert float(cells[8]) == pytest.approx(float(row["ratio"]), abs=0.051)
    assert cells[9] == "cpu2_sb64"


def test_unfinished_folder_says_so(written: Callable[..., Path]) -> None:
    points = ANCHOR | {"cpu2": ("preset", 0.7, 1.005, 64)}
    files = write_encodes_report(written(points, leave_out=1))
    for text in (files.markdown.read_text(), files.html.read_text()):
        assert "UNFINISHED, 15 of 16 encodes: " in text
        assert "Start the same command again" in text
        assert "1 curve of 1 clip could not be compared." in text
        assert "fewer than 4 points" in text
    (row,) = table_of(files.html.parent, "table.csv")
    assert (row["finished"], row["encodes"], row["bd_rate_psnr_y_clips"]) == ("false", "7", "1")
    assert "BD-rates are of one clip" in files.markdown.read_text()  # of the two


def test_nothing_encoded_yet(written: Callable[..., Path]) -> None:
    points = ANCHOR | {"cpu2": ("preset", 0.7, 1.005, 64)}
    files = write_encodes_report(written(points, leave_out=16))
    assert files.plots == ()
    assert "point has a BD-rate against `cpu1` yet" in files.markdown.read_text()


def test_encodes_beside_others_show_work_alone(written: Callable[..., Path]) -> None:
    points = ANCHOR | {"cpu2": ("preset", 0.7, 1.005, 64)}
    files = write_encodes_report(written(points, jobs=3, clips=1))
    text = files.markdown.read_text()
    assert "8 of 8 encodes ran beside others" in text
    assert "Time saved" not in text
    assert "Work saved" in text
    assert "95%" not in text  # one clip
    assert "BD-rates are of one clip" in text
    (row,) = table_of(files.html.parent, "table.csv")
    assert (row["time_saved_percent"], row["measure"]) == ("", "work")


def test_tables_of_an_earlier_report_do_not_stay(tmp_path: Path) -> None:
    write_latex_tables({name: table("a", ["b"], []) for name in ("cpu1", "cpu9")}, tmp_path)
    for own in ("mine.tex", "mine.md"):
        write_text(tmp_path / "tables" / own, "")
    write_latex_tables({"cpu1": table("a", ["b"], [])}, tmp_path)
    kept = sorted(file.name for file in tmp_path.glob("tables/*"))
    assert kept == ["cpu1.tex", "mine.md", "mine.tex"]


def test_latex_tables_hold_the_figures(claim: ReportFiles) -> None:
    folder = claim.html.parent
    tables = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("tables/*")}
    anchors = ("cpu1_sb64", "cpu0")
    assert set(tables) == {f"{a}{end}.tex" for a in anchors for end in ("", "-qualities")}
    text = tables["cpu1_sb64.tex"]
    assert r"\label{tab:cpu1_sb64}" in text
    assert text.isascii()  # so that no engine lacks a letter
    cells = {
        row.split(" & ")[0].strip(): row.removesuffix(r" \\").split(" & ")
        for row in text.splitlines()
        if row.endswith(r" \\")
    }
    assert len({len(row) for row in cells.values()}) == 1
    row = next(
        r
        for r in table_of(folder, "table.csv")
        if (r["anchor"], r["point"]) == ("cpu1_sb64", "cpu1_model_90")
    )
    shown = cells[r"cpu1\_model\_90"]
    assert shown[3] == f"{float(row['time_saved_percent']):.2f}"
    assert f"{float(row['bd_rate_psnr_y_percent']):+.2f}".replace("-", "$-$") in shown
    assert cells["cpu0"][2] == r"auto $\neq$"


def test_same_folder_gives_the_same_bytes(claim: ReportFiles, tmp_path: Path) -> None:
    again = write_encodes_report(claim.html.parent, tmp_path / "again")
    files = ("report.html", "report.md", "table.csv", "clips.csv")
    for name in (*files, "plots/pareto-cpu0.svg", "tables/cpu0.tex"):
        assert (again.html.parent / name).read_bytes() == (claim.html.parent / name).read_bytes()


def test_report_takes_the_folder_alone(claim: ReportFiles, tmp_path: Path) -> None:
    folder = claim.html.parent
    assert is_encodes(folder)
    files = write_report([folder], tmp_path / "out")
    assert (files.html.parent / "table.csv").is_file()
    for folders, thesis in (([folder, tmp_path], False), ([folder], True)):
        with pytest.raises(ReportError, match="is reported alone"):
            write_report(folders, tmp_path / "none", thesis=thesis)
    assert not (tmp_path / "none").exists()


def test_damaged_plan_writes_nothing(claim: ReportFiles, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text('{"format": 1}')
    with pytest.raises(ReportError, match="is damaged"):
        write_encodes_report(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]


@pytest.mark.parametrize(("points", "shown"), [(7, "p5 "), (8, "and 2 more.")])
def test_a_sentence_never_leaves_out_a_single_point(
    written: Callable[..., Path], points: int, shown: str
) -> None:
    made = {f"p{i}": ("preset", 0.9 - i / 20, 1 + (i + 1) / 100, 64) for i in range(points)}
    text = first(written(ANCHOR | made)).replace("`", "")
    assert shown in text
    assert "1 more" not in text


def test_a_slower_point_takes_more_time(written: Callable[..., Path]) -> None:
    slow: Points = {"model": ("learned", 1.25, 0.99, 64)}
    assert "`model` takes 25.0 % more time at −1.00 % BD-rate" in first(written(ANCHOR | slow))
    slow["cpu2"] = ("preset", 0.9, 0.98, 64)
    assert "`model` (25.0 % more time at" in first(written(ANCHOR | slow))
