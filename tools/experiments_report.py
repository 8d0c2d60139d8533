"""Write the tables, figures and pages of experiments/ again, from the results that lie there.

Every folder below experiments/ with a published sweep (`av1part report SWEEP publish=FOLDER`) gets
`tables/` and `figures/`; every README.md there gets, between its marks, what the tables say:

    <!-- table all/comparison -->         ...the table...        <!-- end -->
    <!-- all/comparison v1 Difference -->+1.98<!-- end -->       ...one cell of it

Of another experiment's tables the mark names its folder too, `exp11a/all/comparison`.

A folder of `av1part encode` gets a table an anchor, `full/cpu1_sb64`, one by measure of quality,
`full/cpu1_sb64-qualities`, and the plot of both.

A folder of `av1part compare` gets the tables and reliability diagrams of its report, such as
`gb82-a/scores-16` and `gb82-a/seeds-stage2-weights`, and where predictors are called after their
number of training pictures (`net_13`, `net_25`) `curve-a/learning-curve` with its plot.

A `ties.csv` of tools/near_ties.py gets `ties/near-ties`, and of each predictor
`ties/accuracy-NAME`.

A `scores.csv` (variant, member, figures as fractions, hashes), for what is no training, gets a
table of means and paired tests against its first variant by its first figure.

A `score.json` of experiments/exp13b/exp13b.py gets `study/queries`, and of each of its references
the differences to it, `study/queries-over-ridge`.

Pages of docs/ that quote results are filled likewise; each mark names the experiment.

`make experiments-report` runs this; it changes no tracked file where nothing has changed.
With `--no-pages`, as `make docs` runs it, the pages are left out.
"""

from __future__ import annotations

import csv
import io
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from av1part.metrics.statistics import against_baseline, mean_of
from av1part.report import write_report
from av1part.report.chapters.compared import compared_tables, reliability_picture
from av1part.report.chapters.encodes_tables import named_tables
from av1part.report.chapters.learning_curve import curve_figure
from av1part.report.chapters.sweep import sweep_figures, sweep_tables
from av1part.report.chapters.sweep_tables import difference_cells
from av1part.report.chapters.ties import ties_tables
from av1part.report.draw.pareto import pareto_figure
from av1part.report.draw.svg import to_svg
from av1part.report.published import RUNS
from av1part.report.render.csv import table_csv
from av1part.report.render.latex import table_latex
from av1part.report.render.markdown import table_markdown
from av1part.report.render.tables import Table, count, p_text, percent, points, table
from av1part.report.savings import compare
from av1part.report.sweep import Sweep, load_sweep
from av1part.runs.compared import PICTURES_FILE, read_compared
from av1part.runs.encodes import PLAN_FILE, read_encodes
from av1part.runs.ties import TIES_FILE, read_ties
from av1part.system.errors import Av1partError, ReportError
from av1part.system.files import load_json, slug, write_text

ROOT = Path(__file__).resolve().parents[1]
PAGES = Path("runs/experiments-report")
ADAPTED = ("macro_f1", "accuracy")
"""Scores of Exp 13B that are shown, by their key in score.json."""
CHAPTERS = [ROOT / "docs/conclusions.md"]
"""Pages of docs/ that quote results."""

_SAID = r"<!-- (?P<said>table [\w./-]+|[\w.-]+/[\w./-]+ [^\n]+?) -->"
_MARK = re.compile(_SAID + r"(?P<old>(?:(?!<!--).)*)<!-- end -->", re.DOTALL)


def published_sweeps(root: Path) -> dict[str, Sweep]:
    """Read the sweeps below a folder, by their place in it."""
    found = {}
    for file in sorted(root.rglob(RUNS)):
        found[file.parent.relative_to(root).as_posix()] = load_sweep(file.parent)
    return found


def write_results(sweep: Sweep, out: Path) -> dict[str, Table]:
    """Write a sweep's tables and figures below its folder, of confusions the best and the baseline.

    Returns:
        The tables by name.
    """
    for made in ("tables", "figures"):  # what is no longer drawn goes
        shutil.rmtree(out / made, ignore_errors=True)
    told = sweep_tables(sweep)
    for name, each in told.items():
        write_table(each, out, name, sweep.slug)
    shown = {f"confusion-{slug(name)}" for name in (sweep.variants[0].name, sweep.baseline or "")}
    for name, (figure, _) in sweep_figures(sweep).items():
        if not name.startswith("confusion-") or name in shown:
            write_text(out / "figures" / f"{name}.svg", to_svg(figure))
    return told


def write_encodes(folder: Path) -> dict[str, Table]:
    """Write the tables and plots of a comparison of encodes below its folder.

    Returns:
        The tables by name.
    """
    comparisons = compare(read_encodes(folder))
    tables = write_tables(folder, dict(named_tables(comparisons)))
    for comparison in comparisons:
        place = folder / "figures" / f"pareto-{slug(comparison.anchor.name)}.svg"
        write_text(place, to_svg(pareto_figure(comparison)))
    return tables


def write_compared(folder: Path) -> dict[str, Table]:
    """Write the tables and figures of a comparison of predictors below its folder.

    Returns:
        The tables by name.
    """
    compared = read_compared(folder)
    tables = write_tables(folder, compared_tables(compared))
    write_text(folder / "figures" / "reliability.svg", reliability_picture(compared).svg)
    if (curve := curve_figure(compared)) is not None:
        write_text(folder / "figures" / "learning-curve.svg", to_svg(curve))
    return tables


def write_tables(folder: Path, tables: dict[str, Table]) -> dict[str, Table]:
    """Write tables below a folder, in place of what was made there before, and return them."""
    for made in ("tables", "figures"):
        shutil.rmtree(folder / made, ignore_errors=True)
    for name, each in tables.items():
        write_table(each, folder, name, folder.name)
    return tables


def write_scores(file: Path) -> Table:
    """Sum up a scores.csv, and write that below its folder.

    A variant whose members are not those of the first is shown and not tested.

    Raises:
        ReportError: if the file is damaged.
    """
    try:
        data = pl.read_csv(file)
    except pl.exceptions.PolarsError as error:
        raise ReportError(f"{file} is no CSV ({str(error).splitlines()[0]})") from None
    figures = [name for name, kind in data.schema.items() if kind == pl.Float64]
    named = {"variant", "member"} <= set(data.columns)
    if not figures or not named or data.select("variant", "member").is_duplicated().any():
        raise ReportError(f"{file} needs variant, member (each once) and figures with a point")
    by_variant = {str(key[0]): part for key, part in data.group_by("variant", maintain_order=True)}
    baseline = next(iter(by_variant))
    scores = {
        name: dict(zip(part["member"], part[figures[0]], strict=True))
        for name, part in by_variant.items()
    }
    tested = against_baseline(scores, baseline)
    rows = []
    for name, part in by_variant.items():
        cells = [name, str(len(part))]
        for figure in figures:
            told = mean_of(part[figure].to_list())
            cells.append(f"{percent(told.mean)} ± {percent(told.sd)}")
        rows.append([*cells, *difference_cells(tested.get(name))])
    titles = [figure.replace("_", " ").replace("f1", "F1") for figure in figures]
    shown = table(
        f"Means ± standard deviation over members in percent; of {titles[0]} the difference to "
        f"`{baseline}` in points, its 95% interval and the p of a paired t test (Holm).",
        ("<Variant", "n", *titles, "Difference", "95% interval", "p (Holm)"),
        rows,
        0,
    )
    write_table(shown, file.parent, "scores", file.parent.name)
    return shown


def write_adapted(file: Path) -> dict[str, Table]:
    """Tabulate a score.json of Exp 13B below its folder.

    Returns:
        The tables by name.

    Raises:
        ReportError: if it has no scores, since scoring did not come to its end.
    """
    said = load_json(file)
    if "scores" not in said:
        raise ReportError(f"{file} says that meta-test was opened, and has no scores: score again")
    chosen = ", ".join(
        f"`{name}` {own['rates'][str(own['steps'])]:g} for {own['steps']} steps"
        for name, own in said["choice"]["chosen"].items()
    )
    rows = [
        [name, *(cell for metric in ADAPTED for cell in _with_interval(own[metric], percent))]
        for name, own in said["scores"].items()
    ]
    caption = (
        f"Queries of {said['tasks']} pictures at a qindex ({said['pictures']} pictures, "
        f"{count(said['queries'])} blocks, {count(said['labels'])} labels in the "
        "supports), in percent, means over seeds, with 95% intervals from a bootstrap over the "
        f"pictures. `@k`: after k steps. Rates chosen on val: {chosen}."
    )
    columns = ("<Predictor", "Macro-F1", "95% interval", "Accuracy", "95% interval")
    made = {"queries": table(caption, columns, rows, 0)}
    for reference, others in said["differences"].items():
        rows = [
            [
                name,
                *_with_interval(own["macro_f1"], points),
                p_text(own["macro_f1"]["p"]),
                p_text(own["macro_f1"]["p_holm"]),
            ]
            for name, own in others.items()
        ]
        caption = (
            f"Macro-F1 of each less that of `{reference}` on the same queries, in points, with 95% "
            "intervals from a bootstrap over the pictures; p of a test that is paired by picture, "
            "and by Holm's correction for all rows."
        )
        columns = ("<Predictor", "Difference", "95% interval", "p", "p (Holm)")
        made[f"queries-over-{slug(reference)}"] = table(caption, columns, rows)
    return write_tables(file.parent, made)


def _with_interval(of: Mapping[str, Any], show: Callable[[float | None], str]) -> list[str]:
    return [show(of["estimate"]), f"[{show(of['low'])}, {show(of['high'])}]"]


def write_table(told: Table, out: Path, name: str, label: str) -> None:
    """Write a table as Markdown, CSV and LaTeX."""
    write_text(out / "tables" / f"{name}.md", table_markdown(told) + "\n")
    write_text(out / "tables" / f"{name}.csv", table_csv(told))
    write_text(out / "tables" / f"{name}.tex", table_latex(told, f"tab:{label}-{name}"))


def fill(text: str, tables: Mapping[str, Table], where: str) -> str:
    """Put tables and cells between a page's marks.

    Args:
        text: The page.
        tables: By place and name, `all/comparison`.
        where: What to call the page in an error.

    Returns:
        The page.

    Raises:
        ReportError: if a mark names what there is not.
    """

    def filled(mark: re.Match[str]) -> str:
        said = mark["said"]
        words = said.split()
        name = words[1] if words[0] == "table" and len(words) == 2 else words[0]
        if name not in tables:
            raise ReportError(f"{where}: no table {name}; there are {', '.join(tables)}")
        if words[0] == "table":
            return f"<!-- {said} -->\n{table_markdown(tables[name])}\n<!-- end -->"
        value = cell(tables[name], words[1], " ".join(words[2:]), where)
        return f"<!-- {said} -->{value}<!-- end -->"

    new, count = _MARK.subn(filled, text)
    if count != len(re.findall(_SAID, text)) or count != text.count("<!-- end -->"):
        raise ReportError(f"{where}: a mark without its <!-- end -->, or an end without its mark")
    return new


def cell(told: Table, row: str, column: str, where: str) -> str:
    """Return a cell by its row's first cell and its column's title, `title 2` for the second."""
    rows = list(csv.reader(io.StringIO(table_csv(told))))
    title, _, number = column.rpartition(" ")
    columns = [i for i, each in enumerate(rows[0]) if each == column]
    if not columns and number.isdigit():
        columns = [i for i, each in enumerate(rows[0]) if each == title]
        columns = columns[int(number) - 1 : int(number)]
    found = [each for each in rows[1:] if each[0] == row]
    if not columns or not found:
        raise ReportError(f"{where}: no cell of row {row!r} and column {column!r}")
    return re.sub(r"-(?=\d)", "−", found[0][columns[0]])


def report(root: Path, pages: Path | None, chapters: Sequence[Path] = ()) -> None:
    """Write all of it.

    Args:
        root: The folder of the experiments.
        pages: Folder for their pages, which hold pictures and are not kept; None makes none.
        chapters: Pages elsewhere that quote results.
    """
    tables: dict[str, Table] = {}
    for place, sweep in published_sweeps(root).items():
        results = write_results(sweep, root / place)
        tables |= {f"{place}/{name}": result for name, result in results.items()}
        if pages is not None:
            print("report:", write_report([root / place], pages / place).html)
    for told_by, write in ((PLAN_FILE, write_encodes), (PICTURES_FILE, write_compared)):
        for folder in sorted(file.parent for file in root.rglob(told_by)):
            place = folder.relative_to(root).as_posix()
            made = write(folder)
            tables |= {f"{place}/{name}": result for name, result in made.items()}
            if pages is not None:
                print("report:", write_report([folder], pages / place).html)
    for file in sorted(root.rglob(TIES_FILE)):
        if file.parent.name != "tables":
            place = file.parent.relative_to(root).as_posix()
            made = write_tables(file.parent, ties_tables(read_ties(file)))
            tables |= {f"{place}/{name}": result for name, result in made.items()}
    for file in sorted(root.rglob("score.json")):
        place = file.parent.relative_to(root).as_posix()
        tables |= {f"{place}/{name}": made for name, made in write_adapted(file).items()}
    for file in sorted(root.rglob("scores.csv")):
        if file.parent.name != "tables":
            place = file.parent.relative_to(root).as_posix()
            tables[f"{place}/scores"] = write_scores(file)
    fill_pages(root, chapters, tables)


def fill_pages(root: Path, chapters: Sequence[Path], tables: Mapping[str, Table]) -> None:
    """Put tables and cells into the experiments' own pages, and into the chapters."""
    pages = [page for page in sorted(root.rglob("README.md")) if page.parent != root]
    for page in (*chapters, *pages):
        known = dict(tables)
        if page not in chapters:
            own = f"{page.parent.relative_to(root).as_posix()}/"
            near = {name for name in tables if name.startswith(own)}
            known |= {name.removeprefix(own): tables[name] for name in near}
        text = page.read_text(encoding="utf-8")
        if (new := fill(text, known, str(page))) != text:
            write_text(page, new)


if __name__ == "__main__":
    try:
        report(ROOT / "experiments", None if "--no-pages" in sys.argv[1:] else PAGES, CHAPTERS)
    except (Av1partError, OSError) as error:
        print(f"experiments-report: {error}", file=sys.stderr)
        sys.exit(2)
