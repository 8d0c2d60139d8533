"""`av1part data import`: the study's layouts from folder to trained stage; refusals in a line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from av1part import embedded
from av1part.data.store.store import Store

from ..unit.data.legacy.writers import (
    cut,
    frame_lines,
    ten_bit,
    v6_tensors,
    write_raw_blocks,
    write_yuv,
)
from .conftest import TINY, Command
from .test_cli import refused

ONE_EPOCH = (*TINY, "trainer.max_epochs=1")
QINDEX = 128


@pytest.fixture(scope="module")
def ten_bit_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Corners of four pictures in 10 bits, at one qindex, as all of the study's data."""
    out = tmp_path_factory.mktemp("ten") / "store"
    whole = Store.open(embedded.STORE)
    return ten_bit(whole, out, side=192, qindex=QINDEX, most=4)


@pytest.fixture(scope="module")
def raw(ten_bit_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store's 16x16 and 32x32 nodes as raw blocks, four clips."""
    folder = tmp_path_factory.mktemp("raw")
    nodes = ten_bit_store.nodes.filter(pl.col("size").is_in([16, 32]))
    for (seq, _), part in nodes.group_by(["sequence", "size"], maintain_order=True):
        write_raw_blocks(folder, seq, cut(ten_bit_store, part), part["partition"], part["qindex"])
    return folder


@pytest.fixture(scope="module")
def pt(ten_bit_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store's 16x16 nodes as train.pt and val.pt."""
    folder = tmp_path_factory.mktemp("pt") / "block_16"
    folder.mkdir()
    nodes = ten_bit_store.nodes.filter(size=16)
    for split, rows in (("train", slice(0, None, 2)), ("val", slice(1, None, 2))):
        part = nodes[rows]
        made = v6_tensors(cut(ten_bit_store, part), part["partition"], part["qindex"])
        torch.save(made, folder / f"{split}.pt")
    return folder


def test_raw_blocks_from_folder_to_trained_stage(av1part: Command, raw: Path) -> None:
    ran = av1part("data", "import", "raw-blocks", raw, "out=my data")
    assert ran.code == 0, ran.err
    assert "every file as its manifest says" in ran.out
    store = Store.open("my data", verify="full")
    assert len(store.sequences) == 8
    info = av1part("data", "info", "my data")
    assert (info.code, info.out) == (0, ran.out)
    train = ("train", "stage=stage1", "data.path=my data", *ONE_EPOCH)
    refused(av1part(*train, "conditioning=qindex"), "conditioning=qindex", f"qindex {QINDEX}")
    ran = av1part(*train, "name=s1")
    assert ran.code == 0, ran.err
    metrics = json.loads(Path("runs/s1/metrics.json").read_text())
    assert metrics["protocol"] == "by_sequence"
    held = pl.read_parquet("runs/s1/predictions.parquet")["sequence"].unique().to_list()
    assert len(held) == 1
    assert held[0] in set(store.groups.values())  # the clip, not the clip at one block size
    assert av1part("validate", "runs/s1/checkpoints/best.ckpt", "out=again").code == 0


def test_v6_pt_trains_on_its_own_split_or_random_blocks(av1part: Command, pt: Path) -> None:
    ran = av1part("data", "import", "v6-pt", pt, "out=pt")
    assert ran.code == 0, ran.err
    assert "train with data.protocol=given or data.protocol=random_blocks" in ran.out
    train = ("train", "stage=stage1", "data.path=pt", *ONE_EPOCH)
    refused(av1part(*train), "data.protocol=by_sequence does not apply", "add data.protocol=given")
    refused(
        av1part(*train, "data.protocol=by_segment"), "does not apply", "data.protocol=random_blocks"
    )
    refused(av1part(*train, "data.protocol=given", "conditioning=qindex"), "constant")
    counts = {}
    for split in ("given", "random_blocks"):
        ran = av1part(*train, f"data.protocol={split}", f"name={split}")
        assert ran.code == 0, ran.err
        metrics = json.loads(Path("runs", split, "metrics.json").read_text())
        assert metrics["protocol"] == split
        assert metrics["intervals"] == {}, "two files are not two pictures: no interval"
        counts[split] = np.sum(metrics["confusion_matrix"])
    assert av1part("validate", "runs/given/checkpoints/best.ckpt", "out=again").code == 0
    ran = av1part("report", "runs/given", "out=report")
    assert ran.code == 0, ran.err
    (page,) = Path("report").glob("*.html")
    assert "the split the imported data came with; its sequences are unknown" in page.read_text()
    val = torch.load(pt / "val.pt", weights_only=True)
    assert counts["given"] == len(val["qps"])


def test_partition_frames_from_folder_to_trained_stage(
    av1part: Command, ten_bit_store: Store, tmp_path: Path
) -> None:
    for name in ten_bit_store.sequences:
        folder = tmp_path / "clips" / name
        folder.mkdir(parents=True)
        write_yuv(folder / f"{name}_192x192.yuv", ten_bit_store.plane(name))
        nodes = ten_bit_store.nodes.filter(sequence=name)
        (folder / "partition_frame_0.txt").write_text("\n".join(frame_lines(nodes)))
    ran = av1part("data", "import", "partition-frames", tmp_path / "clips", "out=frames")
    assert ran.code == 0, ran.err
    store = Store.open("frames")
    assert store.nodes.height == ten_bit_store.nodes.height
    ran = av1part("train", "stage=stage1", "data.path=frames", *ONE_EPOCH, "name=s1")
    assert ran.code == 0, ran.err
    assert av1part("validate", "runs/s1/checkpoints/best.ckpt", "out=again").code == 0


def test_refusals_are_a_line_and_leave_nothing(av1part: Command, tmp_path: Path) -> None:
    source = tmp_path / "my=raw (1)"
    write_raw_blocks(source, "a", np.zeros((2, 16, 16)), [0, 10], [80, 80])
    words = ("data", "import", "raw-blocks", source)
    refused(av1part(*words, "out=a/b/c"), "a_labels_16_intra.txt: entry 2 is 10")
    refused(av1part(*words), "needs out=DIR")
    refused(av1part(*words, "out=x", "width=64"), "describe the clip of partition-frames")
    refused(av1part(*words, "out=x", "sizes=[12]"), "sizes=[12]")
    refused(av1part(*words, "out=x", "siezs=[8]"), "siezs")
    refused(av1part("data", "import", "raw-block", source, "out=x"), "LAYOUT is one of raw-blocks")
    refused(av1part("data", "import"), "it needs LAYOUT")
    refused(av1part("data", "import", "v6-pt", "out=x"), "it needs PATH")
    refused(av1part("data", "import", "v6-pt", source, "out=x"), "train.pt is missing")
    words = ("data", "import", "partition-frames", source, "out=x", "yuv=a=b (2).yuv")
    refused(av1part(*words), "no partition_frame_<n>.txt")
    assert [p.name for p in tmp_path.iterdir()] == ["my=raw (1)"]
