"""Files as users have them, each with its right value: tests/data/inputs/make.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from av1part.data.build.sources import open_source
from av1part.system.errors import SourceError

INPUTS = Path(__file__).parents[3] / "data" / "inputs"
EXPECTED: dict[str, dict[str, Any]] = json.loads((INPUTS / "expected.json").read_text())
READ = sorted(name for name, facts in EXPECTED.items() if "refused" not in facts)
REFUSED = sorted(EXPECTED.keys() - set(READ))
READER = ("width", "height", "bit_depth", "frames", "conversion")


@pytest.mark.parametrize("name", READ)
def test_an_input_is_read_as_what_it_is(name: str) -> None:
    expected = dict(EXPECTED[name])
    row, tolerance = expected.pop("luma"), expected.pop("tolerance", 0)
    source = open_source(INPUTS / name)
    frames = list(source.frames())
    assert len(frames) == expected["frames"]
    coding = source.reader.coding.as_json()
    read = {k: getattr(source.reader, k) if k in READER else coding[k] for k in expected}
    assert read == expected
    luma = frames[0][0]
    # The row in the middle of the drawing; the reported files are twice as high.
    assert np.abs(luma[16, : len(row)].astype(int) - row).max() <= tolerance
    assert len(row) == source.reader.width


@pytest.mark.parametrize("name", REFUSED)
def test_an_input_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(SourceError) as caught:
        list(open_source(INPUTS / name).frames())
    assert EXPECTED[name]["refused"] in str(caught.value)
    assert name in str(caught.value)


def test_every_input_has_its_right_value() -> None:
    files = {path.name for path in INPUTS.iterdir()} - {"make.py", "expected.json", "__pycache__"}
    assert files == set(EXPECTED)
