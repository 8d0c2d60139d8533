"""Hostile files: each is read, or refused in one clear line; no crash, no hang, bounded memory.

`FUZZ_SEED=7 make reliability ARGS=fuzz` starts from another seed; a try is repeated by

    python -m tests.reliability.fuzz.child TARGET 0.1 SEED FOLDER
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .conftest import Reliability
from .fuzz.case import MEMORY, SECONDS, TARGETS

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow

QUIET = {
    "OMP_NUM_THREADS": "1",
    # Pools of threads and of memory that are made ahead would count as taken by the input.
    "POLARS_MAX_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
}


def fuzz(target: str, seconds: int, folder: Path) -> dict[str, Any]:
    """Run a target in a process of its own; return what came of it."""
    seed = os.environ.get("FUZZ_SEED", "0")
    done = subprocess.run(
        [sys.executable, "-m", f"{__package__}.fuzz.child", target, str(seconds), seed, folder],
        cwd=ROOT,
        env={**os.environ, **QUIET},
        stdout=subprocess.PIPE,
        text=True,
        timeout=20 * seconds + 10 * SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{target} ended with {done.returncode}; its input is in {folder}"
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


@pytest.mark.parametrize(
    "target",
    [pytest.param(t, marks=pytest.mark.patched if t == "hints" else ()) for t in TARGETS],
)
def test_hostile_input_is_refused_in_one_line(
    target: str, reliability: Reliability, tmp_path: Path
) -> None:
    seconds = reliability.pick(5, 600)
    said = fuzz(target, seconds, tmp_path / target)
    lost = sum(said["lost"].values())
    how = (
        f"{seconds} CPU-seconds of hypothesis, seeds {said['seeds'][0]} to {said['seeds'][1]}: "
        f"{said['taken']} read, {said['refused']} refused in one line; at most "
        f"{said['memory'] >> 20} MiB above the start (limit {MEMORY >> 20}) and "
        f"{said['slowest']:.1f} s a try (limit {SECONDS})"
    )
    reliability.record(f"hostile input to {target}", said["tries"], lost, how)
    assert not lost, said["lost"]
    # A target that takes everything, or nothing, tries nothing.
    assert min(said["taken"], said["refused"]) > 0
