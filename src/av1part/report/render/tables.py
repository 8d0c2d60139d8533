"""Tables as rows of text, rendered to Markdown and to HTML here and nowhere else."""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

from av1part.runs.fields import Interval

NOTHING = "–"
"""What a cell shows where the run recorded nothing."""


@dataclass(frozen=True)
class Table:
    """A table of text cells under a caption.

    Attributes:
        caption: What one sees and how it was computed; Markdown code spans allowed.
        columns: Titles; one that starts with `<` heads text, set left, all others numbers.
        rows: Cells, as many as columns; code spans allowed.
        strong: Index of the row the table is about, if one stands out.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    strong: int | None = None

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"row {row} does not have the {len(self.columns)} columns")


def table(
    caption: str, columns: Sequence[str], rows: Sequence[Sequence[str]], strong: int | None = None
) -> Table:
    """Return a table from any sequences of text, see `Table`."""
    return Table(caption, tuple(columns), tuple(tuple(row) for row in rows), strong)


def to_markdown(tab: Table) -> str:
    """Render a table as Markdown, padded so that it also reads as plain text."""
    titles = [title.removeprefix("<") for title in tab.columns]
    lines = [[_md(cell) for cell in row] for row in (titles, *tab.rows)]
    if tab.strong is not None:
        lines[tab.strong + 1] = [f"**{cell}**" if cell else "" for cell in lines[tab.strong + 1]]
    left = [title.startswith("<") for title in tab.columns]
    widths = [max(3, *(len(line[i]) for line in lines)) for i in range(len(titles))]
    rule = [
        "-" * w if is_left else "-" * (w - 1) + ":" for w, is_left in zip(widths, left, strict=True)
    ]
    padded = [
        [
            c.ljust(w) if is_left else c.rjust(w)
            for c, w, is_left in zip(line, widths, left, strict=True)
        ]
        for line in (lines[0], rule, *lines[1:])
    ]
    body = "\n".join("| " + " | ".join(line) + " |" for line in padded)
    return f"{tab.caption}\n\n{body}"


def to_html(tab: Table) -> str:
    """Render a table as an HTML figure that scrolls sideways on a narrow window."""
    classes = ["text" if title.startswith("<") else "num" for title in tab.columns]
    head = "".join(
        f'<th scope="col" class="{c}">{inline_html(title.removeprefix("<"))}</th>'
        for c, title in zip(classes, tab.columns, strict=True)
    )
    body = []
    for index, row in enumerate(tab.rows):
        cells = "".join(
            f'<td class="{c}">{inline_html(v)}</td>' for c, v in zip(classes, row, strict=True)
        )
        strong = ' class="strong"' if index == tab.strong else ""
        body.append(f"<tr{strong}>{cells}</tr>")
    return (
        f'<figure class="table"><figcaption>{inline_html(tab.caption)}</figcaption>\n'
        f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n'
        + "\n".join(body)
        + "\n</tbody></table></div></figure>"
    )


def to_csv(tab: Table) -> str:
    """Render a table as CSV, numbers as they are printed, with a plain minus."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([title.removeprefix("<") for title in tab.columns])
    plain = str.maketrans({"−": "-", NOTHING: ""})
    writer.writerows([cell.translate(plain) for cell in row] for row in tab.rows)
    return buffer.getvalue()


def to_latex(tab: Table, label: str) -> str:
    """Render a table as a LaTeX float in the manner of booktabs.

    Args:
        tab: The table.
        label: To refer to it by.

    Returns:
        A `table` environment; it needs the package booktabs.
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
        rf"  \begin{{tabular}}{{{spec}}}",
        r"    \toprule",
        rf"    {head} \\",
        r"    \midrule",
        *body,
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


_TEX = {
    **{char: f"\\{char}" for char in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "−": "$-$",
    "–": "--",
    "±": r"$\pm$",
    "×": r"$\times$",
    "ρ": r"$\rho$",
    "<": "$<$",
    ">": "$>$",
}


def tex(text: str) -> str:
    """Escape text for LaTeX; `code` spans become typewriter."""
    escaped = "".join(_TEX.get(char, char) for char in text)
    return re.sub(r"`([^`]*)`", r"\\texttt{\1}", escaped)


def inline_html(text: str) -> str:
    """Escape text for HTML; `code` spans become elements."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", html.escape(text))


def _md(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")


def percent(value: float | None) -> str:
    """Return a fraction in percent with two decimals.

    >>> percent(0.47741)
    '47.74'
    """
    return NOTHING if value is None else _signless(f"{100 * value:.2f}")


def points(value: float | None, scale: float = 100.0) -> str:
    """Write a difference in percentage points with its sign.

    Args:
        value: The difference, a fraction unless `scale` says otherwise.
        scale: What makes it percentage points.

    Returns:
        Two decimals, or `NOTHING` for None.

    >>> points(-0.1002), points(0.5, scale=1)
    ('−10.02', '+0.50')
    """
    if value is None:
        return NOTHING
    text = f"{scale * value:+.2f}"
    return "0.00" if float(text) == 0 else text.replace("-", "−")


def span(interval: Interval | None, *, signed: bool = False) -> str:
    """Return the ends of an interval of fractions in percent.

    >>> span(Interval(0.5, 0.4, 0.6))
    '[40.00, 60.00]'
    """
    if interval is None or interval.low is None or interval.high is None:
        return NOTHING
    show = points if signed else percent
    return f"[{show(interval.low)}, {show(interval.high)}]"


def count(value: float | None) -> str:
    """Return a count with its thousands set off.

    >>> count(11213858)
    '11,213,858'
    """
    return NOTHING if value is None else f"{value:,.0f}"


def _signless(text: str) -> str:
    return text.replace("-", "−")
