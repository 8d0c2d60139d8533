"""The files of a report: report.html, report.md and the plots."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from av1part.report.render.document import Document
from av1part.report.render.html import document_html
from av1part.report.render.markdown import document_markdown
from av1part.system.files import write_text


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
