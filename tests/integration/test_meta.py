"""`method=meta` from the command line: trained, read back, validated, and refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
import torch

from av1part.checkpoints.load import load_stage, read_checkpoint
from av1part.evaluation.attach import attach_data
from av1part.models.freeze import moved_tensors
from av1part.stages.blocks import BlockStage

from .conftest import Command

CLIP = Path(__file__).parents[1] / "data" / "crops_72x56.y4m"
RESULTS = ("metrics.json", "history.csv", "confusion.csv", "predictions.parquet")


@pytest.mark.parametrize("algorithm", ["reptile", "fomaml"])
def test_a_trained_start_validates_to_what_training_recorded(
    av1part: Command, meta_words: tuple[str, ...], algorithm: str, stage1: Path
) -> None:
    words = ("train", *meta_words, f"method.algorithm={algorithm}", "optimizer.lr.head=1e-2")
    ran = av1part(*words, "name=meta", "callbacks.verify=process", "cache.folder=features")
    assert ran.code == 0, ran.err
    run = Path("runs/meta")
    best = run / "checkpoints/best.ckpt"
    for kind in ("best", "last"):
        record = json.loads((run / f"checkpoints/{kind}.verified.json").read_text())
        assert record["delta_pp"] == 0
        assert record["macro_f1_full"] == record["macro_f1_reloaded"]
    again = av1part("validate", best, "out=again")
    assert "equal to what training recorded" in again.out
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["method"] == "meta"
    assert json.loads(Path("again/metrics.json").read_text())["macro_f1"] == metrics["macro_f1"]
    # Of the queries alone, each once.
    module = load_stage(best)
    data = attach_data(module)
    nodes = pl.read_parquet(run / "predictions.parquet")["node"].sort().to_list()
    assert nodes == data.scored("val")[16].tolist()
    assert 0 < len(nodes) < len(data.reader("val"))
    # The trunk is Stage 1's, the rest has moved.
    checkpoint, start = read_checkpoint(best), read_checkpoint(stage1)
    ours, theirs = (
        {k: v for k, v in c["state_dict"].items() if ".backbone." in k} for c in (checkpoint, start)
    )
    assert moved_tensors(ours, theirs) == []
    assert sorted(n.split(".")[1] for n in checkpoint["av1part"]["parameters"]["trainable"]) == [
        *["adapters"] * 16,
        *["head"] * 6,
    ]


def test_it_is_trained_the_same_twice_and_with_features_as_with_blocks(
    av1part: Command, meta_words: tuple[str, ...]
) -> None:
    for name, more in {"one": (), "same": (), "cached": ("cache=auto", "cache.folder=f")}.items():
        assert av1part("train", *meta_words, f"name={name}", *more).code == 0
    for result in RESULTS:
        assert Path("runs/one", result).read_bytes() == Path("runs/same", result).read_bytes()
    one, same, cached = (
        read_checkpoint(f"runs/{name}/checkpoints/last.ckpt")["state_dict"]
        for name in ("one", "same", "cached")
    )
    assert moved_tensors(one, same) == []
    for name, tensor in one.items():
        torch.testing.assert_close(cached[name], tensor, rtol=1e-3, atol=1e-4)


def test_other_tasks_are_another_run(av1part: Command, meta_words: tuple[str, ...]) -> None:
    assert av1part("train", *meta_words, "name=m", "trainer.max_epochs=1").code == 0
    ran = av1part(
        *("train", *meta_words, "name=m", "trainer.max_epochs=1", "resume=true"), "method.gap=32"
    )
    assert ran.code == 2
    assert "method.gap" in ran.error_lines[0]


def test_the_steps_help_where_nothing_else_has_been_learnt(
    av1part: Command, meta_words: tuple[str, ...]
) -> None:
    """Validation without its steps is another: what is scored is the adapted stage."""
    words = ("train", *meta_words, "trainer.max_epochs=1", "optimizer.lr.head=1e-6")
    assert av1part(*words, "name=m", "optimizer.lr.adapters=1e-6", "head=linear").code == 0
    module = load_stage("runs/m/checkpoints/best.ckpt")
    assert isinstance(module, BlockStage)
    data, losses = attach_data(module), []
    for batch in data.batches("val"):
        query = {key: tensor[~batch["support"]] for key, tensor in batch.items()}
        with torch.no_grad():
            own, _ = module.answers(batch)[16]
            start = module(query["block"], query["qindex"])
        losses.append([float(module.loss(x, module.labels(query))) for x in (own, start)])
    adapted, plain = torch.tensor(losses).mean(0).tolist()
    assert adapted < plain


def test_in_a_cascade_its_start_is_used_as_it_is_with_a_warning(
    av1part: Command, meta_words: tuple[str, ...], on_small: tuple[str, ...], stage1: Path
) -> None:
    assert av1part("train", *meta_words, "name=m", "trainer.max_epochs=1").code == 0
    for stage in ("stage3_rect", "stage3_ab"):
        words = ("train", f"stage={stage}", f"stage1={stage1}", *on_small, "trainer.max_epochs=1")
        assert av1part(*words, f"name={stage}").code == 0
    members = [f"{s}=runs/{s}/checkpoints/best.ckpt" for s in ("stage3_rect", "stage3_ab")]
    ran = av1part("pipeline", f"stage1={stage1}", "stage2=runs/m/checkpoints/best.ckpt", *members)
    assert ran.code == 0, ran.err
    raw = ("calibration=none", "out=b")
    said = "is of method=meta: its start is used as it is"
    assert said in ran.out + ran.err
    for verb in (
        ("calibrate", "runs/m/checkpoints/best.ckpt"),
        ("bundle", f"stage1={stage1}", "stage2=runs/m/checkpoints/best.ckpt", *members, *raw),
        ("predict", CLIP, "model=b", "out=o", "qindex=[100]", "frames=1"),
    ):
        ran = av1part(*verb)
        assert ran.code == 0, ran.err
        assert said in ran.out + ran.err, verb


REFUSED = {
    "data.batch_size=64": "data.batch_size does nothing with method=meta",
    "data.eval_batch_size=64": "data.eval_batch_size does nothing with method=meta",
    "data.sampling=balanced": "data.sampling does nothing with method=meta",
    "data.augment=symmetries": "data.augment does nothing with method=meta",
    "data.noise=0.1": "data.noise does nothing with method=meta",
    "data.mixup=0.2": "data.mixup does nothing with method=meta",
    "data.planes=device": "data.planes does nothing with method=meta",
    "data.context=17": "data.context=17 reaches over method.gap=16",
    "trainer.compile=true": "trainer.compile=true does not go with method=meta",
    "trainer.accumulate_grad_batches=2": "trainer.accumulate_grad_batches=2 does not go with",
    "trainer.gradient_clip_val=1.0": "trainer.gradient_clip_val=1.0 does not go with method=meta",
    "trainer.precision=bf16-mixed": "trainer.precision=bf16-mixed does not go with method=meta",
    "stage=stage3_ab injection=uniform": "injection=uniform does nothing with method=meta",
    "stage1=null": "method=meta of stage2 needs a trained backbone",
    "method.algorithm=maml": "method.algorithm must be one of reptile, fomaml",
    "method.inner_steps=0": "method.inner_steps must be a number from 1 to 1000",
    "method.support=1.5": "method.support must be a number from 0.01 to 0.99",
    "method.support_nodes=2": "method.support_nodes must be null or at least method.least=4",
    "method.support_nodes=500": "no task in the train split",
    "method.no_such=1": "no_such",
    "trainer.devices=2 trainer.strategy=ddp": "method=meta takes its outer steps itself",
}


@pytest.mark.parametrize("asked", REFUSED)
def test_what_does_not_go_with_it_is_refused_in_one_line(
    av1part: Command, meta_words: tuple[str, ...], asked: str
) -> None:
    words = asked.split()
    given = {word.partition("=")[0] for word in words}
    own = [word for word in meta_words if word.partition("=")[0] not in given]
    ran = av1part("train", *own, *words, "name=refused")
    assert ran.code == 2, ran.err
    assert len(ran.error_lines) == 1
    assert REFUSED[asked] in ran.error_lines[0]
    assert not Path("runs/refused").exists()


@pytest.mark.parametrize("protocol", ["by_segment", "random_blocks"])
def test_pictures_that_are_in_several_splits_are_no_tasks(
    av1part: Command, meta_words: tuple[str, ...], protocol: str
) -> None:
    own = [word for word in meta_words if not word.startswith("data.split_list")]
    ran = av1part("train", *own, f"data.protocol={protocol}", "name=refused")
    assert ran.code == 2
    assert "method=meta takes whole pictures as tasks" in ran.error_lines[0]


def test_the_superblock_network_is_not_trained_by_it(av1part: Command) -> None:
    ran = av1part("train", "stage=superblock", "method=meta")
    assert ran.code == 2
    assert "leave out method=meta" in ran.error_lines[0]


def test_a_stage_on_the_superblock_network_s_trunk_is_trained_by_it(
    av1part: Command, meta_words: tuple[str, ...]
) -> None:
    words = ("stage=superblock", "backbone.width=2", "data.crop=64", "callbacks.verify_batches=4")
    data = [word for word in meta_words if word.startswith(("data.path", "data.split_list"))]
    few = ("trainer.max_epochs=1", "logger=none", "callbacks.plots=false", "cache=off")
    assert av1part("train", *words, *data, *few, "name=sb").code == 0
    own = [word for word in meta_words if not word.startswith(("backbone.width", "stage1"))]
    ran = av1part(
        *("train", *own, *few, "backbone=superblock", "backbone.width=2", "name=m"),
        "stage1=runs/sb/checkpoints/best.ckpt",
        *("adapter=lora", "adapter.layers=[4]"),
    )
    assert ran.code == 0, ran.err
    record = json.loads(Path("runs/m/checkpoints/best.verified.json").read_text())
    assert record["delta_pp"] == 0
