"""Stages of the cascade on the superblock network's trunk, through the command line."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from av1part import embedded
from av1part.checkpoints.load import load_stage, read_checkpoint
from av1part.cli.main import main
from av1part.data.store.store import Store
from av1part.data.store.writer import StoreWriter
from av1part.models.freeze import moved_tensors, state_sha256
from av1part.models.node_trunk import NodeTrunk
from av1part.stages.blocks import BlockStage

from .conftest import TINY, Command

PREFIX = "classifier.backbone."
ONE = ("trainer.max_epochs=1", "trainer.limit_train_batches=4")


@pytest.fixture(scope="module")
def words(small_store: Path) -> tuple[str, ...]:
    """A training of a stage on the trunk, on the small dataset, tiny."""
    own = [word for word in TINY if not word.startswith("trainer.")]
    data = (f"data.path={small_store}", f"data.split_list={embedded.SPLIT_LIST}")
    return ("train", "backbone=superblock", "data.context=16", *own, *data, *ONE)


@pytest.fixture(scope="module")
def network(words: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A superblock network of a few steps; not to be changed."""
    folder = tmp_path_factory.mktemp("network")
    before = Path.cwd()
    os.chdir(folder)
    try:
        own = [word for word in words if not word.startswith(("data.context", "data.batch_size"))]
        more = ("stage=superblock", "name=net", "data.crop=64", "data.batch_size=8")
        assert main([*own, *more]) == 0
    finally:
        os.chdir(before)
    return folder / "runs/net/checkpoints/best.ckpt"


def backbone_of(path: Path | str) -> dict[str, Any]:
    state = read_checkpoint(path)["state_dict"]
    return {n.removeprefix(PREFIX): t for n, t in state.items() if n.startswith(PREFIX)}


def history(name: str) -> list[dict[str, str]]:
    with Path(f"runs/{name}/history.csv").open() as file:
        return list(csv.DictReader(file))


IN_BLOCKS = "adapter.layers=[2,3,4]"
METHODS = {
    "frozen": ("method=frozen",),
    "bottleneck": ("method=adapter",),
    "conv1x1": ("method=adapter", "adapter=conv1x1", "adapter.placement=block", IN_BLOCKS),
    "depthwise3x3": ("method=adapter", "adapter=depthwise3x3"),
    "lora": ("method=adapter", "adapter=lora", IN_BLOCKS),
    "ssf": ("method=adapter", "adapter=ssf", IN_BLOCKS),
    "partial": ("method=partial",),
    "ulmfit": ("method=ulmfit", "method.unfreeze={layer4: 0, layer3: 1}"),
    "finetune": ("method=finetune", "trainer.precision=bf16-mixed"),
}


@pytest.mark.parametrize("method", METHODS)
def test_stage2_starts_from_the_network_and_keeps_what_is_frozen(
    av1part: Command, words: tuple[str, ...], network: Path, method: str
) -> None:
    ran = av1part(*words, "stage=stage2", *METHODS[method], f"stage1={network}", "name=s2")
    assert ran.code == 0, ran.err
    folder = Path("runs/s2/checkpoints")
    for kind in ("best", "last"):
        assert json.loads((folder / f"{kind}.verified.json").read_text())["delta_pp"] == 0
    module = load_stage(folder / "last.ckpt")
    assert isinstance(module, BlockStage)
    backbone = module.classifier.backbone
    assert isinstance(backbone, NodeTrunk)
    whole = backbone_of(network)
    own = backbone.of_superblock(whole)
    left_out = {name.partition(".")[0] for name in whole.keys() - own.keys()}
    assert left_out == {"down", "blocks", "top_down", "merged"}, "coarser strides, the way back"
    start = module.hparams["start"]
    assert start["stage1"] == str(network)
    assert (start["sha256"], start["trunk_sha256"]) == (state_sha256(own), state_sha256(whole))
    moved = {backbone.layer_of(n) for n in moved_tensors(own, backbone.state_dict())}
    trained = {
        "partial": {"layer4"},
        "ulmfit": {"layer4"},
        "finetune": {"layer1", "layer2", "layer3", "layer4"},
    }
    assert moved == trained.get(method, set())
    assert av1part("validate", folder / "best.ckpt").code == 0
    assert av1part("validate", folder / "best.ckpt", "--show").code == 0


@pytest.mark.parametrize("method", ["frozen", "bottleneck", "partial"])
@pytest.mark.parametrize("augment", ["none", "symmetries"])
def test_cached_features_give_what_blocks_give(
    av1part: Command, words: tuple[str, ...], network: Path, method: str, augment: str
) -> None:
    own = [word for word in words if not word.startswith("cache")]
    more = ("stage=stage2", *METHODS[method], f"stage1={network}", f"data.augment={augment}")
    for name, cache in (("on", "cache.folder=features"), ("off", "cache=off")):
        ran = av1part(*own, *more, f"name={name}", cache)
        assert ran.code == 0, ran.err
        assert ("features of the frozen trunk" in ran.err) == (name == "on")
    on, off = (history(name) for name in ("on", "off"))
    for key in ("train_loss", "val_loss"):
        assert float(on[0][key]) == pytest.approx(float(off[0][key]), rel=1e-5)


def test_a_cascade_on_one_trunk_from_training_to_prediction(
    av1part: Command, words: tuple[str, ...], network: Path
) -> None:
    methods = {"stage1": "finetune", "stage2": "adapter", "stage3_rect": "frozen"}
    start, best = network, {}
    for stage in ("stage1", "stage2", "stage3_rect", "stage3_ab"):
        method = methods.get(stage, "frozen")
        ran = av1part(*words, f"stage={stage}", f"method={method}", f"stage1={start}")
        assert ran.code == 0, ran.err
        best[stage] = Path(f"runs/{stage}-{method}-seed42/checkpoints/best.ckpt").resolve()
        start = best["stage1"]
    frozen = backbone_of(best["stage3_ab"])
    assert not moved_tensors(backbone_of(best["stage1"]), frozen)
    start = read_checkpoint(best["stage2"])["hyper_parameters"]["start"]
    assert start["sha256"] == state_sha256(frozen)
    assert "trunk_sha256" not in start

    cascade = [f"{stage}={path}" for stage, path in best.items()]
    assert av1part("calibrate", *cascade).code == 0
    ran = av1part("pipeline", *cascade, "calibration=stored")
    assert ran.code == 0, ran.err
    result = json.loads(Path("runs/pipeline/pipeline.json").read_text())
    alone = json.loads(Path("runs/stage1-finetune-seed42/metrics.json").read_text())
    together = result["stages"]["stage1"]["standalone"]
    assert together["accuracy"] == pytest.approx(alone["accuracy"], abs=0.02), "own threshold"

    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (80, 96, 3)).astype(np.uint8)).save("noise.png")
    made = av1part("bundle", *cascade, "out=cascade.bundle")
    assert made.code == 0, made.err
    tables = {}
    for out, given in (("a", cascade), ("b", ["model=cascade.bundle"])):
        ran = av1part("predict", "noise.png", *given, f"out={out}", "cq_levels=[20,55]")
        assert ran.code == 0, ran.err
        tables[out] = pl.read_parquet(next(Path(out).glob("*.parquet")))
    assert tables["a"].equals(tables["b"])
    low, high = (
        tables["a"].filter(pl.col("qindex") == q).drop("qindex")
        for q in sorted(tables["a"]["qindex"].unique())
    )
    assert not low.equals(high), "the planes and blocks depend on the qindex"


def test_a_run_that_is_cut_off_goes_on_to_the_same_bits(
    av1part: Command, words: tuple[str, ...], network: Path
) -> None:
    more = ("stage=stage2", "method=partial", f"stage1={network}", "trainer.max_epochs=2")
    more = (*more, "scheduler=constant")
    assert av1part(*words, *more, "name=whole").code == 0
    assert av1part(*words, *more, "name=cut", "trainer.max_epochs=1").code == 0
    whole = read_checkpoint("runs/whole/checkpoints/last.ckpt")["state_dict"]
    config = Path("runs/cut/config.yaml")
    config.write_text(config.read_text().replace("max_epochs: 1", "max_epochs: 2"))
    Path("runs/cut/metrics.json").unlink()
    ran = av1part(*words, *more, "name=cut", "resume=true")
    assert ran.code == 0, ran.err
    assert not moved_tensors(whole, read_checkpoint("runs/cut/checkpoints/last.ckpt")["state_dict"])


REFUSED = {
    "of a superblock network": (
        ("stage=stage2", "backbone=resnet18", "method=frozen", "conditioning=none"),
        "add backbone=superblock",
    ),
    "other width": (("stage=stage2", "method=frozen", "backbone.width=8"), "another architecture"),
    "other planes": (
        ("stage=stage2", "method=frozen", "backbone.planes=[steps,detail,level]"),
        "backbone.planes=[level,detail,steps]",
    ),
    "no conditioning": (
        ("stage=stage2", "method=frozen", "conditioning=none"),
        "give conditioning=qindex_blocks",
    ),
    "pooled conditioning": (
        ("stage=stage2", "method=frozen", "conditioning=qindex"),
        "give conditioning=qindex_blocks",
    ),
    "margin": (("stage=stage2", "method=frozen", "data.context=8"), "multiples of 16, got 8"),
    "no stem": (
        ("stage=stage2", "method=partial", "method.layers=[stem]"),
        "has layer1, layer2, layer3, layer4",
    ),
    "no energies": (
        ("stage=stage2", "method=frozen", "backbone.energies=false"),
        "with the energies of its cells: backbone.energies=true",
    ),
    "no block at stride 2": (
        ("stage=stage2", "method=adapter", "adapter=ssf"),
        "layer 1 of this backbone has no residual block",
    ),
    "scratch": (("stage=stage2", "method=scratch"), "leave out stage1"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_does_not_fit_is_refused_in_one_line(
    av1part: Command, words: tuple[str, ...], network: Path, why: str
) -> None:
    own, named = REFUSED[why]
    ran = av1part(*words, f"stage1={network}", *own)
    assert ran.code == 2, ran.err
    assert len(ran.error_lines) == 1
    assert named in ran.error_lines[0]
    assert not list(Path().glob("runs/*"))


def test_one_qindex_teaches_no_conditioning_but_a_start_may_bring_it(
    av1part: Command, words: tuple[str, ...], network: Path, small_store: Path
) -> None:
    whole = Store.open(small_store)
    writer = StoreWriter(Path("one"), {})
    for sequence in whole.sequences:
        writer.add_plane(sequence, whole.plane(sequence), 8)
    nodes = whole.nodes.filter(pl.col("qindex") == whole.nodes["qindex"].min())
    writer.finish(nodes, {s: {"bit_depth": 8} for s in whole.sequences}, {})
    words = (*words, "data.path=one", "stage=stage2")
    ran = av1part(*words, "method=scratch")
    assert ran.code == 2
    assert "conditioning=qindex_blocks, but all training nodes have" in ran.error_lines[0]
    ran = av1part(*words, "method=frozen", f"stage1={network}")
    assert ran.code == 0, ran.err


def test_a_start_without_film_is_refused_and_one_with_it_trained_on(
    av1part: Command, on_small: tuple[str, ...], stage1: Path
) -> None:
    own = ("train", "conditioning=qindex_blocks", "backbone.planes=[level,steps]", *on_small, *ONE)
    ran = av1part(
        "train", "stage=stage2", "conditioning=qindex_blocks", f"stage1={stage1}", *on_small
    )
    assert ran.code == 2
    assert "no FiLM layers in its blocks" in ran.error_lines[0]
    ran = av1part("train", "stage=stage2", "backbone.planes=[level]", f"stage1={stage1}", *on_small)
    assert ran.code == 2
    assert "other input planes: backbone.planes=null" in ran.error_lines[0]
    assert av1part(*own, "stage=stage1", "name=s1").code == 0
    best = Path("runs/s1/checkpoints/best.ckpt")
    for method in ("frozen", "adapter", "partial"):
        words = (*own, "stage=stage2", f"method={method}", f"stage1={best}", f"name={method}")
        words = (*words, f"trainer.precision={'bf16-mixed' if method == 'partial' else '32-true'}")
        ran = av1part(*words)
        assert ran.code == 0, ran.err
        before, after = backbone_of(best), backbone_of(f"runs/{method}/checkpoints/last.ckpt")
        moved = moved_tensors(before, after)
        assert any(name.startswith("film.layer4") for name in moved) == (method == "partial")
        assert not any(name.startswith(("film.layer1", "condition", "conv1")) for name in moved)
