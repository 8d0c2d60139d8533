"""`stage=superblock` through the command line: train, validate, bundle, predict, and refusals."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from av1part.checkpoints.load import load_stage, read_checkpoint
from av1part.evaluation.attach import attach_data
from av1part.evaluation.evaluate import evaluate_sizes
from av1part.metrics.calibration import TEMPERATURES, negative_log_likelihood
from av1part.partition import SIZES, taxonomy
from av1part.predictors.superblock import load_superblock
from av1part.predictors.table import PROBABILITIES
from av1part.stages.superblock import SuperblockStage, mean_log_loss, size_scores
from av1part.system.errors import CalibrationError

from .conftest import Command

TINY = (
    *("stage=superblock", "backbone.width=2", "data.crop=64", "data.batch_size=16", "logger=none"),
    *(
        "trainer.max_epochs=2",
        "callbacks.plots=false",
        "taxonomy=v6_1to4",
        "callbacks.patience=null",
    ),
)


@pytest.fixture
def words(one_to_four_store: Path) -> tuple[str, ...]:
    return ("train", *TINY, f"data.path={one_to_four_store}")


def test_it_trains_validates_and_predicts(av1part: Command, words: tuple[str, ...]) -> None:
    ran = av1part(*words, "name=net", "callbacks.plots=true")
    assert ran.code == 0, ran.err
    best = Path("runs/net/checkpoints/best.ckpt")
    record = json.loads(best.with_name("best.verified.json").read_text())
    assert record["delta_pp"] == 0
    assert record["log_loss_live"] == pytest.approx(record["log_loss_reloaded"], abs=1e-6)
    validated = av1part("validate", best)
    assert "every figure" in validated.out, validated.out + validated.err

    metrics = json.loads(Path("runs/net/metrics.json").read_text())
    assert sorted(metrics["by_size"], key=int) == [str(size) for size in SIZES]
    with Path("runs/net/history.csv").open() as file:
        history = list(csv.DictReader(file))
    chosen = min(history, key=lambda row: float(row["log_loss"]))
    assert metrics["epoch"] == int(chosen["epoch"])
    for size in SIZES:
        logged = float(chosen[f"log_loss.{size}"])
        assert metrics["by_size"][str(size)]["log_loss"] == pytest.approx(logged, abs=1e-5)
    assert metrics["log_loss"] == pytest.approx(float(chosen["log_loss"]), abs=1e-5)
    assert metrics["by_size"]["16"]["macro_f1"] == metrics["macro_f1"]
    assert metrics["by_size"]["16"]["accuracy"] == metrics["accuracy"]

    module = load_stage(best)
    assert isinstance(module, SuperblockStage)
    found = evaluate_sizes(module, attach_data(module).batches("val"))
    own = {
        str(size): size_scores(e.logits, e.partition, module.classifier.types[size])
        for size, e in found.items()
    }
    assert mean_log_loss(own) == metrics["log_loss"]
    assert av1part("report", "runs/net").code == 0

    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (96, 130, 3)).astype(np.uint8)).save("noise.png")
    made = av1part("bundle", f"superblock={best}", "out=net.bundle")
    assert made.code == 0, made.err
    for out, given in (("a", f"superblock={best}"), ("b", "model=net.bundle")):
        ran = av1part("predict", "noise.png", given, f"out={out}", "cq_levels=[32]", "hints=true")
        assert ran.code == 0, ran.err
    first, second = (pl.read_parquet(next(Path(out).glob("*.parquet"))) for out in ("a", "b"))
    assert first.equals(second)
    assert sorted(first["size"].unique()) == list(SIZES)
    sums = first.select(pl.sum_horizontal(PROBABILITIES)).to_series()
    np.testing.assert_allclose(sums, 1, rtol=1e-5)


def test_its_sizes_are_calibrated_on_val(av1part: Command, words: tuple[str, ...]) -> None:
    assert av1part(*words, "name=net").code == 0
    best = Path("runs/net/checkpoints/best.ckpt")
    assert load_superblock(best).temperatures == {}
    with pytest.raises(CalibrationError, match="av1part calibrate"):
        load_superblock(best, calibration="stored")
    ran = av1part("calibrate", best)
    assert ran.code == 0, ran.err
    predictor, module = load_superblock(best, calibration="stored"), load_stage(best)
    data = attach_data(module)
    for size, evaluation in evaluate_sizes(module, data.batches("val")).items():
        own = data.taxonomy if size == 16 else taxonomy("v6_1to4").at(size)
        labels = own.superblock.labels[evaluation.partition]
        fitted = predictor.temperatures[size]

        def loss(temperature: float, logits=evaluation.logits, labels=labels) -> float:
            return negative_log_likelihood(logits, labels, temperature)

        others = np.clip([1.0, 0.98 * fitted, 1.02 * fitted], *TEMPERATURES)
        assert loss(fitted) <= min(map(loss, others)) + 1e-9
    raw = load_superblock(best, calibration="none")
    plane = data.store.plane(data.store.sequences[0])[0]
    warm, cold = (p.predict(plane, 8, 128)[16] for p in (predictor, raw))
    assert not np.array_equal(warm, cold)
    np.testing.assert_array_equal(warm.argmax(-1), cold.argmax(-1))
    record = json.loads(best.with_name("best.calibration.json").read_text())
    assert record["temperature"] == record["by_size"]["16"]
    assert len(record["by_size"]["64"]["cross_fitted"]) > 0


def test_the_same_seed_gives_the_same_bits(av1part: Command, words: tuple[str, ...]) -> None:
    states = []
    for name in ("one", "two"):
        assert av1part(*words, f"name={name}", "trainer.max_epochs=1").code == 0
        states.append(read_checkpoint(f"runs/{name}/checkpoints/last.ckpt")["state_dict"])
    ran = av1part(*words, "name=there", "trainer.max_epochs=1", "data.planes=device")
    assert ran.code == 0, ran.err
    states.append(read_checkpoint("runs/there/checkpoints/last.ckpt")["state_dict"])
    for again in states[1:]:
        assert all(torch.equal(states[0][key], again[key]) for key in again)
    assert av1part(*words, "name=other", "trainer.max_epochs=1", "seed=7").code == 0
    other = read_checkpoint("runs/other/checkpoints/last.ckpt")["state_dict"]
    assert any(not torch.equal(states[0][key], other[key]) for key in other)


OPTIONS = {
    "half": ("trainer.precision=bf16-mixed", "callbacks.tolerance_pp=5"),
    "compiled": ("trainer.compile=true",),
    "balanced": ("loss=balanced",),
    "plain": ("conditioning=none", "data.augment=none", "data.num_workers=1"),
}


TRIED = [
    pytest.param(words, id=name, marks=[pytest.mark.slow] if name == "compiled" else [])
    for name, words in OPTIONS.items()
]


@pytest.mark.parametrize("options", TRIED)
def test_it_trains_and_reads_back_with(
    av1part: Command, words: tuple[str, ...], options: tuple[str, ...]
) -> None:
    if "trainer.compile=true" in options and shutil.which("g++") is None:
        pytest.skip("torch.compile needs a C++ compiler")
    ran = av1part(*words, *options, "name=net", "trainer.max_epochs=1")
    assert ran.code == 0, ran.err
    record = json.loads(Path("runs/net/checkpoints/best.verified.json").read_text())
    assert record["log_loss_live"] == pytest.approx(record["log_loss_reloaded"], abs=0.05)
    validated = av1part("validate", "runs/net/checkpoints/best.ckpt")
    assert validated.code == 0, validated.err


def test_it_has_no_features_to_cache(av1part: Command, words: tuple[str, ...]) -> None:
    ran = av1part(*words, "name=net", "trainer.max_epochs=1", "cache.folder=features")
    assert ran.code == 0, ran.err
    assert "cached" not in ran.err
    assert not Path("features").exists()


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("data.context=4", "data.context does nothing with stage=superblock"),
        ("data.sampling=balanced", "data.sampling does nothing with stage=superblock"),
        ("method=finetune", "leave out method=finetune"),
        ("stage1=some.ckpt", "leave out stage1"),
        ("injection=uniform", "leave out injection=uniform"),
        ("backbone=resnet18", "stage=superblock has no such backbone"),
        ("data.crop=100", "data.crop must be a multiple of 64"),
        ("backbone.planes=[colour]", "planes must be some of"),
        ("loss=hard_negative", "hard_negative"),
        ("loss=cost_sensitive", "loss=cost_sensitive needs data.costs=FILE: make it with `av1part"),
        ("data.costs=c.parquet", "data.costs does nothing with loss=cross_entropy: leave it out"),
    ],
)
def test_what_it_has_not_is_refused(
    av1part: Command, words: tuple[str, ...], word: str, reason: str
) -> None:
    kept = [w for w in words if not (word.startswith("backbone=") and w.startswith("backbone."))]
    ran = av1part(*kept, word)
    assert ran.code == 2, ran.err
    assert len(ran.error_lines) == 1
    assert reason in ran.error_lines[0]
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("data.crop=128", "data.crop does nothing with stage=stage1"),
        ("data.levels=true", "data.levels does nothing with stage=stage1"),
        ("data.costs=c.parquet", "data.costs does nothing with stage=stage1"),
        ("loss=cost_sensitive", "loss=cost_sensitive is for stage=superblock alone"),
    ],
)
def test_blocks_have_no_crops_and_no_costs(
    av1part: Command, on_small: tuple[str, ...], word: str, reason: str
) -> None:
    ran = av1part("train", "stage=stage1", *on_small, word)
    assert ran.code == 2
    assert reason in ran.error_lines[0]
    assert not Path("runs").exists()


def test_costs_weigh_its_training(
    av1part: Command,
    words: tuple[str, ...],
    one_to_four_store: Path,
    some_costs: Callable[[Path], Path],
) -> None:
    shutil.copy(some_costs(one_to_four_store), "costs.parquet")
    weighed = (*words, "loss=cost_sensitive", "data.costs=costs.parquet", "data.augment=symmetries")
    for name, more in (
        ("plain", ()),
        ("none", (*weighed[len(words) :], "loss.power=0")),
        ("full", weighed[len(words) :]),
        ("capped", (*weighed[len(words) :], "loss.cap=1")),
        ("device", (*weighed[len(words) :], "data.planes=device")),
    ):
        ran = av1part(*words, *more, f"name={name}")
        assert ran.code == 0, ran.err

    def state(name: str) -> dict[str, torch.Tensor]:
        found: dict[str, torch.Tensor] = read_checkpoint(
            Path(f"runs/{name}/checkpoints/last.ckpt")
        )["state_dict"]
        return found

    def alike(first: str, second: str) -> bool:
        pair = state(first), state(second)
        return all(torch.equal(pair[0][key], pair[1][key]) for key in pair[0])

    assert alike("plain", "none")
    assert alike("full", "device")
    assert not alike("plain", "full")
    assert not alike("capped", "full")

    environment = json.loads(Path("runs/full/environment.json").read_text())
    digest = hashlib.sha256(Path("costs.parquet").read_bytes()).hexdigest()
    assert environment["dataset"]["costs_sha256"] == digest
    assert av1part("validate", "runs/full/checkpoints/best.ckpt").code == 0
    # A file of other costs makes another run.
    pl.read_parquet("costs.parquet").with_columns(pl.col("regret") ** 2).write_parquet(
        "costs.parquet"
    )
    ran = av1part(*weighed, "name=full", "resume=true")
    assert ran.code == 2
    assert "was trained with another data" in ran.error_lines[0]


def test_it_is_no_stage_of_a_cascade(av1part: Command, words: tuple[str, ...]) -> None:
    assert av1part(*words, "name=net", "trainer.max_epochs=1").code == 0
    best = "runs/net/checkpoints/best.ckpt"
    ran = av1part("pipeline", f"stage1={best}")
    assert ran.code == 2
    assert "is of superblock, expected one of stage1" in ran.error_lines[0]
