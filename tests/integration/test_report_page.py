"""The report as a reader gets it: one page that is whole, alone, and the same every time."""

from __future__ import annotations

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import numpy as np
import polars as pl
import pytest

from av1part.report import ReportFiles, write_report

from .conftest import read_viewer

VOID = {"meta", "br", "hr", "img", "link", "input"}


@pytest.fixture(scope="module")
def folder(examples: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo as it lies on disk: two stages and the pipeline."""
    root = tmp_path_factory.mktemp("demo")
    examples.write_stage_run(root / "stage1", "stage1", epochs=3)
    examples.write_stage_run(root / "stage2", "stage2")
    examples.write_pipeline_run(root / "pipeline")
    return root


@pytest.fixture(scope="module")
def report(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> ReportFiles:
    return write_report([folder], tmp_path_factory.mktemp("out"))


class Page(HTMLParser):
    """Checks that elements are closed in order, and collects tables, headings, ids and links."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.tables: list[list[list[str]]] = []
        self.captions: list[str] = []
        self.headings: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        for key, value in attrs:
            if key == "id":
                self.ids.append(value or "")
            if key in ("href", "src", "xlink:href", "srcset", "action", "data", "poster"):
                self.links.append(value or "")
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        elif tag == "figcaption":
            self.captions.append("")
        elif tag in ("h1", "h2", "h3"):
            self.headings.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> out of order at {self.getpos()}"

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data
        elif "figcaption" in self.open:
            self.captions[-1] += data


@pytest.fixture(scope="module")
def page(report: ReportFiles) -> Page:
    parsed = Page()
    parsed.feed(report.html.read_text(encoding="utf-8"))
    parsed.close()
    return parsed


def test_page_is_well_formed(page: Page) -> None:
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert page.headings[0] == "h1"
    assert page.headings.count("h1") == 1


def test_page_leads_with_frame_result_and_margins(report: ReportFiles) -> None:
    text = report.html.read_text(encoding="utf-8")
    frame, result, margins, contents, table = (
        text.index(part)
        for part in ('id="run-1-frame"', 'class="headline"', 'id="margins"', "<nav", "<table")
    )
    assert frame < result < margins < contents < table
    # The only pipeline leads, and its frame is drawn once.
    assert re.search(
        r'class="headline">Macro-F1 of <code>pipeline</code> is \d+\.\d\d%, \d+\.\d\d points above '
        r"the class-prior guesser's? .*95% interval \[",
        text.replace("&#x27;", "'"),
    )
    assert text.count('id="run-1-frame"') == 1
    markdown = report.markdown.read_text(encoding="utf-8")
    assert markdown.index("![run-1-frame]") < markdown.index("**Macro-F1 of") < markdown.index("|")


def test_page_on_one_run_leads_with_its_own_margins(folder: Path, tmp_path: Path) -> None:
    files = write_report([folder / "stage2"], tmp_path)
    text = files.html.read_text(encoding="utf-8")
    parts = ('id="frame"', 'class="headline">Macro-F1 is', 'id="margins"', "<table", "SHA-256")
    places = [text.index(part) for part in parts]
    assert places == sorted(places)


def test_page_takes_nothing_from_outside(page: Page, report: ReportFiles) -> None:
    text = report.html.read_text(encoding="utf-8")
    assert not page.tags & {"link", "iframe", "object", "embed", "base"}  # scripts have no src
    for link in page.links:
        assert link.startswith(("#", "data:image/png;base64,")), link
        if link.startswith("#"):
            assert link[1:] in page.ids
    assert set(re.findall(r"url\((.)", text)) <= {"#"}
    assert "@import" not in text
    assert not re.search(r"https?://", text)


@pytest.mark.parametrize(("name", "truth"), [("pipeline", "partition"), ("stage2", "label")])
def test_viewer_holds_the_predictions_of_the_frame(
    folder: Path, tmp_path: Path, name: str, truth: str
) -> None:
    """Every node of the frame with its probabilities, predicted and true class, and no other."""
    viewer = read_viewer(write_report([folder / name], tmp_path).html)
    assert (viewer.sequence, viewer.qindex, viewer.size) == ("picture3", 172, 16)
    table = pl.read_parquet(folder / name / "predictions.parquet")
    own = table.filter(sequence="picture3", qindex=172)
    assert (viewer.planes[0] != 255).sum() == own.height
    with np.load(folder / name / "samples.npz") as samples:
        places = zip(*(samples[f"frame_{k}"].tolist() for k in ("node", "row", "col")), strict=True)
        types = samples["frame_partition"]
    for index, (node, row, col) in enumerate(places):
        (record,) = own.filter(node=node).iter_rows(named=True)
        code, true_class, true_type, *shares = viewer.planes[:, row // 16, col // 16].tolist()
        assert (code & 15, true_class) == (record["prediction"], record[truth])
        assert bool(code & 32) == (record["prediction"] != record[truth])
        assert true_type == types[index]
        expected = [record[f"p.{name}"] for name in viewer.classes]
        assert np.abs(np.array(shares) / 255 - expected).max() <= 0.5 / 255 + 1e-6


def test_several_runs_have_the_viewer_of_the_frame_above(report: ReportFiles) -> None:
    text = report.html.read_text(encoding="utf-8")
    assert read_viewer(report.html).classes[3:5] == ["SPLIT", "HORZ_A"]
    assert text.index('id="run-1-frame"') < text.index("<details") < text.index('class="headline"')
    markdown = report.markdown.read_text(encoding="utf-8")
    assert markdown.count("The page `report.html` shows all of the frame") == 1


def test_samples_of_av1part_0_1_are_reported_without_the_viewer(
    folder: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(folder / "pipeline", tmp_path / "old"))
    with np.load(run / "samples.npz") as archive:
        old = {key: archive[key] for key in archive.files if key != "frame_node"}
    np.savez_compressed(run / "samples.npz", **old)
    before = write_report([folder / "pipeline"], tmp_path / "new").html.read_text(encoding="utf-8")
    text = write_report([run], tmp_path / "out").html.read_text(encoding="utf-8")
    assert "<script" in before
    assert "<script" not in text
    assert 'id="frame"' in text
    assert (tmp_path / "out/plots/frame.svg").read_bytes() == (
        tmp_path / "new/plots/frame.svg"
    ).read_bytes()


def test_same_runs_same_bytes_wherever_they_lie(
    folder: Path, report: ReportFiles, tmp_path: Path
) -> None:
    moved = Path(shutil.copytree(folder, tmp_path / "elsewhere"))
    again = write_report([moved], tmp_path / "again")
    pairs = [(report.html, again.html), (report.markdown, again.markdown)]
    pairs += list(zip(report.plots, again.plots, strict=True))
    for first, second in pairs:
        assert first.name == second.name
        assert first.read_bytes() == second.read_bytes(), first.name


def test_every_table_with_a_metric_names_both_guessers(page: Page) -> None:
    metrics = {"Score", "Accuracy", "Macro-F1", "F1", "Live", "Standalone", "Vote", "top 1"}
    scored = 0
    for table in page.tables:
        if not metrics & set(table[0]):
            continue
        scored += 1
        words = " ".join(" ".join(row) for row in table).lower()
        if "live" in words:
            said = next(c for c in page.captions if c.startswith("Checkpoints read back"))
            words += said.lower()
        if "this run" in words:  # the study's figures, each beside its own guess
            assert "Guess" in table[0]
            continue
        assert re.search(r"constant|always it|both guessers", words), table[0]
        assert re.search(r"prior|both guessers", words), table[0]
    assert scored >= 12


def test_headline_rows_have_no_empty_guess(page: Page) -> None:
    headlines = [t for t in page.tables if t[0][:3] == ["Metric", "n", "Score"]]
    assert len(headlines) == 3
    for table in headlines:
        for row in table[1:]:
            for title, cell in zip(table[0], row, strict=True):
                if title in ("Score", "Best constant", "Class prior", "Margin"):
                    assert re.fullmatch(r"[+−]?\d+\.\d\d", cell), (title, row)


def test_page_and_markdown_say_the_same(page: Page, report: ReportFiles) -> None:
    markdown = report.markdown.read_text(encoding="utf-8")
    cells = {cell for table in page.tables for row in table for cell in row if cell}
    plain = markdown.replace("`", "").replace("\\|", "|")
    missing = [cell for cell in cells if cell not in plain]
    assert not missing
    for plot in report.plots:
        assert f"(plots/{plot.name})" in markdown


def test_page_has_every_part(report: ReportFiles) -> None:
    names = {plot.stem.partition("-")[2].partition("-")[2] for plot in report.plots}
    assert names >= {"frame", "confusion", "learning", "blocks", "cascade", "reliability", "qindex"}
    text = report.html.read_text(encoding="utf-8")
    for said in ("by_sequence: every picture", "Exp 11A", "optimistic", "abababab", "verified"):
        assert said in text


def test_page_stays_small(report: ReportFiles) -> None:
    assert report.html.stat().st_size < 3 * 2**20


def test_names_from_disk_cannot_inject_markup(folder: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(folder / "stage2", tmp_path / "s2"))
    config = run / "config.yaml"
    config.write_text(config.read_text() + 'note: "</pre><script>alert(1)</script>"\n')
    environment = run / "environment.json"
    environment.write_text(environment.read_text().replace("a processor", "<img src=x>"))
    with np.load(run / "samples.npz") as archive:
        samples = dict(archive)
    np.savez(run / "samples.npz", **{**samples, "frame_sequence": "</script><script>alert(2)"})
    html = write_report([run], tmp_path / "out").html.read_text(encoding="utf-8")
    assert "<script>alert" not in html
    assert "<img src" not in html
    assert "&lt;script&gt;" in html
