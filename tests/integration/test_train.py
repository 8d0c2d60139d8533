"""Training through the command line: what a run leaves, repeats, resumes and refuses."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from av1part.checkpoints.load import load_stage, read_checkpoint
from av1part.models.backbone import layer_of
from av1part.models.freeze import moved_tensors, state_sha256
from av1part.runs.schema import TRAIN_LOG, training_files
from av1part.stages.blocks import Stage2
from av1part.system.files import sha256_file
from av1part.system.locks import LOCK
from av1part.training.callbacks.timing import Timing

from .conftest import Command


def load(path: Path) -> Any:
    return json.loads(path.read_text())


def test_a_run_leaves_the_files_of_the_schema(stage1_run: Path) -> None:
    names = {p.relative_to(stage1_run).as_posix() for p in stage1_run.rglob("*") if p.is_file()}
    plots = {"plots/learning.svg", "plots/confusion.svg"}
    assert names == {*training_files(), *plots, TRAIN_LOG, LOCK}
    metrics = load(stage1_run / "metrics.json")
    for key in (
        *("accuracy", "macro_f1", "weighted_f1", "macro_precision", "macro_recall"),
        *("balanced_accuracy", "f1_positive", "confusion_matrix", "epoch", "split", "protocol"),
        *("trainable_parameters", "total_parameters"),
    ):
        assert key in metrics, key
    assert metrics["format"] == 2
    assert metrics["per_class"]["PARTITION"].keys() == {"precision", "recall", "f1", "support"}
    for guesser in ("constant", "prior"):
        assert metrics["baselines"][guesser].keys() >= {"accuracy", "macro_f1", "f1_positive"}
    assert (metrics["split"], metrics["protocol"]) == ("val", "by_sequence")


def test_files_of_a_run_agree(stage1_run: Path, small_store: Path) -> None:
    metrics = load(stage1_run / "metrics.json")
    table = pl.read_parquet(stage1_run / "predictions.parquet")
    assert table["node"].is_sorted()
    assert (table["label"] == table["prediction"]).mean() == pytest.approx(metrics["accuracy"])
    shares = table.select(pl.col("^p[.].*$")).to_numpy()
    assert np.allclose(shares.sum(1), 1, atol=1e-5)
    assert np.array_equal(shares.argmax(1), table["prediction"].to_numpy())
    with (stage1_run / "confusion.csv").open() as file:
        rows = [[int(v) for v in row[1:]] for row in list(csv.reader(file))[1:]]
    assert rows == metrics["confusion_matrix"]
    # Support by an independent count, straight from the nodes.
    nodes = pl.read_parquet(small_store / "nodes.parquet")
    val = nodes.filter(pl.col("sequence").is_in(["brick", "coffee", "rocket"]))
    none = val.filter(pl.col("partition") == 0).height
    assert metrics["per_class"]["NONE"]["support"] == none
    assert metrics["per_class"]["PARTITION"]["support"] == val.height - none
    with (stage1_run / "history.csv").open() as file:
        history = list(csv.DictReader(file))
    assert float(history[metrics["epoch"]]["macro_f1"]) == metrics["macro_f1"]
    assert max(float(row["macro_f1"]) for row in history) == metrics["macro_f1"]
    for kind in ("best", "last"):
        record = load(stage1_run / "checkpoints" / f"{kind}.verified.json")
        assert record["level"] == "full"
        assert record["delta_pp"] == 0
        file = stage1_run / "checkpoints" / f"{kind}.ckpt"
        assert record["file_sha256"] == sha256_file(file)
        assert record["sha256"] == state_sha256(read_checkpoint(file)["state_dict"])
    samples = np.load(stage1_run / "samples.npz")
    assert samples["block"].dtype == np.uint8
    assert len(samples["block"]) == min(500, val.height)


def test_the_same_seed_gives_the_same_run(
    av1part: Command, on_small: tuple[str, ...], stage1_run: Path, small_store: Path
) -> None:
    before = {p: sha256_file(p) for p in small_store.rglob("*") if p.is_file()}
    assert av1part("train", "stage=stage1", "name=again", *on_small).code == 0
    assert av1part("train", "stage=stage1", "name=other", "seed=7", *on_small).code == 0
    assert {p: sha256_file(p) for p in small_store.rglob("*") if p.is_file()} == before
    states = [
        read_checkpoint(folder / "checkpoints" / "best.ckpt")["state_dict"]
        for folder in (stage1_run, Path("runs/again"), Path("runs/other"))
    ]
    assert moved_tensors(states[0], states[1]) == []
    assert moved_tensors(states[0], states[2])
    for name in ("metrics.json", "history.csv", "confusion.csv"):
        assert (stage1_run / name).read_text() == Path("runs/again", name).read_text()


def test_augmentation_and_balanced_sampling_train(
    av1part: Command, on_small: tuple[str, ...], stage1: Path, small_store: Path
) -> None:
    before = {p: sha256_file(p) for p in small_store.rglob("*") if p.is_file()}
    ran = av1part(
        *("train", "stage=stage3_ab", f"stage1={stage1}", "loss=cross_entropy"),
        *("data.augment=symmetries", "data.sampling=balanced", "data.context=4"),
        *("conditioning=qindex", "head=linear", "scheduler=onecycle", *on_small),
    )
    # Stage 1 saw no margin, so its backbone fits but its data facts differ only for the cascade.
    assert ran.code == 0, ran.err
    assert {p: sha256_file(p) for p in small_store.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("method", ["adapter", "frozen", "finetune"])
def test_stage2_starts_from_stage1_and_keeps_what_is_frozen(
    av1part: Command, on_small: tuple[str, ...], stage1: Path, method: str
) -> None:
    words = ("train", "stage=stage2", f"method={method}", f"stage1={stage1}", "name=s2")
    ran = av1part(*words, *on_small)
    assert ran.code == 0, ran.err
    first, last = (
        {
            k.removeprefix("classifier.backbone."): v
            for k, v in read_checkpoint(p)["state_dict"].items()
            if k.startswith("classifier.backbone.")
        }
        for p in (stage1, Path("runs/s2/checkpoints/last.ckpt"))
    )
    moved = moved_tensors(first, last)
    assert (moved == []) == (method != "finetune")
    start = read_checkpoint("runs/s2/checkpoints/last.ckpt")["hyper_parameters"]["start"]
    assert start["sha256"] == state_sha256(first)


def test_ulmfit_thaws_layer_by_layer_as_declared(
    av1part: Command, on_small: tuple[str, ...], stage1: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule = "{layer4: 1, layer3: 2, layer2: 4, layer1: null, stem: null}"
    words = ("train", "stage=stage2", "method=ulmfit", f"method.unfreeze={schedule}")
    words = (*words, f"stage1={stage1}", *on_small, "trainer.max_epochs=4", "scheduler=constant")
    words = (*words, "callbacks.patience=null")
    ran = av1part(*words, "name=whole", "callbacks.save_every=epoch", "callbacks.plots=true")
    assert ran.code == 0, ran.err
    assert "frozen: stem, layer1, layer2 until epoch 4, layer3 until epoch 2" in ran.err
    assert "layer2 would thaw only after the last of 4 epochs" in ran.err
    states = [read_checkpoint(stage1)["state_dict"]]
    for epoch in range(4):
        file = f"runs/whole/checkpoints/epoch-{epoch:04d}.ckpt"
        states.append(read_checkpoint(file)["state_dict"])
    for epoch, thawed in enumerate(([], ["layer4"], ["layer4", "layer3"], ["layer4", "layer3"])):
        prefix = "classifier.backbone."
        before, after = (
            {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
            for state in states[epoch : epoch + 2]
        )
        assert {layer_of(name) for name in moved_tensors(before, after)} == set(thawed)
    with Path("runs/whole/history.csv").open() as file:
        history = list(csv.DictReader(file))
    rates = {
        layer: [float(row[f"lr.{layer}"]) for row in history] for layer in ("layer4", "layer3")
    }
    assert rates["layer4"] == pytest.approx([0, 1e-4, 1e-4, 1e-4])
    assert rates["layer3"] == pytest.approx([0, 0, 1e-4 / 2.6, 1e-4 / 2.6])
    assert "layer3 thawed" in Path("runs/whole/plots/learning.svg").read_text()
    metrics = load(Path("runs/whole/metrics.json"))
    assert 0 < metrics["trainable_parameters"] < metrics["total_parameters"]
    named = read_checkpoint("runs/whole/checkpoints/epoch-0000.ckpt")["av1part"]["parameters"]
    assert {layer_of(n.removeprefix("classifier.backbone.")) for n in named["frozen"]} == {
        *("stem", "layer1")
    }, "what a later epoch thaws is trained, whichever epoch the checkpoint is of"

    def cut(self: Timing, trainer: Any, module: Any) -> None:
        if trainer.current_epoch == 3:
            raise RuntimeError("pulled the plug")

    with monkeypatch.context() as patched:
        patched.setattr(Timing, "on_train_epoch_start", cut)
        with pytest.raises(RuntimeError, match="plug"):
            av1part(*words, "name=cut")
    assert av1part(*words, "name=cut", "resume=true").code == 0
    for name in ("metrics.json", "history.csv"):
        assert Path("runs/whole", name).read_text() == Path("runs/cut", name).read_text(), name


def test_ulmfit_is_refused_under_several_processes(
    av1part: Command, on_small: tuple[str, ...], stage1: Path
) -> None:
    words = ("train", "stage=stage2", "method=ulmfit", f"stage1={stage1}", *on_small)
    ran = av1part(*words, "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")
    assert ran.code == 2
    assert "trainer.devices=1" in ran.error_lines[0]


@pytest.mark.parametrize("method", ["finetune", "ulmfit", "partial"])
def test_a_backbone_that_is_trained_needs_a_rate(
    av1part: Command, on_small: tuple[str, ...], stage1: Path, method: str
) -> None:
    words = ("train", "stage=stage2", f"method={method}", f"stage1={stage1}", *on_small)
    ran = av1part(*words, "method.lr_backbone=null")
    assert ran.code == 2
    assert f"optimizer.lr.backbone is null, but method={method}" in ran.error_lines[0]
    assert not list(Path.cwd().iterdir())


def test_partial_fine_tuning_moves_the_layers_it_names(
    av1part: Command, on_small: tuple[str, ...], stage1: Path
) -> None:
    words = ("train", "stage=stage2", "method=partial", f"stage1={stage1}", "name=s2", *on_small)
    ran = av1part(*words, "method.layers=[stem,layer3]")
    assert ran.code == 0, ran.err
    before, after = (
        read_checkpoint(path)["state_dict"] for path in (stage1, "runs/s2/checkpoints/last.ckpt")
    )
    moved = {
        layer_of(name.removeprefix("classifier.backbone."))
        for name in moved_tensors(before, after)
        if name.startswith("classifier.backbone.")
    }
    assert moved == {"stem", "layer3"}


def test_a_kernel_that_sees_one_sample_is_refused(
    av1part: Command, on_small: tuple[str, ...], stage1: Path
) -> None:
    words = ("train", "stage=stage2", "adapter=depthwise3x3", f"stage1={stage1}", *on_small)
    ran = av1part(*words, "adapter.layers=[1,2,3]")
    assert ran.code == 2
    assert "in layer 3, where a block of 16x16 is a single sample" in ran.error_lines[0]
    assert "adapter.layers=[1, 2]" in ran.error_lines[0]
    assert av1part(*words, "adapter.layers=[1,2,3]", "data.context=8").code == 0


def test_an_interrupted_run_resumes_to_the_same_end(
    av1part: Command,
    on_small: tuple[str, ...],
    stage1: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = ("train", "experiment=exp11a/v1", f"stage1={stage1}", "data.augment=symmetries")
    words = (*words, *on_small, "trainer.max_epochs=4")
    assert av1part(*words, "name=whole").code == 0

    def cut(self: Timing, trainer: Any, module: Any) -> None:
        if trainer.current_epoch == 2:
            raise RuntimeError("pulled the plug")

    with monkeypatch.context() as patched:
        patched.setattr(Timing, "on_train_epoch_start", cut)
        with pytest.raises(RuntimeError, match="plug"):
            av1part(*words, "name=cut")
    assert not Path("runs/cut/metrics.json").exists()
    refused = av1part(*words, "name=cut")
    assert refused.code == 2
    assert "resume=true" in refused.err
    for other in ("optimizer.weight_decay=0.1", "data.batch_size=32", "trainer.max_epochs=9"):
        changed = av1part(*words, "name=cut", "resume=true", other)
        assert changed.code == 2
        assert other.partition("=")[0] in changed.error_lines[0]
    # Moved meanwhile: what was best so far is still known.
    Path("runs/cut").rename("runs/moved")
    assert av1part(*words, "name=moved", "resume=true").code == 0
    Path("runs/moved").rename("runs/cut")
    whole, parts = (load(Path("runs", name, "timing.json")) for name in ("whole", "cut"))
    assert parts["epoch_blocks"] == whole["epoch_blocks"]
    assert len(parts["epoch_seconds"]) == 4
    for name in ("metrics.json", "history.csv", "confusion.csv"):
        assert Path("runs/whole", name).read_text() == Path("runs/cut", name).read_text(), name
    states = [
        read_checkpoint(f"runs/{n}/checkpoints/last.ckpt")["state_dict"] for n in ("whole", "cut")
    ]
    assert moved_tensors(*states) == []
    before = {p: sha256_file(p) for p in Path("runs/cut").rglob("*.*") if p.suffix != ".log"}
    kept = av1part(*words, "name=cut", "resume=true")
    assert kept.code == 0
    assert "finished" in kept.err
    assert av1part(*words, "name=cut", "resume=true", "trainer.max_epochs=9").code == 2
    assert {p: sha256_file(p) for p in before} == before


def test_a_resumed_run_honours_the_patience_it_had_used(
    av1part: Command, on_small: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("train", "stage=stage1", *on_small, "trainer.max_epochs=30", "callbacks.patience=1")
    assert av1part(*words, "name=whole").code == 0
    epochs = len(Path("runs/whole/history.csv").read_text().splitlines()) - 1
    assert epochs < 30, "the run must stop early for this test to mean anything"

    def cut(*args: Any) -> None:
        raise RuntimeError("pulled the plug")

    with monkeypatch.context() as patched:
        patched.setattr("av1part.training.run._finish", cut)
        with pytest.raises(RuntimeError, match="plug"):
            av1part(*words, "name=cut")
    assert av1part(*words, "name=cut", "resume=true").code == 0
    for name in ("metrics.json", "history.csv"):
        assert Path("runs/whole", name).read_text() == Path("runs/cut", name).read_text(), name


def test_a_frozen_part_that_moves_ends_the_run(
    av1part: Command, on_small: tuple[str, ...], stage1: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The study's backbone thawed at epoch 9; here one tensor moves by one part in a thousand."""

    def thaw(self: Stage2) -> None:
        if self.current_epoch == 1:
            with torch.no_grad():
                self.classifier.backbone.bn1.weight *= 1.001

    monkeypatch.setattr(Stage2, "on_train_epoch_start", thaw)
    words = ("train", "experiment=exp11a/v1", f"stage1={stage1}", "name=s2", *on_small)
    ran = av1part(*words)
    assert ran.code == 2
    assert "backbone.bn1.weight" in ran.error_lines[0]
    assert read_checkpoint("runs/s2/checkpoints/best.ckpt")["epoch"] == 0
    assert not Path("runs/s2/metrics.json").exists()


def test_thawed_batchnorm_statistics_end_the_run(
    av1part: Command, on_small: tuple[str, ...], stage1: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`requires_grad=False` alone would let them move."""
    from av1part.models.classifier import Classifier

    monkeypatch.setattr(Classifier, "train", torch.nn.Module.train)
    ran = av1part("train", "experiment=exp11a/v1", f"stage1={stage1}", *on_small)
    assert ran.code == 2
    assert "60 frozen tensors moved" in ran.error_lines[0]  # mean, variance, count of 20 layers


def test_the_best_first_epoch_warns(
    av1part: Command, on_small: tuple[str, ...], stage1: Path
) -> None:
    words = ("train", "stage=stage2", "method=frozen", f"stage1={stage1}", *on_small)
    ran = av1part(*words, "optimizer.lr.head=1e-12", "trainer.max_epochs=3")
    assert ran.code == 0
    assert "best epoch is the first of 3" in ran.err
    for cause in ("(1)", "(2)", "(3)"):
        assert cause in ran.err


def test_save_and_verify_every_epoch(av1part: Command, on_small: tuple[str, ...]) -> None:
    words = ("train", "stage=stage1", "name=all", *on_small, "callbacks.save_every=epoch")
    assert av1part(*words, "callbacks.verify_every=epoch").code == 0
    for epoch in (0, 1):
        record = load(Path(f"runs/all/checkpoints/epoch-{epoch:04d}.verified.json"))
        assert (record["epoch"], record["level"]) == (epoch, "full")
        assert load_stage(f"runs/all/checkpoints/epoch-{epoch:04d}.ckpt").stage_name == "stage1"


@pytest.mark.slow
def test_a_moved_run_keeps_its_best(
    av1part: Command, on_small: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning forgets the best score when the folder's name has changed."""
    words = ("train", "stage=stage1", *on_small, "trainer.max_epochs=6", "callbacks.patience=null")
    assert av1part(*words, "name=whole").code == 0
    best = load(Path("runs/whole/metrics.json"))["epoch"]

    def cut(self: Timing, trainer: Any, module: Any) -> None:
        if trainer.current_epoch == best + 1:
            raise RuntimeError("pulled the plug")

    assert best < 5, "the best epoch must come before the cut for this test to mean anything"
    with monkeypatch.context() as patched:
        patched.setattr(Timing, "on_train_epoch_start", cut)
        with pytest.raises(RuntimeError, match="plug"):
            av1part(*words, "name=cut")
    Path("runs/cut").rename("runs/moved")
    assert av1part(*words, "name=moved", "resume=true").code == 0
    assert load(Path("runs/moved/metrics.json")) == load(Path("runs/whole/metrics.json"))


def test_a_diverged_run_is_refused(av1part: Command, on_small: tuple[str, ...]) -> None:
    ran = av1part("train", "stage=stage1", "name=s1", *on_small, "optimizer.lr.backbone=1e30")
    assert ran.code == 2
    assert "not finite in epoch 0" in ran.error_lines[0]
    assert not Path("runs/s1/checkpoints/best.ckpt").exists()


@pytest.mark.slow
def test_two_processes_train_one_model(on_small: tuple[str, ...], tmp_path: Path) -> None:
    """trainer=ddp on the CPU: both take part, one verifies and writes."""
    script = Path(sys.executable).with_name("av1part")
    words = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "name=two")
    ran = subprocess.run(
        [script, "train", "stage=stage1", *on_small, *words],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    folder = tmp_path / "runs" / "two"
    metrics = load(folder / "metrics.json")
    for kind in ("best", "last"):
        record = load(folder / "checkpoints" / f"{kind}.verified.json")
        assert record["delta_pp"] == 0
    # Validation in two shares adds up to what one process finds on all of val.
    with (folder / "history.csv").open() as file:
        history = list(csv.DictReader(file))
    assert float(history[metrics["epoch"]]["macro_f1"]) == pytest.approx(metrics["macro_f1"])


def test_a_sweep_runs_every_job(av1part: Command, on_small: tuple[str, ...], stage1: Path) -> None:
    words = ("train", "-m", "experiment=exp11a/v1", f"stage1={stage1}", "seed=1,2", *on_small)
    ran = av1part(*words)
    assert ran.code == 0, ran.err
    folders = sorted(p.parent for p in Path("runs").rglob("metrics.json"))
    assert len(folders) == 2
    assert all(
        set(f.name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
        for f in folders
    )
    seeds = {load(f / "environment.json")["seed"] for f in folders}
    assert seeds == {1, 2}
