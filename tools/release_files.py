"""Make the files by which later releases show that they still read this one's.

    .venv/bin/python tools/release_files.py       tests/data/release_MAJOR_MINOR, once a release

A small store, and a Stage 1 and a Stage 2 with adapters of width 8 trained on it, each with its
verification record, calibration and metrics. What a release has written is never written anew: that
is the point of it.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import polars as pl
import torch

from av1part import __version__, embedded
from av1part.cli.main import main
from av1part.data.store.store import Store
from av1part.data.store.writer import StoreWriter
from av1part.runs.schema import sidecar_path
from av1part.system.files import sha256_file, write_json

ROOT = Path(__file__).resolve().parents[1]
SIDE = 96
"""Luma samples a side of the store's pictures."""
WORDS = (
    *("data.path=store", "data.split_list=split.csv", "data.batch_size=16"),
    *("backbone.width=8", "head=linear", "trainer.max_epochs=6"),
    *("logger=none", "cache=off", "callbacks.plots=false"),
)
STAGES = {
    "stage1": ("stage=stage1",),
    "stage2": (
        *("stage=stage2", "method=adapter", "adapter.bottleneck=8"),
        "stage1=runs/stage1/checkpoints/best.ckpt",
    ),
}
FILES = (
    *("checkpoints/best.ckpt", "checkpoints/best.verified.json"),
    *("checkpoints/best.calibration.json", "metrics.json"),
)


def write_store(out: Path) -> None:
    """Write the corners of the embedded pictures, with their 16x16 nodes."""
    whole = Store.open(embedded.STORE)
    writer = StoreWriter(out, {"made": "by tools/release_files.py"})
    for sequence in whole.sequences:
        writer.add_plane(sequence, whole.plane(sequence)[:, :SIDE, :SIDE], 8)
    inside = (pl.max_horizontal("row", "col") + 16 <= SIDE) & (pl.col("size") == 16)
    facts = {s: {"bit_depth": 8} for s in whole.sequences}
    writer.finish(whole.nodes.filter(inside), facts, {"made_by": {"av1part": __version__}})


def leave_out_optimizer(path: Path) -> None:
    """Take the optimizer's state out of a checkpoint, two thirds of it, and record its bytes."""
    checkpoint = torch.load(path, weights_only=True)
    checkpoint |= {"optimizer_states": [], "lr_schedulers": []}
    torch.save(checkpoint, path)
    record = json.loads(sidecar_path(path).read_text(encoding="utf-8"))
    write_json(sidecar_path(path), {**record, "file_sha256": sha256_file(path)})


def run(*words: str) -> None:
    """Run av1part.

    Raises:
        SystemExit: if it fails.
    """
    if main(words):
        raise SystemExit(1)


def make(out: Path) -> None:
    """Make everything in the current folder, then move it to `out`."""
    write_store(Path("store"))
    shutil.copyfile(embedded.SPLIT_LIST, "split.csv")
    for name, words in STAGES.items():
        run("train", *words, *WORDS, f"name={name}")
        checkpoint = Path("runs", name, "checkpoints/best.ckpt")
        if name == "stage1":
            leave_out_optimizer(checkpoint)
        run("calibrate", str(checkpoint))
    for name in STAGES:
        for file in FILES:
            target = Path("out", name, file)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(Path("runs", name, file), target)
    for name in ("store", "split.csv"):
        shutil.move(name, "out")
    shutil.move("out", out)


if __name__ == "__main__":
    out = ROOT / "tests" / "data" / f"release_{'_'.join(__version__.split('.')[:2])}"
    if out.exists():
        sys.exit(f"release_files: {out} is there: what a release wrote stays as it is")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        make(out)
        os.chdir(ROOT)
