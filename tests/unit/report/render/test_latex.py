"""Tables in LaTeX, compiled where there is a LaTeX."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from av1part.report import write_report
from av1part.report.render.latex import table_latex
from av1part.report.render.tables import table

Compile = Callable[[str, Path], list[str]]


@pytest.mark.parametrize("columns", [2, 30])
def test_no_table_runs_off_the_page(columns: int, overfull: Compile, tmp_path: Path) -> None:
    titles = ["<Point", *(f"95% {n}" for n in range(columns))]
    rows = [["`cpu1`_a & b", *["−1.50 ± ≠ × <"] * columns]]
    tab = table("Of `a_b`, 95% & more.", titles, rows)
    assert overfull(table_latex(tab, "tab:x"), tmp_path) == []


def test_tables_of_encodes_and_comparisons_compile(
    overfull: Compile,
    encodes_examples: ModuleType,
    compared_examples: ModuleType,
    tmp_path: Path,
) -> None:
    encodes, compared = tmp_path / "encodes", tmp_path / "compared"
    points, clips = encodes_examples.CLAIM, encodes_examples.clips(3, "photographs", "screen")
    rows = list(encodes_examples.rows(points, list(clips), noise=0.05))
    encodes_examples.write_encodes(encodes, points, clips, rows, ("cpu1_sb64", "cpu0"))
    compared_examples.write_compared_example(compared)
    for folder in (encodes, compared):
        write_report([folder], folder)
        files = sorted((folder / "tables").glob("*.tex"))
        assert files
        body = "\\clearpage\n".join(rf"\input{{tables/{file.stem}}}" for file in files)
        assert overfull(body, folder) == []
