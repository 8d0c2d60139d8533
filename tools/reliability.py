"""Run the tests of faults with their long figures, and write those to docs/reliability.md.

    make reliability                          every part
    make reliability ARGS='kill fuzz'         these, each a tests/reliability/test_PART.py
    make reliability ARGS='fuzz -- -k store'  pytest's words after the dashes

The figures are kept in docs/reliability.csv, a row a fault; a fault that is tried again replaces
its row. If a test fails the command exits with 1, and its fault has the row that it had, or says
what was lost.
"""

from __future__ import annotations

import csv
import datetime
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from av1part.system.environment import git_commit
from av1part.system.files import write_csv, write_text

ROOT = Path(__file__).resolve().parents[1]
TESTS = ROOT / "tests" / "reliability"
FIGURES = ROOT / "docs" / "reliability.csv"
PAGE = ROOT / "docs" / "reliability.md"
_TABLE = re.compile(r"(<!-- figures -->\n).*?(<!-- end -->)", re.DOTALL)


def parts() -> list[str]:
    """Return the names of what can be run."""
    return sorted(file.stem.removeprefix("test_") for file in TESTS.glob("test_*.py"))


def run(part: str, words: Sequence[str] = ()) -> tuple[list[dict[str, str]], bool]:
    """Run one part, with further words for pytest; return its rows and whether its tests passed."""
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.jsonl"
        command = [sys.executable, "-m", "pytest", "-q", "-s", str(TESTS / f"test_{part}.py")]
        command += words
        environment = {**os.environ, "AV1PART_RELIABILITY": str(rows)}
        done = subprocess.run(command, cwd=ROOT, env=environment, check=False)
        lines = rows.read_text(encoding="utf-8").splitlines() if rows.is_file() else []
    stamp = {"commit": git_commit() or "", "date": datetime.date.today().isoformat()}
    return [{**json.loads(line), **stamp} for line in lines], done.returncode == 0


def read() -> list[dict[str, str]]:
    """Return the figures kept so far."""
    if not FIGURES.is_file():
        return []
    with FIGURES.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def merged(kept: list[dict[str, str]], rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Return the figures with those of the faults that were tried again in place of the old."""
    measured = {row["fault"] for row in rows}
    left = [row for row in kept if row["fault"] not in measured]
    return sorted(left + rows, key=lambda row: row["part"])


def to_table(rows: list[dict[str, str]]) -> str:
    """Return the page's table."""
    lines = ["| fault | tries | lost | how |", "| --- | ---: | ---: | --- |"]
    for row in rows:
        how = f"{row['how']}; `make reliability ARGS={row['part']}`"
        lines.append(f"| {row['fault']} | {int(row['tries']):,} | {row['lost']} | {how} |")
    return "\n".join(lines) + "\n"


def to_page(page: str, rows: list[dict[str, str]]) -> str:
    """Return the page with these figures between its marks."""
    return _TABLE.sub(lambda marks: marks[1] + to_table(rows) + marks[2], page)


def main(argv: Sequence[str]) -> int:
    """Run the chosen parts, or all."""
    chosen, words = list(argv), []
    if "--" in chosen:
        at = chosen.index("--")
        chosen, words = chosen[:at], chosen[at + 1 :]
    unknown = sorted(set(chosen) - set(parts()))
    if unknown:
        print(f"reliability: no part {', '.join(unknown)}: choose of {' '.join(parts())}")
        return 2
    failed = []
    for part in chosen or parts():
        rows, passed = run(part, words)
        kept = merged(read(), rows)
        write_csv(FIGURES, kept)
        write_text(PAGE, to_page(PAGE.read_text(encoding="utf-8"), kept))
        if not passed:
            failed.append(part)
    print(f"reliability: {'failed: ' + ' '.join(failed) if failed else f'written to {PAGE}'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
