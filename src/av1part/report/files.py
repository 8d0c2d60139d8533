"""The files of a report: report.html, report.md, the plots, and tables as LaTeX."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from av1part.report.render.document import Document
from av1part.report.render.html import document_html
from av1part.report.render.latex import table_latex
from av1part.report.render.markdown import document_markdown
from av1part.report.render.tables import Table
from av1part.system.files import slug, write_text


@dataclass(frozen=True)
class ReportFiles:
    """The files that a report wrote.

    Attributes:
        html: The page; it needs no other file.
        markdown: The same as Markdown, with links to the plots.
        plots: The drawings as SVG.
        thesis: A section as Markdown and LaTeX, if requested.
        headline: First sentence of a comparison of encodes.
    """

    html: Path
    markdown: Path
    plots: tuple[Path, ...]
    thesis: tuple[Path, ...] = ()
    headline: str = ""


def write_parts(document: Document, out: Path) -> tuple[ReportFiles, str]:
    """Write a document's Markdown and plots.

    Args:
        document: The document.
        out: Folder to write to, made if needed.

    Returns:
        The files of the report, and the text of its page, which is to be written last.
    """
    html, markdown = document_html(document), document_markdown(document)
    plots = []
    for name, svg in document.pictures.items():
        plots.append(out / "plots" / f"{name}.svg")
        write_text(plots[-1], svg)
    files = ReportFiles(out / "report.html", out / "report.md", tuple(plots))
    write_text(files.markdown, markdown)
    return files, html


_OURS = "% Written by av1part, and written anew or removed with its report.\n"


def write_latex_tables(tables: Mapping[str, Table], out: Path) -> None:
    r"""Write tables as LaTeX files of their own, to be included in a document.

    Those that an earlier call left in the folder are removed; a file without its first line stays.

    Args:
        tables: By name, which the file gets and the label, `tab:NAME`, too.
        out: Folder that gets `tables/`, made if needed.
    """
    folder = out / "tables"
    places = {slug(name): tab for name, tab in tables.items()}
    for place, tab in places.items():
        write_text(folder / f"{place}.tex", _OURS + table_latex(tab, f"tab:{place}"))
    for file in folder.glob("*.tex"):
        if file.stem not in places and file.read_bytes().startswith(_OURS.encode()):
            file.unlink()
