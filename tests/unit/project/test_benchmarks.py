"""The benchmarks start, and keep the page's tables; what they measure is timed nowhere here."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("litdata", "onnxruntime")),
    reason="the peers are not installed: pip install av1part[bench]",
)
def test_they_say_what_they_measure() -> None:
    wrong = subprocess.run(
        [sys.executable, "benchmarks", "speed"], cwd=ROOT, capture_output=True, text=True
    )
    assert wrong.returncode == 2
    parts = wrong.stderr.splitlines()[-1].partition("parts are ")[2]
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    for part in ("feeding", "training", "overhead", "inference", "trees", "superblock", "protocol"):
        assert part in parts
        assert re.search(rf"<!-- table: {part} -->\n.*?<!-- end of table -->", page, re.DOTALL)
