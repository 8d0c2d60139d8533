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


@pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("litdata", "onnxruntime")),
    reason="the peers are not installed: pip install av1part[bench]",
)
def test_training_takes_as_many_blocks_as_are_asked_for(tmp_path: Path) -> None:
    code = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from resampled import prepare
from av1part.cli.main import main
prepare(Path(sys.argv[2]), {"train": 300, "val": 200})
words = "train stage=stage1 method=scratch backbone.width=4 trainer.max_epochs=1 name=run"
assert main([*words.split(), "logger=none", "callbacks.plots=false"]) == 0
print(json.loads(Path("runs/run/timing.json").read_text())["epoch_blocks"])
"""
    words = [sys.executable, "-c", code, str(ROOT / "benchmarks"), str(tmp_path)]
    ran = subprocess.run(words, capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "[300]"
