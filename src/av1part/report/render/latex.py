"""A report and its tables as LaTeX, to be included in a document."""

from __future__ import annotations

import re

from av1part.report.render.document import (
    Document,
    Facts,
    Headline,
    Interactive,
    Item,
    Listing,
    Picture,
    Prose,
)
from av1part.report.render.tables import Table


def document_latex(document: Document, label: str) -> str:
    """Render a document as LaTeX sections; pictures are those in `figures/` beside it.

    Args:
        document: The report.
        label: Prefix of the labels of tables and figures.

    Returns:
        LaTeX without a preamble, to be included.
    """
    parts = ["% Written by av1part; needs booktabs, graphicx and textcomp."]
    for chapter in document.chapters:
        parts.append(rf"\section{{{tex(chapter.title)}}}")
        items = [(item, f"{label}-lead-{index}") for index, item in enumerate(chapter.lead)]
        parts += [_item_latex(*item) for item in items]
        for section in chapter.sections:
            parts.append(rf"\subsection{{{tex(section.title)}}}")
            parts += [
                _item_latex(item, f"{label}-{len(parts) + index}")
                for index, item in enumerate(section.items)
            ]
    return "\n\n".join(parts) + "\n"


def _item_latex(item: Item, label: str) -> str:
    match item:
        case Table():
            return table_latex(item, f"tab:{label}").rstrip()
        case Interactive():
            return tex(item.instead)
        case Headline() | Prose():
            return tex(item.text)
        case Facts():
            lines = [rf"  \item[{tex(term)}] {tex(value)}" for term, value in item.pairs]
            return "\n".join([r"\begin{description}", *lines, r"\end{description}"])
        case Listing():
            return "\n".join([r"\begin{verbatim}", item.text.rstrip(), r"\end{verbatim}"])
        case Picture():
            return "\n".join(
                [
                    r"\begin{figure}",
                    r"  \centering",
                    rf"  \includegraphics[width=\linewidth]{{figures/{item.name}.pdf}}",
                    rf"  \caption{{{tex(item.caption)}}}",
                    rf"  \label{{fig:{label}}}",
                    r"\end{figure}",
                ]
            )


def table_latex(tab: Table, label: str) -> str:
    """Render a table as a LaTeX float in the manner of booktabs.

    Args:
        tab: The table.
        label: To refer to it by.

    Returns:
        A `table` environment, no wider than the text; it needs booktabs and graphicx.
    """
    spec = "".join("l" if title.startswith("<") else "r" for title in tab.columns)
    head = " & ".join(tex(title.removeprefix("<")) for title in tab.columns)
    body = []
    for index, row in enumerate(tab.rows):
        cells = [tex(cell) for cell in row]
        if index == tab.strong:
            cells = [rf"\textbf{{{cell}}}" if cell else cell for cell in cells]
        body.append(rf"    {' & '.join(cells)} \\")
    lines = [
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{tex(tab.caption)}}}",
        rf"  \label{{{label}}}",
        _NO_WIDER_THAN_THE_LINE,
        rf"  \begin{{tabular}}{{{spec}}}",
        r"    \toprule",
        rf"    {head} \\",
        r"    \midrule",
        *body,
        r"    \bottomrule",
        r"  \end{tabular}}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


_NO_WIDER_THAN_THE_LINE = (
    r"  \setlength{\tabcolsep}{4pt}\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
)
"""Scales what follows down, where it would run off the page; a narrow table keeps its size."""

_TEX = {
    **{char: f"\\{char}" for char in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "−": "$-$",
    "–": "--",
    "±": r"$\pm$",
    "×": r"$\times$",
    "≠": r"$\neq$",
    "ρ": r"$\rho$",
    "<": "$<$",
    ">": "$>$",
}


def tex(text: str) -> str:
    """Escape text for LaTeX; `code` spans become typewriter."""
    escaped = "".join(_TEX.get(char, char) for char in text)
    return re.sub(r"`([^`]*)`", r"\\texttt{\1}", escaped)
