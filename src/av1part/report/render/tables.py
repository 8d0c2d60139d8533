"""A table of text cells, and how numbers are written in a cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from av1part.metrics.intervals import Interval

EMPTY_CELL = "–"
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

    def without(self, *titles: str) -> Table:
        """Return the table without the columns of these titles."""
        kept = [i for i, title in enumerate(self.columns) if title.removeprefix("<") not in titles]
        columns = tuple(self.columns[i] for i in kept)
        rows = tuple(tuple(row[i] for i in kept) for row in self.rows)
        return Table(self.caption, columns, rows, self.strong)


def parts(tab: Table, title: str) -> list[Table]:
    """Split a table that is too wide for a terminal.

    Args:
        tab: The table.
        title: Of a column.

    Returns:
        The columns before it; the columns of text, that one and those after it. The table itself
        if it has no such column.
    """
    if title not in tab.columns:
        return [tab]
    at = tab.columns.index(title)
    text = [i for i, column in enumerate(tab.columns[:at]) if column.startswith("<")]
    return [
        table(
            tab.caption,
            [tab.columns[i] for i in kept],
            [[row[i] for i in kept] for row in tab.rows],
            tab.strong,
        )
        for kept in (range(at), [*text, *range(at, len(tab.columns))])
    ]


def table(
    caption: str, columns: Sequence[str], rows: Sequence[Sequence[str]], strong: int | None = None
) -> Table:
    """Return a table from any sequences of text, see `Table`."""
    return Table(caption, tuple(columns), tuple(tuple(row) for row in rows), strong)


def percent(value: float | None) -> str:
    """Return a fraction in percent with two decimals.

    >>> percent(0.47741)
    '47.74'
    """
    return EMPTY_CELL if value is None else f"{100 * value:.2f}".replace("-", "−")


def points(value: float | None, scale: float = 100.0) -> str:
    """Return a difference in percentage points with its sign.

    Args:
        value: The difference, a fraction unless `scale` says otherwise.
        scale: What makes it percentage points.

    Returns:
        Two decimals, or `EMPTY_CELL` for None.

    >>> points(-0.1002), points(0.5, scale=1)
    ('−10.02', '+0.50')
    """
    if value is None:
        return EMPTY_CELL
    text = f"{scale * value:+.2f}"
    return "0.00" if float(text) == 0 else text.replace("-", "−")


def span(interval: Interval | None, *, signed: bool = False) -> str:
    """Return the ends of an interval of fractions in percent.

    >>> span(Interval(0.5, 0.4, 0.6))
    '[40.00, 60.00]'
    """
    if interval is None or interval.low is None or interval.high is None:
        return EMPTY_CELL
    show = points if signed else percent
    return f"[{show(interval.low)}, {show(interval.high)}]"


def nats(value: float | None, *, signed: bool = False) -> str:
    """Return a log loss or a difference of two, with three decimals.

    >>> nats(1.0964), nats(-0.25, signed=True)
    ('1.096', '−0.250')
    """
    if value is None:
        return EMPTY_CELL
    text = f"{value:{'+' if signed else ''}.3f}"
    return "0.000" if float(text) == 0 else text.replace("-", "−")


def nats_span(interval: Interval | None, *, signed: bool = False) -> str:
    """Return the ends of an interval of log losses.

    >>> nats_span(Interval(-0.1, -0.15, 0.02), signed=True)
    '[−0.150, +0.020]'
    """
    if interval is None or interval.low is None or interval.high is None:
        return EMPTY_CELL
    return f"[{nats(interval.low, signed=signed)}, {nats(interval.high, signed=signed)}]"


def count(value: float | None) -> str:
    """Return a count with its thousands set off.

    >>> count(11213858)
    '11,213,858'
    """
    return EMPTY_CELL if value is None else f"{value:,.0f}"


def p_text(value: float | None) -> str:
    """Return a p value with four decimals."""
    if value is None:
        return EMPTY_CELL
    return "< 0.0001" if value < 1e-4 else f"{value:.4f}"
