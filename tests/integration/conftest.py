"""Driving the command line as a user does, in this process to save the imports."""

from __future__ import annotations

import base64
import json
import logging
import os
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from av1part import embedded
from av1part.cli.main import main
from av1part.evaluation import forest_cache

TINY = (
    *("backbone.width=4", "logger=none", "data.batch_size=256", "trainer.max_epochs=2"),
    *("callbacks.plots=false", "cache=off"),
)
"""Overrides that train in less than a second."""

META = ("stage=stage2", "method=meta", "method.gap=16", "method.least=4", "method.tasks=2")
"""Tasks of the small dataset; `data.batch_size` is none of their options."""


@dataclass(frozen=True)
class Ran:
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def error_lines(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.startswith("av1part:")]


Command = Callable[..., Ran]


@dataclass(frozen=True)
class Viewer:
    """What the one viewer of a report holds: `planes` is its one layer, [3 + classes, h, w]."""

    classes: list[str]
    sequence: str
    qindex: int
    size: int
    planes: np.ndarray


def read_viewer(page: Path) -> Viewer:
    """Return what the page's viewer is given, as its script reads it."""
    text = page.read_text(encoding="utf-8")
    (found,) = re.findall(r'<script type="application/json">(.*?)</script>', text)
    data = json.loads(found)
    (sequence,) = data["sequences"]
    (frame,) = sequence["frames"]
    ((qindex, layers),) = frame["layers"].items()
    ((size, packed),) = layers.items()
    shape = (3 + len(data["classes"]), *(frame[k] // int(size) for k in ("height", "width")))
    planes = np.frombuffer(zlib.decompress(base64.b64decode(packed)), np.uint8).reshape(shape)
    return Viewer(data["classes"], sequence["name"], int(qindex), int(size), planes)


@pytest.fixture
def av1part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Run `av1part WORDS...` in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(forest_cache, "default_folder", lambda: tmp_path / "cached-trees")
    # What processes of a training meet by: Lightning and torch leave it in the one that began it.
    for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)

    def run(*words: str | Path) -> Ran:
        capsys.readouterr()
        try:
            code = main([str(word) for word in words])
        except SystemExit as stop:
            code = int(stop.code or 0)
        finally:
            # Hydra left handlers on this test's stderr, and `--info` a lower level.
            logging.getLogger().handlers.clear()
            logging.getLogger().setLevel(logging.WARNING)
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def on_small(small_store: Path) -> tuple[str, ...]:
    """Overrides that train on the small dataset, tiny."""
    return (*TINY, f"data.path={small_store}", f"data.split_list={embedded.SPLIT_LIST}")


@pytest.fixture(scope="session")
def meta_words(on_small: tuple[str, ...], stage1: Path) -> tuple[str, ...]:
    """Overrides that train `method=meta` on the small dataset, tiny."""
    own = [word for word in on_small if not word.startswith("data.batch_size")]
    return (*own, *META, f"stage1={stage1}")


@pytest.fixture(scope="session")
def stage1_run(on_small: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished Stage-1 run folder; not to be changed."""
    folder = tmp_path_factory.mktemp("stage1")
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert main(["train", "stage=stage1", "name=s1", *on_small, "callbacks.plots=true"]) == 0
    finally:
        os.chdir(before)
    return folder / "runs" / "s1"


@pytest.fixture(scope="session")
def stage1(stage1_run: Path) -> Path:
    """Its best checkpoint."""
    return stage1_run / "checkpoints" / "best.ckpt"


@pytest.fixture(scope="session")
def stage2(
    on_small: tuple[str, ...], stage1: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A Stage 2 that sends some blocks to every Stage 3; not to be changed."""
    folder = tmp_path_factory.mktemp("stage2")
    before = Path.cwd()
    os.chdir(folder)
    try:
        words = ("train", "stage=stage2", "method=finetune", f"stage1={stage1}")
        for seed in range(10):  # what so short a training comes to differs between machines
            own = ("trainer.max_epochs=6", f"name=s2-{seed}", f"seed={seed}")
            assert main([*words, *on_small, *own]) == 0
            run = folder / "runs" / f"s2-{seed}"
            said = pl.read_parquet(run / "predictions.parquet")
            wrong = said.filter(pl.col("label") != pl.col("prediction"))["prediction"]
            if {"RECT", "AB"} <= {("SPLIT", "RECT", "AB")[each] for each in wrong}:
                return run / "checkpoints" / "best.ckpt"
    finally:
        os.chdir(before)
    raise AssertionError("no seed gives a Stage 2 that errs into RECT and into AB")
