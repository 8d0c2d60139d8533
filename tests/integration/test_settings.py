"""Settings that cannot be: one line that names key and remedy, before anything is opened."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from av1part import embedded

from .conftest import Command
from .test_cli import refused


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("train", "stage=stage2", "stage1=[a.ckpt,b.ckpt]"), "stage1 must be one path"),
        (("train", "data.path=[a,b]"), "data.path must be one path, got ['a', 'b']"),
        (("train", "-m", "data.path=[a,b]", "seed=1"), "data.path must be one path"),
        (("train", "data.split_list=[a]"), "data.split_list must be one path"),
        (("train", "injection=confusion", "injection.stage2=[a]"), "injection.stage2 must be one"),
        (("train", "stage=stage2", "stage1=x", "cache.folder=[a]"), "cache.folder must be one"),
        (("validate", "x.ckpt", "out=[a]"), "out must be one path"),
        (("report", "x", "out=[a]"), "out must be one path"),
        (("report", "x", "publish=[a]"), "publish must be one path"),
    ],
)
def test_a_path_is_text(words: tuple[str, ...], said: str, av1part: Command) -> None:
    refused(av1part(*words), said)
    assert not list(Path.cwd().iterdir())


@pytest.mark.parametrize("key", ["data.path", "stage1", "data.split_list"])
def test_a_path_may_be_called_by_a_number(key: str, av1part: Command) -> None:
    refused(av1part("train", "-m", "stage=stage2", f"{key}=2026,2027"), "2026")


@pytest.mark.parametrize("given", ["5", "frozen", "[]", "{a: 1}"])
def test_variants_are_a_list(given: str, av1part: Command, tmp_path: Path) -> None:
    (tmp_path / "sweep.json").write_text("{}")
    refused(av1part("validate", tmp_path, "split=test", f"variants={given}"), " a list")


def test_a_variant_may_be_called_by_a_number(av1part: Command, tmp_path: Path) -> None:
    (tmp_path / "8" / "seed-0").mkdir(parents=True)
    (tmp_path / "8" / "seed-0" / "metrics.json").write_text("{}")
    (tmp_path / "8" / "seed-0" / "config.yaml").write_text("{}")
    jobs = [{"folder": "8/seed-0", "variant": "8", "member": "seed-0"}]
    (tmp_path / "sweep.json").write_text(json.dumps({"format": 1, "jobs": jobs}))
    ran = av1part("validate", tmp_path, "split=test", "variants=[8]")
    refused(ran, "8/seed-0/checkpoints/best.ckpt does not exist")


def test_a_sweep_with_a_number_without_end_is_refused(av1part: Command) -> None:
    refused(av1part("train", "-m", "loss.gamma=inf,2"), "loss.gamma must be finite, got inf")
    assert not list(Path.cwd().iterdir())


@pytest.mark.parametrize(
    ("group", "content", "said"),
    [
        ("callbacks", "patience: 10", "callbacks.verify_every is missing: start your file of"),
        ("callbacks", "patience: 10", "with `defaults: [default]`"),
        ("trainer", "accelerator: cpu\ndevices: 1\nmax_epochs: 1", "with `defaults: [cpu]`"),
        ("data", "path: null", "data.size is missing"),
        ("cache", "mode: auto", "cache.folder is missing"),
        ("injection", "source: none", "injection.share is missing"),
        ("optimizer", "lr: {backbone: 1e-3, head: 1e-3}", "optimizer.weight_decay is missing"),
        ("backbone", "width: 8", "backbone.weights is missing: give it a value"),
        ("loss", "gamma: 2.0", "loss.kind is missing"),
        ("scheduler", "eta_min: 0.1", "scheduler.kind is missing"),
        (
            "data",
            "defaults: [default]\nbath_size: 64",
            "no data.bath_size, did you mean data.batch_size?",
        ),
    ],
)
def test_a_file_of_ones_own_has_all_keys_and_no_other(
    group: str, content: str, said: str, av1part: Command, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("conf")
    (folder / group).mkdir()
    (folder / group / "mine.yaml").write_text(content)
    refused(av1part("train", "--config-dir", folder, f"{group}=mine"), said)
    assert not list(Path.cwd().iterdir())


def test_a_file_of_ones_own_may_start_with_the_default(
    av1part: Command, on_small: tuple[str, ...], tmp_path: Path
) -> None:
    for group, content in {
        "callbacks": "defaults: [default]\nplots: false",
        "trainer": "defaults: [cpu]\nmax_epochs: 1",
        "backbone": "width: 8\nweights: none",
        "head": "kind: linear",
    }.items():
        (tmp_path / "mine" / group).mkdir(parents=True)
        (tmp_path / "mine" / group / "own.yaml").write_text(content)
    groups = ("callbacks", "trainer", "backbone", "head")
    words = [word for word in on_small if not word.startswith(groups)]
    words += [f"{group}=own" for group in groups]
    ran = av1part("train", "--config-dir", "mine", "name=own", *words)
    assert ran.code == 0, ran.err


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("~optimizer.lr.head", "optimizer.lr.head is missing"),
        ("~trainer.compile", "leave out what removes it (~)"),
        ("~logger", "logger.names is missing"),
        ("~scheduler", "scheduler.kind is missing"),
        ("~loss.kind", "loss.kind is missing"),
        ("optimizer.lr=5", "optimizer.lr.backbone is missing"),
        ("~resume", "resume is missing: give it a value"),
        ("data.context={a: 1}", "data.context must be a value"),
        ("+data.foo=1", "there is no data.foo"),
        ("+optimizer.foo=1", "there is no optimizer.foo: optimizer has weight_decay, lr.backbone"),
        ("+scheduler.foo=1", "there is no scheduler.foo"),
    ],
)
def test_keys_that_are_missing_or_unknown(word: str, said: str, av1part: Command) -> None:
    refused(av1part("train", word), said)
    refused(av1part("train", "-m", "seed=1,2", word), said)
    assert not list(Path.cwd().iterdir())


@pytest.mark.parametrize("word", ["stage1=[]", "stage1=[ ]", "stage1=null", "stage2=x.ckpt"])
def test_the_pipeline_needs_a_stage1(word: str, av1part: Command) -> None:
    refused(av1part("pipeline", word), "av1part pipeline needs stage1=CKPT")
    assert not list(Path.cwd().iterdir())


@pytest.mark.parametrize("words", [(), ("stage1=[]",), ("stage1=[]", "stage2=null")])
def test_calibrate_needs_a_checkpoint(words: tuple[str, ...], av1part: Command) -> None:
    refused(av1part("calibrate", *words), "av1part calibrate takes either CKPT...")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), f"leave it out, or have sequences drawn by data.path={embedded.STORE}"),
        (("data.protocol=by_segment",), "data.protocol=by_segment is the same for every seed"),
        (("data.protocol=given",), "data.protocol=given is the same for every seed"),
        (("data.split_list=mine.csv",), "data.split_list=mine.csv says the split"),
    ],
)
def test_a_split_seed_that_does_nothing_is_refused(
    words: tuple[str, ...], said: str, av1part: Command
) -> None:
    refused(av1part("train", "data.split_seed=1", *words), "data.split_seed=1 does nothing", said)
    refused(av1part("train", "-m", "data.split_seed=42,2", *words), "data.split_seed=2", said)
    assert not list(Path.cwd().iterdir())


@pytest.mark.slow
def test_a_split_seed_draws_sequences_and_blocks(
    av1part: Command, on_small: tuple[str, ...]
) -> None:
    words = [word for word in on_small if not word.startswith(("data.path", "data.split_list"))]
    paths = {"by_sequence": f"data.path={embedded.STORE}", "random_blocks": "data.path=null"}
    for protocol, path in paths.items():
        ran = av1part(
            *("train", f"name={protocol}", path, f"data.protocol={protocol}", "data.split_seed=7"),
            *(*words, "trainer.max_epochs=1"),
        )
        assert ran.code == 0, ran.err
        ran = av1part("validate", f"runs/{protocol}/checkpoints/best.ckpt")
        assert "equal to what training recorded" in ran.out


def test_a_checkpoint_of_a_split_seed_that_did_nothing_is_validated(
    av1part: Command, stage1: Path
) -> None:
    """As runs of before have them, to which the seed was given without a word."""
    checkpoint = torch.load(stage1, weights_only=True)
    checkpoint["hyper_parameters"]["data"]["split_seed"] = 7
    torch.save(checkpoint, "mine.ckpt")
    ran = av1part("validate", "mine.ckpt")
    assert ran.code == 0, ran.err
