"""`av1part doctor`: versions and machine, features that would fail here, and the remedies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from av1part.cli.doctor import ProbeResult, Problem
from av1part.cli.doctor.probes import (
    embedded_store,
    memory_and_cores,
    programs,
    space,
    surroundings,
    text_encoding,
)
from av1part.cli.doctor.stack import gpus, packages, try_imports
from av1part.system.errors import ConfigError, first_line
from av1part.system.terminal import printable


def run(verb: str, cfg: Any, words: Sequence[str]) -> None:
    """Probe this machine and print the results.

    Args:
        verb: `doctor`.
        cfg: Not used: doctor must also run where no configuration can be composed.
        words: Not used.

    Raises:
        ConfigError: if nothing can be trained here, with the first reason.
    """
    results = examine()
    problems = [problem for result in results for problem in result.problems]
    console = Console(markup=False, emoji=False, highlight=False)
    console = Console(width=max(console.width, 110), markup=False, emoji=False, highlight=False)
    console.print(_results_table(results))
    if problems:
        console.print(_problems_table(problems))
    else:
        console.print("nothing that av1part does would fail here")
    fatal = [problem for problem in problems if problem.fatal]
    if fatal:
        more = f" (and {len(fatal) - 1} more, see above)" if len(fatal) > 1 else ""
        raise ConfigError(f"{fatal[0]}{more}")


def examine() -> list[ProbeResult]:
    """Run all probes, whatever the environment; the results are in the order of the table."""
    imports = try_imports()
    probes: dict[str, Callable[[], ProbeResult]] = {
        "versions": lambda: packages(imports),
        "GPUs": lambda: gpus(imports),
        "surroundings": surroundings,
        "programs": programs,
        "disk space": space,
        "memory and cores": lambda: memory_and_cores(imports.get("threads")),
        "text": text_encoding,
        "embedded dataset": embedded_store,
    }
    return [_examined(title, probe) for title, probe in probes.items()]


def _examined(title: str, probe: Callable[[], ProbeResult]) -> ProbeResult:
    """Run a probe; an error that ends it is a problem, and the other probes go on."""
    try:
        return probe()
    except Exception as error:
        reason = f"this cannot be examined ({type(error).__name__}: {first_line(error)})"
        problem = Problem(title, reason, "mend what is reported beside it, or report this line")
        return ProbeResult(title, ((title, "not examined"),), (problem,))


def _results_table(results: Sequence[ProbeResult]) -> Table:
    table = Table("", "", "found", title="av1part doctor", title_justify="left")
    for result in results:
        table.add_section()
        for i, (name, value) in enumerate(result.rows):
            table.add_row("" if i else result.title, printable(name), printable(value))
    return table


def _problems_table(problems: Sequence[Problem]) -> Table:
    table = Table(title="what would fail here", title_justify="left", show_lines=True)
    for column in ("what", "because", "remedy"):
        table.add_column(column, overflow="fold")
    for problem in sorted(problems, key=lambda problem: not problem.fatal):
        style = "bold red" if problem.fatal else None
        cells = (problem.feature, problem.reason, problem.remedy)
        table.add_row(*map(printable, cells), style=style)
    return table
