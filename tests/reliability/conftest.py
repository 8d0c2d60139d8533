"""What the tests of faults share: how many tries, and where the long figures are written."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

RECORD = "AV1PART_RELIABILITY"
"""Names the file of rows of a `make reliability`; without it the tries are few."""


@dataclass(frozen=True)
class Reliability:
    """How long to try, and where to say what came of it."""

    part: str
    """The test file's name without `test_`: a word of `make reliability ARGS=...`."""

    rows: Path | None

    def pick(self, short: int, long: int) -> int:
        """Return the tries, or seconds, of `make test-all` or of `make reliability`."""
        return long if self.rows else short

    def record(self, fault: str, tries: int, lost: int, how: str) -> None:
        """Write a row of docs/reliability.md, if these are the long figures."""
        print(f"{fault}: {tries} tries, {lost} lost ({how})")
        if self.rows:
            row = {"part": self.part, "fault": fault, "tries": tries, "lost": lost, "how": how}
            with self.rows.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")


@pytest.fixture
def reliability(request: pytest.FixtureRequest) -> Reliability:
    """The tries of this test, and its rows."""
    rows = os.environ.get(RECORD)
    part = request.path.stem.removeprefix("test_")
    return Reliability(part, Path(rows) if rows else None)
