"""The page on a comparison of predictors: its first sentence, its warnings, its tables."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import ModuleType

import pytest

from av1part.report import write_compared_report, write_report
from av1part.report.chapters.compared_tables import decimals
from av1part.report.render.tables import percent
from av1part.system.errors import ReportError


@pytest.fixture(scope="module")
def made(compared_examples: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(compared_examples.write_compared_example(tmp_path_factory.mktemp("c") / "compared"))


def lines(text: str, first: str) -> list[list[str]]:
    """Return the cells of the rows that begin with a cell."""
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if re.match(rf"\| {first} +\|", line)
    ]


def test_the_page_says_what_the_record_holds(made: Path, tmp_path: Path) -> None:
    files = write_compared_report(made, tmp_path)
    text = files.markdown.read_text(encoding="utf-8")
    record = json.loads((made / "scores.json").read_text())
    at_16 = record["sizes"]["16"]
    net, trees = (at_16["predictors"][name] for name in ("net", "trees"))
    loss, difference = net["scores"]["log_loss"], trees["difference"]["log_loss"]
    assert files.headline.startswith(
        f"At 16x16, `net` has a log loss of {decimals(loss['estimate'])} and an accuracy of "
        f"{percent(net['scores']['accuracy']['estimate'])} %"
    )
    assert f"`trees` {decimals(difference['estimate'], signed=True)} [" in files.headline
    rows = lines(text, "net")
    assert rows[0][1:3] == [
        decimals(loss["estimate"]),
        f"[{decimals(loss['low'])}, {decimals(loss['high'])}]",
    ]
    assert lines(text, "always SPLIT") or lines(text, "always NONE")
    stage2 = record["stage2"]["predictors"]["trees"]["weighted"]["scores"]
    shown = next(row for row in lines(text, "trees") if "weights" in row)
    assert shown[2] == percent(stage2["macro_f1"]["estimate"])
    assert shown[-1] == "1 : 1 : 2"
    assert (
        "> Left out for all predictors at 16x16: 12 HORZ_4, 3 VERT_4, types that `trees` and "
        "`prior` do not know." in text
    )
    assert "> Intervals come from 6 pictures only" in text
    assert [plot.name for plot in files.plots] == ["reliability.svg"]
    svg = files.plots[0].read_text()
    assert all(word in svg for word in ("16x16", "64x64", "net", "trees", "prior"))
    assert "reliability" in files.html.read_text(encoding="utf-8")


def test_latex_tables_hold_the_figures(made: Path, tmp_path: Path) -> None:
    write_compared_report(made, tmp_path)
    record = json.loads((made / "scores.json").read_text())
    for size, facts in record["sizes"].items():
        text = (tmp_path / f"tables/scores-{size}.tex").read_text(encoding="utf-8")
        assert rf"\label{{tab:scores-{size}}}" in text
        for name, predictor in facts["predictors"].items():
            loss = predictor["scores"]["log_loss"]["estimate"]
            assert f"    {name} & {loss:.4f} & [" in text
    tables = [path.read_text(encoding="utf-8") for path in tmp_path.glob("tables/*.tex")]
    assert {path.stem for path in tmp_path.glob("tables/*")} >= {"differences-16", "stage2"}
    assert all(text.isascii() for text in tables)


def test_the_same_folder_gives_the_same_bytes(made: Path, tmp_path: Path) -> None:
    first, second = (write_report([made], tmp_path / name) for name in "ab")
    for one, other in zip(
        (first.html, first.markdown, *first.plots),
        (second.html, second.markdown, *second.plots),
        strict=True,
    ):
        assert one.read_bytes() == other.read_bytes()


def test_one_picture_has_no_intervals(compared_examples: ModuleType, tmp_path: Path) -> None:
    folder = compared_examples.write_compared_example(tmp_path / "one", 1, weighted=False)
    text = write_compared_report(folder).markdown.read_text(encoding="utf-8")
    assert "95%" not in text
    assert "All nodes are of one picture" in text
    assert "Weights" not in text
    assert not re.search(r"\| +p \|", text)


def test_it_is_reported_alone(made: Path, stage_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="comparison of predictors, which is reported alone"):
        write_report([stage_folder, made], tmp_path / "out")
    assert not (tmp_path / "out").exists()
