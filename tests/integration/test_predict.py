"""`av1part predict`: tables of any source, hint files, and one line where it cannot."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import zlib
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from av1part import embedded
from av1part.cli.main import main
from av1part.data.serve.blocks import BlockReader
from av1part.data.store.store import Store
from av1part.encoder.hints import KEEP, open_hints
from av1part.partition import Partition, legal_partitions
from av1part.predictors.cascade import load_cascades
from av1part.predictors.table import PROBABILITIES, TABLE_SCHEMA
from av1part.system.files import sha256_file

from ..conftest import corners
from .conftest import TINY, Command

WIDTH, HEIGHT = 100, 72
STAGES = ("stage1", "stage2", "stage3_rect", "stage3_ab")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real decisions at two sizes."""
    return corners(tmp_path_factory.mktemp("data") / "both", 112, [8, 16])


@pytest.fixture(scope="module")
def cascade(store: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """Checkpoints of a cascade at 16x16 and one at 8x8, trained for an epoch, with context."""
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("cascade"))
    words = (*TINY, f"data.path={store}", f"data.split_list={embedded.SPLIT_LIST}")
    words = (*words, "trainer.max_epochs=1", "conditioning=qindex", "data.context=4")
    found: dict[str, list[Path]] = {}
    try:
        for size, stages in ((16, STAGES), (8, STAGES[:3])):
            for stage in stages:
                name = f"{stage}-{size}"
                own = [f"stage1={found['stage1'][-1]}"] if stage != "stage1" else []
                own += [f"stage={stage}", f"data.size={size}", f"name={name}"]
                assert main(["train", *words, *own]) == 0
                best = Path.cwd() / "runs" / name / "checkpoints" / "best.ckpt"
                found.setdefault(stage, []).append(best)
    finally:
        os.chdir(before)
    return found


def write_clip(path: Path, frames: int = 2) -> list[np.ndarray]:
    plane = Store.open(embedded.STORE).plane("chelsea")[0]
    planes = [
        np.ascontiguousarray(plane[i : i + HEIGHT, 3 * i :][:, :WIDTH]) for i in range(frames)
    ]
    grey = bytes([128]) * (WIDTH * HEIGHT // 2)
    with path.open("wb") as file:
        file.write(f"YUV4MPEG2 W{WIDTH} H{HEIGHT} F25:1 Ip C420jpeg\n".encode())
        for luma in planes:
            file.write(b"FRAME\n" + luma.tobytes() + grey)
    return planes


def words_of(cascade: dict[str, list[Path]]) -> list[str]:
    return [f"{stage}=[{','.join(map(str, paths))}]" for stage, paths in cascade.items()]


def test_a_clip_becomes_a_table_and_hint_files(
    av1part: Command, cascade: dict[str, list[Path]], tmp_path: Path
) -> None:
    planes = write_clip(tmp_path / "a clip.y4m")
    ran = av1part(
        *("predict", "a clip.y4m", *words_of(cascade), "out=out", "cq_levels=[32,55]"),
        *("hints=true", "page=true", "policy.tau=[0.8]", "policy.sizes=[16]"),
    )
    assert ran.code == 0, ran.err
    assert "a_clip: 2 frames at 2 qindexes" in ran.out
    table = pl.read_parquet("out/a_clip.parquet")
    assert dict(table.schema) == TABLE_SCHEMA
    counts = dict(table.group_by("size").len().iter_rows())
    assert counts == {s: 4 * (HEIGHT // s) * (WIDTH // s) for s in (8, 16)}
    assert set(table["qindex"]) == {128, 220}
    assert table.equals(table.sort("frame", "qindex", "size", "row", "col"))
    assert table.select(pl.sum_horizontal(PROBABILITIES)).to_series().is_between(0.999, 1.001).all()
    for size in (8, 16):
        illegal = [p for i, p in enumerate(PROBABILITIES) if i not in legal_partitions(size)]
        illegal += ["p8", "p9"]
        assert table.filter(size=size).select(pl.max_horizontal(illegal)).to_series().max() == 0
    # The same as the predictor says, plane by plane.
    found = load_cascades(cascade, calibration="none").predict(planes[1], 8, 220)
    own = table.filter(frame=1, qindex=220, size=16).select(PROBABILITIES).to_numpy()
    assert (own == found[16].reshape(-1, 10)).all()
    hints = open_hints(Path("out/a_clip.q220.hints"))
    assert (hints.width, hints.height, hints.frames, hints.sizes) == (WIDTH, HEIGHT, 2, (16,))
    masks = list(hints)[1][16]
    assert masks.shape == (5, 7)
    assert (masks[:, -1] == 0).all()
    assert (masks[-1] == 0).all()
    inner = masks[:4, :6]
    assert (inner & KEEP > 0).all()
    likely = found[16].argmax(-1)
    assert ((inner >> likely.astype(np.uint16)) & 1 == 1).all()
    facts = json.loads(Path("out/predictions.json").read_text())
    used = [*cascade["stage1"], *cascade["stage2"], *cascade["stage3_rect"], *cascade["stage3_ab"]]
    assert [file["sha256"] for file in facts["predictor_files"]] == list(map(sha256_file, used))
    assert facts["domain"]["sizes"] == [8, 16]
    assert list(facts["sources"]) == ["a_clip"]
    page = Path("out/predictions.html").read_text(encoding="utf-8")
    (text,) = re.findall(r'<script type="application/json">(.*?)</script>', page)
    (shown,) = json.loads(text)["sequences"]
    assert (shown["name"], shown["total"]) == ("a_clip", 2)
    for frame, plane in zip(shown["frames"], planes, strict=True):
        with Image.open(io.BytesIO(base64.b64decode(frame["png"]))) as image:
            assert (np.asarray(image) == plane).all()
        assert {q: set(sizes) for q, sizes in frame["layers"].items()} == {
            q: {"16", "8"} for q in ("128", "220")
        }
    raw = zlib.decompress(base64.b64decode(shown["frames"][1]["layers"]["220"]["16"]))
    layer = np.frombuffer(raw, np.uint8).reshape(13, HEIGHT // 16, WIDTH // 16)
    assert (layer[0] & 15 == likely).all()
    assert not re.search(r"https?://", page)


def test_blocks_are_those_of_training(cascade: dict[str, list[Path]], store: Path) -> None:
    """Blocks cut by the reader of datasets have the same answer: context, edges, order."""
    data = Store.open(store)
    sequence = data.sequences[0]
    predictor = load_cascades(cascade, calibration="none")
    plane = data.plane(sequence)[0]
    for size, network in predictor.by_size.items():
        numbered = data.nodes.with_row_index("node").filter(sequence=sequence, frame=0, size=size)
        own = numbered.filter(qindex=int(numbered["qindex"][0]))
        reader = BlockReader(data, own["node"].to_numpy().astype(np.int64), size=size, context=4)
        batch = reader[np.arange(len(reader))]
        wanted = network.distribution(batch["block"], batch["qindex"])
        found = predictor.predict(plane, 8, int(own["qindex"][0]))[size]
        rows = found[own["row"] // size, own["col"] // size][:, list(network.taxonomy.partitions)]
        assert np.abs(rows - wanted).max() < 1e-5


def test_ten_bits_are_shifted_with_a_warning(
    av1part: Command, cascade: dict[str, list[Path]], tmp_path: Path
) -> None:
    plane = np.ascontiguousarray(Store.open(embedded.STORE).plane("coffee")[0][:32, :32])
    for name, shift in (("eight_32x32_400.yuv", 0), ("ten_32x32_gray10le.yuv", 2)):
        dtype = np.uint8 if shift == 0 else np.dtype("<u2")
        (tmp_path / name).write_bytes((plane.astype(dtype) << shift).tobytes())
    ran = av1part(
        *("predict", "ten_32x32_gray10le.yuv", "eight_32x32_400.yuv", *words_of(cascade)),
        *("out=out", "qindex=[7]", "layout=gray", "bit_depth=null"),
    )
    assert ran.code == 0, ran.err
    assert "10] bits are shifted to the trained 8" in ran.err
    assert "qindex [7] is outside of" in ran.err
    eight, ten = (
        pl.read_parquet(f"out/{n}.parquet") for n in ("eight_32x32_400", "ten_32x32_gray10le")
    )
    assert eight.drop("sequence").equals(ten.drop("sequence"))


@pytest.mark.parametrize("policy", ["top", "none", "split"])
def test_each_policy_writes_its_masks(
    av1part: Command, cascade: dict[str, list[Path]], tmp_path: Path, policy: str
) -> None:
    write_clip(tmp_path / "clip.y4m", frames=1)
    words = (f"policy={policy}", "policy.keep=false", "qindex=[128]", "hints=true", "out=out")
    ran = av1part("predict", "clip.y4m", *words_of(cascade), *words)
    assert ran.code == 0, ran.err
    (masks,) = open_hints(Path("out/clip.q128.hints"))
    unknown = {Partition.HORZ_4, Partition.VERT_4}  # the embedded data have none of them
    for size, grid in masks.items():
        inner = grid[: HEIGHT // size, : WIDTH // size].ravel()
        if policy == "none":
            assert set(inner) == {1 << Partition.NONE}
        elif policy == "split":
            assert set(inner) == {1 << Partition.SPLIT}
        else:
            left = sum(1 << type_ for type_ in unknown & set(legal_partitions(size)))
            known = [int(mask) & ~(left | KEEP) for mask in inner]
            assert {mask.bit_count() for mask in known} == {2}
            assert {int(mask) & (left | KEEP) for mask in inner} == {left | KEEP if left else 0}


def test_policies_can_be_swept(
    av1part: Command, cascade: dict[str, list[Path]], tmp_path: Path
) -> None:
    write_clip(tmp_path / "clip.y4m", frames=1)
    words = ("out=swept", "hints=true", "-m", "policy.tau=0.2,0.9")
    ran = av1part("predict", "clip.y4m", *words_of(cascade), *words)
    assert ran.code == 0, ran.err
    folders = sorted(path.name for path in Path("swept").iterdir())
    assert folders == ["policy.tau-0.2", "policy.tau-0.9"]
    few, many = (next(iter(open_hints(Path("swept") / f / "clip.q80.hints"))) for f in folders)
    assert sum(map(int.bit_count, map(int, few[16].ravel()))) < sum(
        map(int.bit_count, map(int, many[16].ravel()))
    )
    assert not Path("multirun").exists()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("out=out", "stage1=none.ckpt", "model=pretrained"), "takes one predictor: stage1=CKPT"),
        (("stage1=none.ckpt",), "needs out=DIR"),
        (("out=out", "stage1=none.ckpt"), "none.ckpt does not exist"),
        (("out=out", "stage1=none.ckpt", "qindex=[256]"), "qindex=[256]: give a list of 0 to 255"),
        (("out=out", "stage1=none.ckpt", "policy.tau=2"), "policy.tau=2"),
        (("out=out", "stage1=none.ckpt", "policy=best"), "policy"),
        (("out=out", "stage1=none.ckpt", "frames=0"), "frames=0"),
        (("out=.", "stage1=none.ckpt"), "is not empty"),
    ],
)
def test_what_cannot_be_is_one_line(
    av1part: Command, tmp_path: Path, words: tuple[str, ...], reason: str
) -> None:
    write_clip(tmp_path / "clip.y4m", frames=1)
    ran = av1part("predict", "clip.y4m", *words)
    assert ran.code == 2
    assert reason in ran.error_lines[-1]
    assert not Path("out").exists()


def test_hints_of_a_size_without_predictions_are_refused(
    av1part: Command, cascade: dict[str, list[Path]], tmp_path: Path
) -> None:
    write_clip(tmp_path / "clip.y4m", frames=1)
    words = (*words_of(cascade), "out=out", "policy.sizes=[16,64]")
    ran = av1part("predict", "clip.y4m", *words, "hints=true")
    assert ran.code == 2
    assert ran.error_lines[-1].endswith(
        "policy.sizes=[16, 64]: the predictor has no size 64, only 8 and 16: leave it out"
    )
    assert not Path("out").exists()
