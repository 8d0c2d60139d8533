"""`av1part doctor`: versions and machine, and what would fail here, with the remedy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from av1part.cli.doctor import Section, Trouble
from av1part.cli.doctor.probes import embedded_store, programs, room, strength, text
from av1part.cli.doctor.stack import gpus, packages, try_imports
from av1part.system.errors import ConfigError
from av1part.system.terminal import printable


def run(verb: str, cfg: Any, words: Sequence[str]) -> None:
    """Look at this machine and print what is found.

    Args:
        verb: `doctor`.
        cfg: Not used: it must also run where configurations cannot be composed.
        words: None are taken.

    Raises:
        ConfigError: if nothing can be trained here, with the first reason.
    """
    sections = examine()
    troubles = [trouble for section in sections for trouble in section.troubles]
    console = Console(markup=False, emoji=False, highlight=False)
    console = Console(width=max(console.width, 110), markup=False, emoji=False, highlight=False)
    console.print(_facts(sections))
    if troubles:
        console.print(_what_fails(troubles))
    else:
        console.print("nothing that av1part does would fail here")
    needed = [trouble for trouble in troubles if trouble.needed]
    if needed:
        more = f" (and {len(needed) - 1} more, see above)" if len(needed) > 1 else ""
        raise ConfigError(f"{needed[0]}{more}")


def examine() -> list[Section]:
    """Return everything that is looked at, in the order in which it is shown."""
    said = try_imports()
    machine = (programs(), room(), strength(said.get("threads")), text(), embedded_store())
    return [packages(said), gpus(said), *machine]


def _facts(sections: Sequence[Section]) -> Table:
    table = Table("", "", "found", title="av1part doctor", title_justify="left")
    for section in sections:
        table.add_section()
        for i, (name, value) in enumerate(section.rows):
            table.add_row("" if i else section.title, printable(name), printable(value))
    return table


def _what_fails(troubles: Sequence[Trouble]) -> Table:
    table = Table(title="what would fail here", title_justify="left", show_lines=True)
    for column in ("what", "because", "remedy"):
        table.add_column(column, overflow="fold")
    for trouble in sorted(troubles, key=lambda each: not each.needed):
        style = "bold red" if trouble.needed else None
        cells = (trouble.fails, trouble.why, trouble.remedy)
        table.add_row(*map(printable, cells), style=style)
    return table
