"""The study's defects on purpose, from `av1part train` to the page: what they move, who refuses."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import yaml

from av1part.checkpoints.load import load_stage, read_checkpoint
from av1part.cli.main import main
from av1part.defects import DEFECTS
from av1part.partition import Partition
from av1part.report import write_report
from av1part.training.callbacks import verified as callbacks
from av1part.training.callbacks.readback_child import read_back

from .conftest import Command

MARK = "DEFECTIVE ON PURPOSE"
LEARN = (
    *("data.batch_size=64", "head=linear", "head.dropout=0", "loss=balanced"),
    *("optimizer.lr.head=0.03", "optimizer.lr.adapters=0.01"),
)
"""Overrides by which so short a training does not end at one class for all."""
Files = dict[str, Path]


@pytest.fixture(scope="module")
def healthy(
    stage1: Path, on_small: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> Files:
    """Checkpoints of a cascade without a defect."""
    folder = tmp_path_factory.mktemp("healthy")
    before = Path.cwd()
    os.chdir(folder)
    try:
        for stage in ("stage2", "stage3_rect", "stage3_ab"):
            words = (f"stage={stage}", "method=finetune", f"stage1={stage1}", f"name={stage}")
            assert main(["train", *on_small, *LEARN, "trainer.max_epochs=4", *words]) == 0
    finally:
        os.chdir(before)
    runs = {s: folder / "runs" / s for s in ("stage2", "stage3_rect", "stage3_ab")}
    return {"stage1": stage1} | {s: run / "checkpoints/best.ckpt" for s, run in runs.items()}


@pytest.fixture
def train(av1part: Command, on_small: tuple[str, ...], stage1: Path):  # type: ignore[no-untyped-def]
    """A function that trains a Stage 2 with adapters and some defects into runs/NAME."""

    def trained(name: str, *words: str, start: Path | None = stage1) -> Path:
        own = ("stage=stage2", "method=adapter", f"stage1={start}", f"name={name}")
        given = {word.partition("=")[0] for word in words}
        own = tuple(word for word in own if word.partition("=")[0] not in given)
        ran = av1part("train", *on_small, *LEARN, *own, *words)
        assert ran.code == 0, ran.err
        assert (MARK in ran.err) == any(word.startswith("defects=") for word in words)
        return Path("runs") / name

    return trained


def metrics(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "metrics.json").read_text())
    return found


def verified(run: Path, stem: str = "best") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / f"checkpoints/{stem}.verified.json").read_text())
    return found


def history(run: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((run / "history.csv").read_text().splitlines()))


def best(run: Path) -> Path:
    return run / "checkpoints/best.ckpt"


def state(run: Path, stem: str = "best") -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = read_checkpoint(run / f"checkpoints/{stem}.ckpt")["state_dict"]
    return found


def words(files: Files, **others: Path) -> list[str]:
    return [f"{stage}={path}" for stage, path in (files | others).items()]


def test_one_from_training_to_the_page(
    av1part: Command, train: Any, healthy: Files, stage1: Path
) -> None:
    """The study's 48.52 and 25.90: live is what it is without, reloaded is another."""
    on = ("method=finetune", "optimizer.lr.backbone=0.01", "trainer.max_epochs=3")
    without, run = train("without", *on), train("with", *on, "defects=[scaled_twice_eval]")
    # Training is the same, to the bit.
    assert all(torch.equal(v, state(run)[k]) for k, v in state(without).items())
    assert history(without) == history(run)
    # What is reloaded is not, which is recorded instead of ending the run.
    record, clean = verified(run), verified(without)
    assert clean["delta_pp"] == 0
    assert record["macro_f1_live"] == clean["macro_f1_live"]
    assert record["macro_f1_reloaded"] != record["macro_f1_live"]
    assert record["defects"] == ["scaled_twice_eval"]
    assert record["log_loss_live"] == clean["log_loss_live"] != record["log_loss_reloaded"]
    assert "defects" not in clean
    assert not list(run.rglob("*.corrupt"))
    assert metrics(run)["defects"] == ["scaled_twice_eval"]
    assert metrics(run)["macro_f1"] == record["macro_f1_reloaded"] != metrics(without)["macro_f1"]
    assert "defects" not in metrics(without)
    # The checkpoint says so, in both places; a healthy one has neither.
    for folder, own in ((without, None), (run, ["scaled_twice_eval"])):
        checkpoint = read_checkpoint(best(folder))
        assert checkpoint["av1part"].get("defects") == own
        assert checkpoint["hyper_parameters"].get("defects") == own
        config = yaml.safe_load((folder / "config.yaml").read_text())
        assert config.get("defects") == own
    shown = av1part("validate", best(run), "--show")
    assert f"{MARK}" in shown.out
    assert MARK not in av1part("validate", best(without), "--show").out
    # validate scores what training recorded of the reloaded one, and says what it is.
    ran = av1part("validate", best(run), "out=v")
    assert ran.code == 0, ran.err
    assert MARK in ran.out
    assert "every figure" in ran.out
    assert metrics(Path("v"))["defects"] == ["scaled_twice_eval"]
    # The cascade takes it with the same defects= only, and marks its result.
    given = words(healthy, stage2=best(run))
    ran = av1part("pipeline", *given, "name=refused")
    assert ran.code == 2
    assert len(ran.error_lines) == 1
    assert "is defective on purpose (defects=[scaled_twice_eval])" in ran.error_lines[0]
    assert str(best(run)) in ran.error_lines[0]
    assert not Path("runs/refused").exists()
    ran = av1part("pipeline", *given, "name=marked", "defects=[scaled_twice_eval]")
    assert ran.code == 0, ran.err
    assert MARK in ran.out
    for file in ("pipeline.json", "metrics.json"):
        assert json.loads(Path("runs/marked", file).read_text())["defects"] == ["scaled_twice_eval"]
    # The pages say so, and those of healthy runs do not.
    for folder, is_marked in (
        *((run, True), (Path("runs/marked"), True), (without, False), (Path("runs"), True)),
    ):
        out = Path("pages") / folder.name
        files = write_report([folder], out)
        assert (MARK in files.html.read_text()) == is_marked, folder
        assert (MARK in (out / "report.md").read_text()) == is_marked


@pytest.mark.parametrize("verb", ["predict", "bundle", "compare", "calibrate"])
def test_what_would_use_it_refuses_it(
    av1part: Command, train: Any, healthy: Files, verb: str, tmp_path: Path
) -> None:
    own = best(train("own", "defects=[balanced_twice]"))
    Path("clip.y4m").write_bytes(b"YUV4MPEG2 W64 H64 F25:1 C420\nFRAME\n" + bytes(64 * 96))
    given = {
        "predict": ["clip.y4m", "out=out", *words(healthy, stage2=own)],
        "bundle": ["out=out", *words(healthy, stage2=own)],
        "compare": [f"a={own}", "out=out"],
        "calibrate": [own],
    }[verb]
    ran = av1part(verb, *given)
    assert ran.code == 2
    (line,) = ran.error_lines
    # `compare` takes checkpoints of superblock networks alone, which have no defects.
    assert ("expected one of superblock" if verb == "compare" else "[balanced_twice]") in line
    assert not (tmp_path / "out").exists()
    assert not list(own.parent.glob("*.calibration.json"))


def test_a_cascade_names_the_defects_of_its_checkpoints(
    av1part: Command, train: Any, healthy: Files
) -> None:
    own = best(train("own", "defects=[balanced_twice]"))
    given = words(healthy, stage2=own)
    ran = av1part("pipeline", *given, "name=a", "defects=[two_orders]")
    assert ran.code == 2
    assert "defects=[balanced_twice]" in ran.error_lines[0]
    ran = av1part("pipeline", *words(healthy), "name=a", "defects=[balanced_twice]")
    assert ran.code == 2
    assert "trained with balanced_twice" in ran.error_lines[0]
    assert not Path("runs/a").exists()
    assert av1part("pipeline", *given, "name=a", "defects=[balanced_twice,two_orders]").code == 0


def pipeline(av1part: Command, name: str, *given: str) -> dict[str, Any]:
    ran = av1part("pipeline", *given, f"name={name}")
    assert ran.code == 0, ran.err
    found: dict[str, Any] = json.loads(Path(f"runs/{name}/pipeline.json").read_text())
    return found


def test_two_orders_are_read_as_the_study_read_them(av1part: Command, healthy: Files) -> None:
    clean = pipeline(av1part, "clean", *words(healthy))
    own = pipeline(av1part, "own", *words(healthy), "defects=[two_orders]")
    answers = [pl.read_parquet(f"runs/{name}/predictions.parquet") for name in ("clean", "own")]
    written = {Partition.SPLIT: 1, Partition.HORZ: 2, Partition.VERT: 3}
    expected = [written.get(Partition(each), each) for each in answers[0]["prediction"]]
    assert answers[1]["prediction"].to_list() == expected
    assert answers[0]["prediction"].to_list() != expected
    truth = answers[0]["partition"].to_numpy()
    assert own["overall"]["accuracy"] == pytest.approx(np.mean(truth == expected))
    assert own["overall"]["accuracy"] != clean["overall"]["accuracy"]
    # What is not read by ids is as it was.
    assert (own["stages"], own["flat"]) == (clean["stages"], clean["flat"])


def test_chosen_on_what_is_scored(av1part: Command, healthy: Files) -> None:
    clean = pipeline(av1part, "clean", *words(healthy), "calibration=fit")
    own = pipeline(av1part, "own", *words(healthy), "defects=[chosen_on_scored]")
    assert own["threshold"]["fitted"] == clean["threshold"]["fitted"]
    assert len(clean["threshold"]["cross_fitted"]) == 3
    assert own["threshold"]["cross_fitted"] == {}
    assert own["overall"]["macro_f1"] > clean["overall"]["macro_f1"]  # which is why it is one
    thresholds = [own["threshold"]["fitted"], *clean["threshold"]["cross_fitted"].values()]
    assert len(set(thresholds)) > 1


def test_the_cascade_divides_the_pixels_of_every_stage(av1part: Command, healthy: Files) -> None:
    """The study's: all AB blocks HORZ_B, none of RECT HORZ, though each stage is a healthy one."""
    clean = pipeline(av1part, "clean", *words(healthy), "calibration=none")
    own = pipeline(
        av1part, "own", *words(healthy), "calibration=none", "defects=[scaled_twice_eval]"
    )
    for stage in ("stage2", "stage3_rect", "stage3_ab"):
        assert own["stages"][stage]["standalone"] != clean["stages"][stage]["standalone"]
    answers = pl.read_parquet("runs/own/predictions.parquet")
    assert answers["prediction"].n_unique() < 4
    chances = answers.select(pl.selectors.starts_with("p.")).to_numpy()
    before = pl.read_parquet("runs/clean/predictions.parquet")
    assert (
        chances.std(0).max() < before.select(pl.selectors.starts_with("p.")).to_numpy().std(0).max()
    )


@pytest.mark.parametrize(
    "defects",
    [
        *(["scaled_twice"], ["scaled_twice", "scaled_once_eval"], ["scaled_twice", "tiny_noise"]),
        *(["balanced_twice"], ["not_strict"]),
    ],
    ids=",".join,
)
def test_a_defect_of_training_changes_what_comes_out(train: Any, defects: list[str]) -> None:
    less = [name for name in defects if name != defects[-1]]
    before = train("before", *([f"defects=[{','.join(less)}]"] if less else []))
    after = train("after", f"defects=[{','.join(defects)}]")
    assert metrics(after)["defects"] == defects
    reloading = {"scaled_once_eval", "not_strict"} & set(defects)
    if reloading != {"scaled_once_eval"}:  # which trains alike
        differing = [k for k, v in state(before).items() if not torch.equal(v, state(after)[k])]
        assert differing
    assert history(before) != history(after) or reloading
    losses = [verified(run)["log_loss_reloaded"] for run in (before, after)]
    assert losses[0] != losses[1]
    record = verified(after)
    assert (record["log_loss_reloaded"] != record["log_loss_live"]) == bool(reloading)


def test_part_of_the_start_is_never_loaded(train: Any, stage1: Path) -> None:
    run = train("own", "defects=[not_strict]")
    given = {
        name.removeprefix("classifier.backbone."): tensor
        for name, tensor in read_checkpoint(stage1)["state_dict"].items()
        if name.startswith("classifier.backbone.")
    }
    own = {k.removeprefix("classifier.backbone."): v for k, v in state(run).items()}
    for name, tensor in given.items():
        kept = name.startswith(("se", "attention"))
        assert torch.equal(own[name], tensor) != kept, name


def test_a_head_that_is_not_loaded_is_another_one(train: Any) -> None:
    run = train("own", "defects=[not_strict]")
    module = load_stage(best(run), defects=DEFECTS)
    for name, tensor in state(run).items():
        same = torch.equal(module.state_dict()[name], tensor)
        assert same != name.startswith("classifier.head.") or "weight" not in name
    assert verified(run, "last")["level"] == "full"


def test_random_blocks_lie_on_both_sides(train: Any) -> None:
    start = train(
        "s1", "stage=stage1", "method=scratch", "stage1=null", "defects=[random_blocks]", start=None
    )
    run = train("own", "defects=[random_blocks]", start=best(start))
    clean = train("clean")
    assert metrics(run)["protocol"] == "random_blocks"
    assert metrics(clean)["protocol"] == "by_sequence"
    of = [
        set(pl.read_parquet(each / "predictions.parquet")["sequence"].unique())
        for each in (run, clean)
    ]
    assert of[1] < of[0]


def test_a_defective_start_needs_the_same_defects(
    av1part: Command, train: Any, on_small: tuple[str, ...]
) -> None:
    start = best(
        train(
            "s1",
            "stage=stage1",
            "method=scratch",
            "stage1=null",
            "defects=[scaled_twice]",
            start=None,
        )
    )
    own = (*on_small, *LEARN, "stage=stage2", f"stage1={start}")
    for more in ((), ("defects=[balanced_twice]",)):
        ran = av1part("train", *own, *more, "name=refused")
        assert ran.code == 2
        (line,) = ran.error_lines
        assert "defects=[scaled_twice]" in line
        assert not Path("runs/refused").exists()
    train("taken", "defects=[scaled_twice,balanced_twice]", start=start)


def moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}


def test_late_thaw_trains_the_backbone_leaves_the_adapters_and_resumes(train: Any) -> None:
    long = ("trainer.max_epochs=10", "callbacks.patience=null", "callbacks.save_every=epoch")
    long = (*long, "callbacks.verify_batches=1", "trainer.limit_train_batches=2")
    own = ("defects=[scaled_twice,tiny_noise,late_thaw]", "optimizer.lr.backbone=1e-3")
    run = train("own", *long, *own)
    frozen, thawed = (
        moved(*(state(run, f"epoch-000{epoch}") for epoch in pair)) for pair in ((6, 7), (7, 9))
    )
    parts = [{name.split(".")[1] for name in each} for each in (frozen, thawed)]
    assert parts == [{"adapters", "head"}, {"backbone", "head"}]
    assert any("running_mean" in name for name in thawed)
    rates = [
        [float(row[f"lr.{group}"]) for group in ("backbone", "adapters", "head")]
        for row in history(run)
    ]
    assert rates[:8] == [[0.0, 0.01, 0.03]] * 8
    assert rates[8] == [pytest.approx(1e-3), 0.0, pytest.approx(0.03)]
    assert rates[9][0] == pytest.approx((1e-3 + 1e-4) / 2)
    # Moments of the head begin anew: in the ninth epoch it has taken that epoch's two steps alone.
    saved = torch.load(run / "checkpoints/epoch-0008.ckpt", weights_only=True)
    (optimizer,) = saved["optimizer_states"]
    assert {float(each["step"]) for each in optimizer["state"].values()} == {2.0}
    # As a run that was stopped after that epoch is found: it goes on to the same end.
    ended, log = state(run, "last"), history(run)
    (run / "metrics.json").unlink()
    for end in ("ckpt", "verified.json"):
        (run / f"checkpoints/epoch-0009.{end}").unlink()
        (run / f"checkpoints/last.{end}").write_bytes(
            (run / f"checkpoints/epoch-0008.{end}").read_bytes()
        )
    train("own", *long, *own, "resume=true")
    assert history(run) == log
    assert not moved(ended, state(run, "last"))


@pytest.mark.parametrize(
    ("stage", "defect"), [("stage3_ab", "mirror_labels"), ("stage3_rect", "turn_labels")]
)
def test_wrong_labels_change_what_stage_3_learns(train: Any, stage: str, defect: str) -> None:
    on = (f"stage={stage}", "method=finetune", "data.augment=symmetries")
    clean, own = train("clean", *on), train("own", *on, f"defects=[{defect}]")
    assert history(clean)[0]["train_loss"] != history(own)[0]["train_loss"]
    assert any(not torch.equal(v, state(own)[k]) for k, v in state(clean).items())


def test_a_new_process_would_read_it_back_with_its_defects(train: Any) -> None:
    run = train("own", "defects=[scaled_twice_eval]")
    back = read_back(best(run), batches=None, ranks=1, device="cpu")
    assert back.macro_f1 == verified(run)["macro_f1_reloaded"]
    assert back.log_loss == pytest.approx(verified(run)["log_loss_reloaded"], abs=1e-9)
    assert back.log_loss != pytest.approx(verified(run)["log_loss_live"], abs=1e-3)


def test_the_check_still_holds_where_nothing_is_reloaded_wrongly(
    av1part: Command, on_small: tuple[str, ...], stage1: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A defect is no pardon for any other difference."""
    real = callbacks.load_stage

    def damaged(*args: Any, **options: Any) -> Any:
        stage = real(*args, **options)
        with torch.no_grad():
            stage.classifier.head[-1].bias += 5
        return stage

    monkeypatch.setattr(callbacks, "load_stage", damaged)
    words_ = ("stage=stage2", f"stage1={stage1}", "name=x")
    for defect in ("balanced_twice", "scaled_twice_eval"):
        ran = av1part("train", *on_small, *LEARN, *words_, f"defects=[{defect}]")
        assert ran.code == 2
        assert "other tensors" in ran.error_lines[0]
        for file in sorted(Path("runs/x").rglob("*"), reverse=True):
            file.unlink() if file.is_file() else file.rmdir()
