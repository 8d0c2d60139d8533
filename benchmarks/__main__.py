"""Run the benchmarks: `make bench` for all, `make bench ARGS='feeding --repeats 5'` for a part.

Every figure is a ratio of two things run in turn on this machine. Results go to
`benchmarks/results/<machine>.json`, the tables to standard output.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from av1part.cli import share_cores

share_cores()  # before torch is imported, as the console script does

import feeding
import training
from rich.console import Console
from rich.table import Table

from av1part.environment import git_commit, hardware, versions
from av1part.files import write_json

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Run the parts that are asked for and write their results."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", help="feeding, training; all unless named")
    parser.add_argument("--repeats", type=int, default=3, help="pairs of each comparison")
    arguments = parser.parse_args()
    parts = arguments.parts or ["feeding", "training"]
    if not set(parts) <= {"feeding", "training"}:
        parser.error(f"parts are feeding and training, got {' '.join(parts)}")
    name = re.sub(r"[^A-Za-z0-9]+", "-", hardware()["processor"]).strip("-") or platform.machine()
    file = RESULTS / f"{name}.json"
    results = json.loads(file.read_text()) if file.is_file() else {}
    for part in parts:
        if part == "feeding":
            rows = show(part, feeding.run(repeats=arguments.repeats))
        else:
            with tempfile.TemporaryDirectory() as folder:
                rows = show(part, training.run(Path(folder), repeats=arguments.repeats))
        results[part] = {
            "rows": rows,
            "git_commit": git_commit(),
            "hardware": hardware(),
            "versions": versions(),
        }
        write_json(file.resolve(), results)
    Console().print(f"results: {file}", soft_wrap=True)


def show(title: str, rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Print rows as a table when all are there, each as it comes; return them."""
    console, kept = Console(width=120), []
    for row in rows:
        kept.append(dict(row))
        console.print(f"{row['what']}, batch {row['batch']}: {row['ratio']:.2f} x", markup=False)
    table = Table(*kept[0], title=title, title_justify="left")
    for row in kept:
        table.add_row(*(f"{v:,.2f}" if isinstance(v, float) else str(v) for v in row.values()))
    console.print(table)
    return kept


if __name__ == "__main__":
    here = Path.cwd()
    try:
        main()
    finally:
        os.chdir(here)
