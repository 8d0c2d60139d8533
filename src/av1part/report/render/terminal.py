"""Tables on a terminal."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.table import Table as RichTable
from rich.text import Text

from av1part.report.render.tables import Table


def terminal_table(tab: Table, title: str | None = None) -> RichTable:
    """Return a table that rich prints: text left, numbers right, nothing read as markup.

    Args:
        tab: The table.
        title: What stands above it; the caption, unless given.

    Returns:
        The table; titles wider than their columns are broken into lines.
    """
    shown = RichTable(
        title=Text(tab.caption if title is None else title),
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    for index, column in enumerate(tab.columns):
        widest = max((len(row[index]) for row in tab.rows), default=0)
        heading = _plain(column.removeprefix("<"))
        if len(heading) > widest:  # or a title would widen its column
            heading = heading.replace(" ", "\n")
        shown.add_column(Text(heading), justify="left" if column.startswith("<") else "right")
    for index, row in enumerate(tab.rows):
        style = "bold" if index == tab.strong else None
        shown.add_row(*(Text(_plain(cell)) for cell in row), style=style)
    return shown


def _plain(text: str) -> str:
    return text.replace("`", "")
