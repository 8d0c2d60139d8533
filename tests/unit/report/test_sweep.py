"""The chapter on a sweep: its numbers are those of the runs, its files the same every time."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from av1part.report import ReportFiles, write_report
from av1part.report.chapters.sweep import sweep_verdict
from av1part.report.chapters.thesis import thesis_chapter
from av1part.report.render.csv import table_csv
from av1part.report.render.document import Prose
from av1part.report.render.latex import table_latex
from av1part.report.render.tables import table
from av1part.report.sweep import load_sweep
from av1part.system.errors import ReportError

SKILLS = {"frozen": 0.8, "adapter": 1.6, "worse": 0.2}
SEEDS = (0, 1, 2)


@pytest.fixture(scope="module")
def made(examples: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweeps") / "exp"
    jobs = []
    for variant, skill in SKILLS.items():
        for seed in SEEDS:
            place = f"{variant}/seed-{seed}"
            config = {"optimizer.lr.adapters": 1e-4, "adapter.bottleneck": 64}
            examples.write_stage_run(folder / place, seed=seed, skill=skill, config=config)
            jobs.append({"folder": place, "variant": variant, "member": f"seed-{seed}"})
    jobs.append({"folder": "stage1/seed-0", "variant": "stage1", "member": "seed-0"})
    record = {"format": 1, "experiment": "exp", "baseline": "frozen", "jobs": jobs}
    (folder / "sweep.json").write_text(json.dumps(record))
    return folder


@pytest.fixture(scope="module")
def report(made: Path, tmp_path_factory: pytest.TempPathFactory) -> ReportFiles:
    """Its report, with the section of a thesis; not to be changed."""
    return write_report([made], tmp_path_factory.mktemp("report"), thesis=True)


def scores(folder: Path, variant: str) -> np.ndarray:
    files = (folder / variant / f"seed-{seed}" / "metrics.json" for seed in SEEDS)
    return np.array([json.loads(file.read_text())["macro_f1"] for file in files])


def test_numbers_are_those_of_the_runs(made: Path, report: ReportFiles) -> None:
    tables = report.html.parent / "tables"
    with (tables / "comparison.csv").open() as file:
        rows = {row[0]: row for row in csv.reader(file)}
    adapter, frozen = scores(made, "adapter"), scores(made, "frozen")
    assert list(rows) == ["Variant", "adapter", "frozen", "worse"]  # best mean first
    assert rows["adapter"][1:4] == [
        "3",
        f"{100 * adapter.mean():.2f}",
        f"{100 * adapter.std(ddof=1):.2f}",
    ]
    difference = 100 * (adapter - frozen)
    half = 4.302653 * difference.std(ddof=1) / 3**0.5  # t of 97.5 % with 2 degrees of freedom
    assert rows["adapter"][6:8] == ["33.33", "3"]
    assert rows["adapter"][8] == f"{difference.mean():+.2f}"
    ends = (difference.mean() - half, difference.mean() + half)
    assert rows["adapter"][9] == f"[{ends[0]:+.2f}, {ends[1]:+.2f}]"
    assert rows["frozen"][7:] == [""] * 6
    assert rows["adapter"][2] in report.html.read_text()
    with (tables / "course.csv").open() as file:
        course = {row["Variant"]: row for row in csv.DictReader(file)}
    assert course["adapter"]["Drop"] == f"{-5 * adapter.mean():+.2f}"  # the examples end 5 % lower
    assert course["adapter"]["Best epochs"] == "4×3"


def test_the_page_leads_with_the_best_variant(made: Path, report: ReportFiles) -> None:
    text = report.markdown.read_text()
    adapter = scores(made, "adapter")
    margin = 100 * (adapter.mean() - 1 / 3)  # over the class-prior guesser
    headline = (
        f"**Best variant `adapter`: macro-F1 is {100 * adapter.mean():.2f}%, the mean of 3 runs, "
        f"{margin:.2f} points above the class-prior guesser's 33.33% (95% interval [+"
    )
    assert text.index("![frame]") < text.index(headline) < text.index("![margins]")
    assert text.index("![margins]") < text.index("## Comparison")


def test_the_same_runs_give_the_same_bytes(made: Path, report: ReportFiles, tmp_path: Path) -> None:
    write_report([made], tmp_path, thesis=True)
    one, two = (
        {f.relative_to(folder): f.read_bytes() for f in folder.rglob("*.*")}
        for folder in (report.html.parent, tmp_path)
    )
    assert one == two
    assert {path.suffix for path in one} == {".html", ".md", ".svg", ".pdf", ".csv", ".tex"}
    assert not any(b"CreationDate" in text for path, text in one.items() if path.suffix == ".pdf")


def test_the_verdict_says_what_the_tests_say(made: Path) -> None:
    sweep = load_sweep(made)
    text = sweep_verdict(sweep)
    assert "9 runs of 3 variants; `adapter` has the best mean" in text
    for name, difference in sweep.differences.items():
        assert (f"`{name}` (" in text) == difference.significant


def test_what_is_missing_is_named(made: Path, copy: Callable[[Path], Path]) -> None:
    folder = copy(made)
    (folder / "adapter/seed-1/metrics.json").unlink()
    sweep = load_sweep(folder)
    assert sweep.missing == ("adapter/seed-1",)
    # Only the seeds that both have are paired.
    assert sweep.differences["adapter"].n == 2
    assert sweep.differences["worse"].n == 3
    files = write_report([folder], folder / "report")
    assert "1 jobs have no result, such as `adapter/seed-1`" in files.markdown.read_text()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda r: r.update(format=2), "has format 2, av1part .* reads 1: use a later av1part"),
        (lambda r: r["jobs"][0].update(folder="../../etc"), "lies outside"),
        (lambda r: r["jobs"][0].update(folder="/etc"), "lies outside"),
        (lambda r: r["jobs"][0].pop("member"), "member"),
        (lambda r: r["jobs"][0].update(variant="</script>"), "names no variant"),
        (lambda r: r["jobs"][0].update(variant="a\nb"), "names no variant"),
        (lambda r: r.update(jobs=[]), "no finished run"),
        (lambda r: r.update(jobs={}), "jobs"),
    ],
)
def test_a_damaged_record_is_refused(
    made: Path, copy: Callable[[Path], Path], change: Callable[[dict], None], says: str
) -> None:
    folder = copy(made)
    record = json.loads((folder / "sweep.json").read_text())
    change(record)
    (folder / "sweep.json").write_text(json.dumps(record))
    with pytest.raises(ReportError, match=says):
        load_sweep(folder)


def test_runs_of_other_classes_do_not_stand_in_one_table(
    made: Path, copy: Callable[[Path], Path], examples: ModuleType
) -> None:
    folder = copy(made)
    examples.write_stage_run(folder / "worse/seed-0", "stage1")
    with pytest.raises(ReportError, match=r"has the classes .*: report them separately"):
        load_sweep(folder)


def test_other_nodes_are_no_common_blocks_and_the_thesis_says_so(
    made: Path, report: ReportFiles, copy: Callable[[Path], Path]
) -> None:
    folder = copy(made)
    # A dollar in a name is no mathematics for what draws the figures.
    text = (folder / "sweep.json").read_text().replace('"worse"', '"x=$a_$"')
    (folder / "sweep.json").write_text(text)
    file = folder / "adapter/seed-0/environment.json"
    said = json.loads(file.read_text())
    said["dataset"]["manifest_sha256"] = "cd" * 32
    file.write_text(json.dumps(said))
    files = write_report([folder], folder / "report", thesis=True)
    assert "Blocks that the first" not in files.html.read_text()
    text = files.thesis[0].read_text()
    assert "All runs share one split" not in text
    assert "validated on different nodes" in text
    assert "differs between the runs" in text
    assert "Blocks that the first" in report.html.read_text()


def test_a_protocol_that_mixes_pictures_is_said_to_flatter(
    made: Path, report: ReportFiles, copy: Callable[[Path], Path]
) -> None:
    folder = copy(made)
    for file in folder.rglob("environment.json"):
        said = json.loads(file.read_text())
        said["dataset"]["split"] = "by_segment"
        file.write_text(json.dumps(said))
    files = write_report([folder], folder / "report", thesis=True)
    for text in (files.html.read_text(), files.thesis[0].read_text()):
        assert text.count("scores flatter the model") == 1
    assert "flatter" not in report.html.read_text()


def test_latex_and_csv() -> None:
    tab = table("Of `a_b`, 95% & more.", ["<V_1", "n"], [["a_b", "−1.50"], ["c", "–"]], strong=1)
    assert table_csv(tab) == "V_1,n\na_b,-1.50\nc,\n"
    tex = table_latex(tab, "tab:x")
    assert r"\caption{Of \texttt{a\_b}, 95\% \& more.}" in tex
    assert r"\begin{tabular}{lr}" in tex
    assert r"    a\_b & $-$1.50 \\" in tex
    assert r"    \textbf{c} & \textbf{--} \\" in tex
    for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\label{tab:x}"):
        assert rule in tex


def test_a_thesis_section_compiles(
    report: ReportFiles, overfull: Callable[[str, Path], list[str]]
) -> None:
    wide = overfull(r"\input{thesis}", report.html.parent)
    # Listings and the names of files may be; tables and figures are not.
    assert all("in paragraph" in line for line in wide)


def test_a_thesis_section_has_the_same_numbers(report: ReportFiles) -> None:
    folder = report.html.parent
    markdown, latex = (file.read_text() for file in report.thesis)
    table_ = (folder / "tables/comparison.md").read_text()
    assert table_.strip() in markdown
    for heading in ("Method", "Protocol", "Results", "Limits"):
        assert f"## {heading}\n" in markdown
        assert rf"\subsection{{{heading}}}" in latex
    assert "trained 3 times (seed-0, seed-1, seed-2)" in markdown
    assert "All runs share one split" in markdown
    for environment in ("table", "tabular", "figure", "description"):
        begun, ended = (latex.count(rf"\{word}{{{environment}}}") for word in ("begin", "end"))
        assert begun == ended > 0
    for name in re.findall(r"includegraphics.*{(.*)}", latex):
        assert (folder / name).is_file()
    labels = re.findall(r"label{(.*)}", latex)
    assert len(set(labels)) == len(labels)


def protocol_prose(folder: Path) -> list[str]:
    sections = {section.title: section for section in thesis_chapter(load_sweep(folder)).sections}
    return [item.text for item in sections["Protocol"].items if isinstance(item, Prose)]


def test_a_thesis_names_the_runs_that_had_no_start(
    made: Path, copy: Callable[[Path], Path]
) -> None:
    folder = copy(made)
    started = {
        "adapter": "All runs but those of `frozen`, `worse` start from a Stage-1 backbone",
        "frozen": "All runs but those of `worse` start from a Stage-1 backbone",
        "worse": ". Runs start from a Stage-1 backbone",
    }
    assert "Stage-1" not in " ".join(protocol_prose(folder))
    for variant, says in started.items():
        for file in (folder / variant).rglob("config.yaml"):
            file.write_text(f"{file.read_text()}stage1: some.ckpt\n")
        assert any(says in text for text in protocol_prose(folder))


def test_a_thesis_is_of_one_sweep(made: Path, stage_folder: Path, tmp_path: Path) -> None:
    for folders in ([stage_folder], [made, stage_folder]):
        with pytest.raises(ReportError, match="of one sweep"):
            write_report(folders, tmp_path / "out", thesis=True)
    assert not (tmp_path / "out").exists()


def test_a_defective_variant_is_named_first(
    made: Path, report: ReportFiles, copy: Callable[[Path], Path], tmp_path: Path
) -> None:
    mark = "DEFECTIVE ON PURPOSE, defects=[late_thaw,of_later]"
    assert report.thesis is not None
    for file in (report.html, report.markdown, *report.thesis):
        assert "DEFECTIVE" not in file.read_text()
    folder = copy(made)
    for seed in SEEDS:
        file = folder / f"worse/seed-{seed}/metrics.json"
        defects = ["late_thaw", "of_later"]
        file.write_text(json.dumps({**json.loads(file.read_text()), "defects": defects}))
    again = write_report([folder], tmp_path / "out", thesis=True)
    assert again.thesis is not None
    text = again.markdown.read_text()
    assert text.count(mark) == 1
    assert text.index("`worse`: ") < text.index(mark) < text.index("runs of 3 variants")
    assert mark in again.html.read_text()
    assert mark in again.thesis[0].read_text()
    assert "DEFECTIVE ON PURPOSE" in again.thesis[1].read_text()
    # A page of the runs by themselves says it of each of them, above its figures.
    (folder / "sweep.json").unlink()
    page = write_report([folder], tmp_path / "runs").markdown.read_text()
    assert page.count(f"`worse/seed-1`: {mark}") == 1
    assert page.count("worse/seed-1 (DEFECTIVE ON PURPOSE)") >= 1
    assert "adapter/seed-1 (DEFECTIVE" not in page
