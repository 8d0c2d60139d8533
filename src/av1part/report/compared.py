"""From a folder of `av1part compare` to its page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from av1part.report.chapters.compared import compared_document, compared_tables
from av1part.report.files import ReportFiles, write_latex_tables, write_parts
from av1part.report.render.document import Headline
from av1part.runs.compared import read_compared
from av1part.system.files import write_text


def write_compared_report(folder: Path, out: Path | None = None) -> ReportFiles:
    """Write page, Markdown, plots and LaTeX tables about a folder of `av1part compare`.

    The same folder gives the same bytes.

    Args:
        folder: With scores.json and pictures.parquet.
        out: Folder to write to, made if needed; `folder` itself if None.

    Returns:
        The files that were written.

    Raises:
        ReportError: if a file is missing, damaged, or contradicts the other; nothing is written
            then.
    """
    compared = read_compared(folder)
    document, tables = compared_document(compared), compared_tables(compared)
    place = folder if out is None else out
    files, html = write_parts(document, place)
    write_latex_tables(tables, place)
    write_text(files.html, html)
    items = document.chapters[0].items
    return replace(files, headline=next(i.text for i in items if isinstance(i, Headline)))
