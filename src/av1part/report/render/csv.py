"""Tables as CSV."""

from __future__ import annotations

import csv
import io

from av1part.report.render.tables import EMPTY_CELL, Table


def table_csv(tab: Table) -> str:
    """Render a table as CSV, numbers as they are printed, with a plain minus."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([title.removeprefix("<") for title in tab.columns])
    plain = str.maketrans({"−": "-", EMPTY_CELL: ""})
    writer.writerows([cell.translate(plain) for cell in row] for row in tab.rows)
    return buffer.getvalue()
