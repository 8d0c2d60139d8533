"""What a page says of the time that labels and adapting took."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from av1part.report.chapters.adapting import seconds_text
from av1part.runs.compared import Compared
from av1part.runs.fields import Fields

ENCODED = "full search of the labelled frames 8.0 s (2 encoders at a time)"
SCORED = "full search of the held-back frames 9.0 s (2 encoders at a time)"


@pytest.mark.parametrize(
    ("labelled", "held_back", "text"),
    [
        ("there", "there", "labels were there already; adapting 0.5 s"),
        ("encoded", "encoded", f"{ENCODED}, adapting 0.5 s; for the scores alone, {SCORED}"),
        (
            *("there", "encoded"),
            "labels of the labelled frames were there already, adapting 0.5 s; for the scores "
            f"alone, {SCORED}",
        ),
        (
            *("encoded", "there"),
            f"{ENCODED}, adapting 0.5 s; for the scores alone, labels of the held-back frames were "
            "there already",
        ),
        (
            *("resumed", "encoded"),
            "full search of the labelled frames took an unknown time (a stopped run was resumed), "
            f"adapting 0.5 s; for the scores alone, {SCORED}",
        ),
    ],
)
def test_each_half_is_said_by_itself(labelled: str, held_back: str, text: str) -> None:
    origin = {"labelled": labelled, "held_back": held_back}
    known = {"labelled": 8.0, "held_back": 9.0}
    seconds = {part: known[part] if origin[part] == "encoded" else None for part in origin}
    own = {"jobs": 2, "origin": origin, "seconds": {**seconds, "adapting": 0.5}}
    record = Fields({"adapting": own}, Path("scores.json"))
    assert seconds_text(Compared(Path(), record, pl.DataFrame())) == text
