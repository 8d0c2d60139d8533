"""Run the benchmarks: `make bench` for all, `make bench ARGS='feeding --repeats 5'` for a part.

Every figure is a ratio of two things run in turn on this machine. Results go to
`benchmarks/results/<machine>.json` and into the tables of `docs/performance.md`. The part
`protocol` takes half an hour and runs only when named.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from av1part.cli.startup import share_cores

share_cores()  # before torch is imported, as the console script does

import feeding  # noqa: E402
import inference  # noqa: E402
import overhead  # noqa: E402
import protocol  # noqa: E402
import superblock  # noqa: E402
import training  # noqa: E402
import trees  # noqa: E402
from rich.console import Console  # noqa: E402

from av1part.system.environment import git_commit, hardware, versions  # noqa: E402
from av1part.system.files import write_json, write_text  # noqa: E402

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
PAGE = HERE.parent / "docs" / "performance.md"
USUAL = ("feeding", "training", "overhead", "inference", "trees", "superblock")


def main() -> None:
    """Run the parts that are asked for and write their results."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parts: dict[str, Callable[[Path, argparse.Namespace], Iterable[Mapping[str, Any]]]] = {
        "feeding": lambda folder, given: feeding.run(folder, repeats=given.repeats),
        "training": lambda folder, given: training.run(folder, repeats=given.repeats),
        "overhead": lambda folder, given: overhead.run(folder, repeats=given.repeats),
        "inference": lambda folder, given: inference.run(folder, repeats=given.repeats),
        "trees": lambda folder, given: trees.run(repeats=given.repeats),
        "superblock": lambda folder, given: superblock.run(folder, repeats=given.repeats),
        "protocol": lambda folder, given: protocol.run(
            folder,
            store=given.store,
            epochs=given.epochs,
            device=given.device,
            methods=given.methods,
        ),
    }
    parser.add_argument(
        "parts", nargs="*", help=f"{', '.join(parts)}; without any, all but the last"
    )
    parser.add_argument("--repeats", type=int, default=3, help="pairs of each comparison")
    parser.add_argument("--store", help="protocol: a dataset, such as Kodak's; else the embedded")
    parser.add_argument("--epochs", type=int, default=50, help="protocol: of the 50, others scaled")
    parser.add_argument("--device", default="cpu", choices=["cpu", "gpu"], help="protocol")
    parser.add_argument(
        "--methods", nargs="+", default=list(protocol.METHODS), choices=list(protocol.METHODS)
    )
    given = parser.parse_args()
    if not set(given.parts) <= parts.keys():
        parser.error(f"parts are {', '.join(parts)}, got {' '.join(given.parts)}")
    name = re.sub(r"[^A-Za-z0-9]+", "-", hardware()["processor"]).strip("-") or platform.machine()
    file = RESULTS / f"{name}.json"
    results = json.loads(file.read_text()) if file.is_file() else {}
    for part in given.parts or USUAL:
        with tempfile.TemporaryDirectory() as folder:
            rows = show(parts[part](Path(folder), given))
        if part == "protocol":  # of which one method may be run alone
            new = {row["what"] for row in rows}
            rows = [r for r in results.get(part, {}).get("rows", []) if r["what"] not in new] + rows
        results[part] = {
            "rows": rows,
            "git_commit": git_commit(),
            "hardware": hardware(),
            "spin_count": os.environ["GOMP_SPINCOUNT"],
            "versions": versions(),
        }
        write_json(file, results)
        fill_page(part, rows)
    Console().print(f"results: {file}\ntables: {PAGE}", soft_wrap=True)


def show(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Print each row as it comes; return them."""
    console, kept = Console(width=160), []
    for row in rows:
        kept.append(dict(row))
        said = ", ".join(f"{key} {cell(value)}" for key, value in row.items())
        console.print(said, markup=False, soft_wrap=True)
    return kept


def cell(value: Any) -> str:
    """Return a value as a table shows it."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def fill_page(part: str, rows: list[dict[str, Any]]) -> None:
    """Put the table of a part between its marks on the page."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
    lines += [f"| {' | '.join(cell(row.get(key, '')) for key in columns)} |" for row in rows]
    start, end = f"<!-- table: {part} -->", "<!-- end of table -->"
    text = PAGE.read_text(encoding="utf-8")
    before, mark, rest = text.partition(start)
    if mark:
        after = rest.partition(end)[2]
        write_text(PAGE, "\n".join([before + start, "", *lines, "", end + after]))


if __name__ == "__main__":
    here = Path.cwd()
    try:
        main()
    finally:
        os.chdir(here)
