"""Losses, augmentation and noise injection through the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from av1part import embedded
from av1part.checkpoints.load import load_stage, read_checkpoint
from av1part.models.freeze import moved_tensors
from av1part.partition import Partition, taxonomy
from av1part.system.files import sha256_file
from av1part.training.callbacks.timing import Timing
from av1part.training.stage2_errors import build_injection

from .conftest import Command, Ran

ALL_ON = ("data.augment=symmetries", "data.noise=0.1", "data.mixup=0.3")


def run_text(name: str) -> tuple[str, ...]:
    folder = Path("runs", name)
    return tuple((folder / f).read_text() for f in ("metrics.json", "history.csv", "confusion.csv"))


def state(name: str) -> dict[str, Any]:
    tensors: dict[str, Any] = read_checkpoint(f"runs/{name}/checkpoints/last.ckpt")["state_dict"]
    return tensors


def refused(ran: Ran, *said: str) -> None:
    assert ran.code == 2, ran.out + ran.err
    assert len(ran.error_lines) == 1
    for word in said:
        assert word in ran.error_lines[0]


@pytest.mark.parametrize(
    "words",
    [
        ("stage=stage1", "loss=hard_negative", "loss.ratio=2", *ALL_ON),
        (
            *("stage=stage3_ab", "method=finetune", "injection=uniform", *ALL_ON),
            *("loss=focal", "loss.alpha=[1,3,1,2]", "loss.smoothing=0.1"),
        ),
    ],
    ids=["hard_negative", "uniform"],
)
def test_each_trains_acts_and_repeats(
    words: tuple[str, ...],
    av1part: Command,
    on_small: tuple[str, ...],
    stage1: Path,
    small_store: Path,
) -> None:
    before = {p: sha256_file(p) for p in small_store.rglob("*") if p.is_file()}
    start = () if "stage=stage1" in words else (f"stage1={stage1}",)
    common = ("train", *on_small, "trainer.max_epochs=1", *start)
    for name in ("one", "again"):
        ran = av1part(*common, *words, f"name={name}")
        assert ran.code == 0, ran.err
    assert run_text("one") == run_text("again")
    assert moved_tensors(state("one"), state("again")) == []
    plain = [w for w in words if w.startswith(("stage=", "method="))]
    assert av1part(*common, *plain, "name=plain").code == 0
    assert moved_tensors(state("one"), state("plain"))
    assert {p: sha256_file(p) for p in small_store.rglob("*") if p.is_file()} == before


def test_a_resumed_run_with_everything_on_ends_as_an_uninterrupted_one(
    av1part: Command,
    on_small: tuple[str, ...],
    stage1: Path,
    stage2: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = (
        *("train", "stage=stage3_rect", "method=finetune", f"stage1={stage1}", "loss=focal"),
        *("injection=confusion", f"injection.stage2={stage2}", "injection.labels=random"),
        *("data.sampling=balanced", "conditioning=qindex", "loss.smoothing=0.1", *ALL_ON),
        *(*on_small, "trainer.max_epochs=3"),
    )
    assert av1part(*words, "name=whole").code == 0

    def cut(self: Timing, trainer: Any, module: Any) -> None:
        if trainer.current_epoch == 1:
            raise RuntimeError("pulled the plug")

    with monkeypatch.context() as patched:
        patched.setattr(Timing, "on_train_epoch_start", cut)
        with pytest.raises(RuntimeError, match="plug"):
            av1part(*words, "name=cut")
    refused(av1part(*words, "name=cut", "resume=true", "injection.share=0.5"), "injection.share")
    # Loader processes give the same batches; they are no part of what is compared.
    ran = av1part(*words, "name=cut", "resume=true", "data.num_workers=1")
    assert ran.code == 0, ran.err
    assert run_text("whole") == run_text("cut")
    assert moved_tensors(state("whole"), state("cut")) == []


def test_injection_is_recorded_as_measured(
    av1part: Command, on_small: tuple[str, ...], stage1: Path, stage2: Path
) -> None:
    words = ("train", "stage=stage3_ab", f"stage1={stage1}", *on_small, "trainer.max_epochs=1")
    ran = av1part(*words, "injection=confusion", f"injection.stage2={stage2}", "name=robust")
    assert ran.code == 0, ran.err
    assert "of an epoch's" in ran.err
    assert "on val Stage 2 sends here" in ran.err
    checkpoint = read_checkpoint("runs/robust/checkpoints/best.ckpt")
    facts = checkpoint["hyper_parameters"]["data"]["injection"]
    environment = json.loads(Path("runs/robust/environment.json").read_text())
    assert environment["dataset"]["injection"] == facts
    assert facts["stage2_sha256"] == read_checkpoint(stage2)["av1part"]["state_sha256"]
    # The rates once more, from what Stage 2's own run wrote of val.
    table = pl.read_parquet(stage2.parents[1] / "predictions.parquet")
    nodes = pl.read_parquet(Path(environment["dataset"]["path"]) / "nodes.parquet")
    types = nodes["partition"].to_numpy()[table["node"].to_numpy()]
    ab = taxonomy("v6").stage("stage2").class_names.index("AB")
    sent = table["prediction"].to_numpy() == ab
    assert set(facts["rates"]) == {"HORZ", "VERT", "SPLIT"}
    for name, rate in facts["rates"].items():
        assert rate == np.mean(sent[types == Partition[name]]), name
    # Class counts, weights and val are as without, which a share of null is.
    assert av1part(*words, "injection=uniform", "injection.share=null", "name=plain").code == 0
    plain = read_checkpoint("runs/plain/checkpoints/best.ckpt")["hyper_parameters"]["data"]
    ours = checkpoint["hyper_parameters"]["data"]
    assert plain["injection"] is None
    assert {**ours, "injection": None} == plain
    robust = load_stage("runs/robust/checkpoints/best.ckpt")
    assert (
        robust.loss.alpha.tolist()
        == load_stage("runs/plain/checkpoints/best.ckpt").loss.alpha.tolist()
    )
    supports = [
        json.loads(Path(f"runs/{n}/metrics.json").read_text())["per_class"]["HORZ_A"]["support"]
        for n in ("robust", "plain")
    ]
    assert supports[0] == supports[1]
    assert "every figure" in av1part("validate", "runs/robust/checkpoints/best.ckpt").out
    assert av1part("report", "runs/robust", "runs/plain", "out=page").code == 0
    said = Path("page/report.md").read_text()
    assert said.count("blocks are not of this stage (source confusion, labels nearest)") == 1


def test_measuring_stage_2_draws_no_random_numbers(stage2: Path, small_store: Path) -> None:
    """Building its network would; the weights of the run must start as without injection."""
    data = {"path": small_store, "split_list": embedded.SPLIT_LIST, "taxonomy": "v6", "size": 16}
    options = {"source": "confusion", "share": 0.2, "labels": "nearest", "stage2": stage2}
    before = torch.get_rng_state()
    injection = build_injection(options, {**data, "stage": "stage3_ab"})
    assert injection is not None
    assert torch.equal(torch.get_rng_state(), before)
    for share in (0, 0.0, None):
        assert build_injection({**options, "share": share}, {**data, "stage": "stage2"}) is None


def test_what_cannot_be_is_told_in_one_line(
    av1part: Command, on_small: tuple[str, ...], stage1: Path, stage2: Path
) -> None:
    def train(*words: str) -> Ran:
        return av1part("train", *on_small, f"stage1={stage1}", *words)

    refused(train("stage=stage2", "injection=uniform"), "stage2 is none", "injection=none")
    refused(train("stage=stage3_ab", "injection=confusion"), "injection.stage2=CKPT")
    refused(train("stage=stage3_ab", f"injection.stage2={stage2}"), "injection=confusion")
    given = ("stage=stage3_ab", "injection=confusion", f"injection.stage2={stage2}")
    refused(train("stage=stage3_ab", "injection=uniform", given[-1]), "injection.stage2")
    refused(train(*given[:2], f"injection.stage2={stage1}"), "stage1", "stage2")
    refused(train(*given[:2], "injection.stage2=none.ckpt"), "none.ckpt")
    other = ("data.protocol=random_blocks", "data.split_list=null")
    refused(train(*given, *other), "split_sha256", "train it alike")
    refused(train(*given, "data.context=2"), "context")
    refused(train("stage=stage3_rect", "loss=hard_negative"), "stage1 alone", "stage3_rect")
    both = ("loss=hard_negative", "data.sampling=balanced")
    refused(av1part("train", *on_small, *both), "balances twice")
    refused(av1part("train", *on_small, "loss=focal", "loss.alpha=[1,2,3]"), "3 weights for 2")
    assert not list(Path.cwd().iterdir()), "nothing may be left"


def test_the_path_of_stage_2_may_be_any_path(av1part: Command) -> None:
    words = ("train", "stage=stage3_rect", "injection=confusion")
    ran = av1part(*words, "injection.stage2=a (b), c=d.ckpt", "--cfg", "job")
    assert ran.code == 0, ran.err
    assert "stage2: a (b), c=d.ckpt" in ran.out
