"""`av1part validate --show`: everything a checkpoint says of itself, and nothing run from it."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from av1part.models.freeze import state_sha256
from av1part.stages.base import StageModule
from av1part.system.files import sha256_file

from .conftest import Command

Checkpoint = dict[str, Any]


def rewritten(path: Path, out: Path, change: Callable[[Checkpoint], Any]) -> Path:
    """A copy whose content was changed, its own hash made to fit again."""
    checkpoint = torch.load(path, weights_only=True)
    change(checkpoint)
    if isinstance(checkpoint.get("av1part"), dict):
        checkpoint["av1part"]["state_sha256"] = state_sha256(checkpoint["state_dict"])
    torch.save(checkpoint, out)
    return out


def test_it_shows_what_the_run_recorded(
    av1part: Command, stage1: Path, stage1_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(self: Any, **options: Any) -> None:
        raise AssertionError("a module is built")

    monkeypatch.setattr(StageModule, "__init__", build)
    ran = av1part("validate", "--show", stage1, "out=shown")
    assert ran.code == 0, ran.err
    assert av1part("validate", stage1, "show=true").out == ran.out
    assert av1part("validate", stage1, "--show").out == ran.out
    shown = json.loads(Path("shown/checkpoint.json").read_text())
    metrics = json.loads((stage1_run / "metrics.json").read_text())
    facts = json.loads((stage1_run / "environment.json").read_text())["dataset"]
    model = shown["model"]
    for key in ("total_parameters", "trainable_parameters", "stage", "taxonomy", "method"):
        assert model[key] == metrics[key], key
    assert list(model["classes"]) == metrics["class_names"]
    assert model["frozen"] == []
    assert shown["checkpoint"]["epoch"] == metrics["epoch"]
    assert shown["checkpoint"]["file_sha256"] == sha256_file(stage1)
    for section, keys in (
        ("input", ("size", "context", "bit_depth", "input_statistics", "qindex")),
        ("data", ("manifest_sha256", "split", "split_seed", "split_sha256", "class_counts")),
    ):
        assert {k: shown[section][k] for k in keys} == {k: facts[k] for k in keys}
    record = json.loads(stage1.with_name("best.verified.json").read_text())
    assert shown["verification"] == record
    for value in (facts["manifest_sha256"], record["sha256"], str(metrics["total_parameters"])):
        assert value in ran.out
    assert "none stored" in shown["calibration"]["record"]


def test_it_names_what_is_frozen_and_where_the_backbone_is_from(
    av1part: Command, stage1: Path, on_small: tuple[str, ...]
) -> None:
    words = ("stage=stage2", f"stage1={stage1}", "name=s2", *on_small, "trainer.max_epochs=1")
    assert av1part("train", "method=adapter", *words).code == 0
    best = Path("runs/s2/checkpoints/best.ckpt")
    assert av1part("validate", best, "--show", "out=.").code == 0
    shown = json.loads(Path("checkpoint.json").read_text())
    metrics = json.loads(Path("runs/s2/metrics.json").read_text())
    assert shown["model"]["frozen"] == ["classifier.backbone"]
    for key in ("total_parameters", "trainable_parameters"):
        assert shown["model"][key] == metrics[key]
    assert shown["start"]["stage1"] == str(stage1)
    assert shown["start"]["sha256"] == shown["model"]["backbone_sha256"]
    assert shown["configuration"]["adapter"]["bottleneck"] == 64


def unknown_architecture(checkpoint: Checkpoint) -> None:
    checkpoint["hyper_parameters"] |= {"backbone": {"kind": "vit"}, "method": "prompt"}
    checkpoint["state_dict"] = {"classifier.tokens": torch.zeros(3, 4)}
    checkpoint["av1part"] |= {
        "stage": "stage9",
        "parameters": {"trainable": ["classifier.tokens"], "frozen": []},
    }


def of_an_older_release(checkpoint: Checkpoint) -> None:
    del checkpoint["av1part"]["parameters"], checkpoint["pytorch-lightning_version"]
    for key in ("method", "start", "backbone"):
        del checkpoint["hyper_parameters"][key]


def test_what_this_release_cannot_build_is_shown_all_the_same(
    av1part: Command, stage1: Path, tmp_path: Path
) -> None:
    foreign = rewritten(stage1, tmp_path / "vit.ckpt", unknown_architecture)
    ran = av1part("validate", foreign, "--show")
    assert ran.code == 0, ran.err
    assert "stage9" in ran.out
    assert "total_parameters       12\n" in ran.out
    refused = av1part("validate", foreign)
    assert refused.code == 2
    assert len(refused.error_lines) == 1
    ran = av1part(
        "validate", rewritten(stage1, tmp_path / "old.ckpt", of_an_older_release), "--show"
    )
    assert ran.code == 0, ran.err
    assert "method                 not said" in ran.out
    assert "trainable_parameters   not said" in ran.out


class Code:
    """Runs when unpickled."""

    def __init__(self, what: Any, *words: Any) -> None:
        self.what, self.words = what, words

    def __reduce__(self) -> tuple[Any, ...]:
        return (self.what, self.words)


def containing(value: Any) -> Callable[[Checkpoint], None]:
    return lambda checkpoint: checkpoint["hyper_parameters"].update(extra=value)


def lacking(*keys: str) -> Callable[[Checkpoint], None]:
    def drop(checkpoint: Checkpoint) -> None:
        inner = checkpoint
        for key in keys[:-1]:
            inner = inner[key]
        del inner[keys[-1]]

    return drop


def with_state(name: Any, value: Any) -> Callable[[Checkpoint], None]:
    return lambda checkpoint: checkpoint["state_dict"].update({name: value})


def named_in_parts(checkpoint: Checkpoint) -> None:
    name = "a" + ".b" * 3000
    checkpoint["state_dict"][name] = torch.zeros(1)
    checkpoint["av1part"]["parameters"]["trainable"].append(name)
    checkpoint["av1part"]["state_sha256"] = state_sha256(checkpoint["state_dict"])


def with_fact(key: str, value: Any) -> Callable[[Checkpoint], None]:
    return lambda checkpoint: checkpoint["hyper_parameters"]["data"].update({key: value})


HOSTILE = {
    "os.system": containing(Code(os.system, "touch was-here")),
    "eval": containing(Code(eval, "open('was-here', 'w')")),
    "touch": containing(Code(Path("was-here").touch)),
    "no data": lacking("hyper_parameters", "data"),
    "no split hash": lacking("hyper_parameters", "data", "split_sha256"),
    "no stage": lacking("av1part", "stage"),
    "no classes": lacking("av1part", "classes"),
    "no entry": lacking("av1part"),
    "data is a list": lambda c: c["hyper_parameters"].update(data=[1, 2]),
    "names what is not there": lambda c: c["av1part"].update(
        parameters={"trainable": ["nothing"], "frozen": []}
    ),
    "parameters are numbers": lambda c: c["av1part"].update(
        parameters={"trainable": 3, "frozen": [4]}
    ),
    "a tensor larger than its storage": with_state("big", torch.zeros(1).expand(10**12)),
    "a sparse tensor": with_state("sparse", torch.zeros(3).to_sparse()),
    "a number for a tensor": with_state("number", 3),
    "a number for a name": lambda c: c["state_dict"].update({7: torch.zeros(1)}),
    "half a character for a name": with_state("\ud800", torch.zeros(1)),
    "a name of very many parts": named_in_parts,
    "a tensor that is conjugated when read": with_state(
        "lazy", torch.zeros(2, dtype=torch.cfloat).conj()
    ),
    "a parameter named twice": lambda c: c["av1part"]["parameters"]["trainable"].append(
        c["av1part"]["parameters"]["trainable"][0]
    ),
    "a parameter both trained and frozen": lambda c: c["av1part"]["parameters"]["frozen"].append(
        c["av1part"]["parameters"]["trainable"][0]
    ),
    **{
        f"{key} is {value!r}": with_fact(key, value)
        for key, value in (
            ("path", 5),
            ("split_list", [1]),
            ("eval_batch_size", None),
            ("context", 1e300),
            ("context", 10**9),
            ("eval_batch_size", -1),
            ("eval_batch_size", 10**9),
            ("split_seed", True),
            ("input_statistics", None),
            ("input_statistics", {"mean": 1.0}),
            ("input_statistics", {"mean": "1", "std": 1.0}),
            ("class_counts", {"NONE": 3}),
            ("type_counts", ["many"]),
        )
    },
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_hostile_and_foreign_files_are_one_line(
    change: Callable[[Checkpoint], None], av1part: Command, stage1: Path, tmp_path: Path
) -> None:
    path = tmp_path / "mine.ckpt"
    checkpoint = torch.load(stage1, weights_only=True)
    change(checkpoint)
    torch.save(checkpoint, path)
    ran = av1part("validate", path, "--show")
    assert ran.code == 2, ran.out
    assert len(ran.err.splitlines()) == 1
    assert ran.out == ""
    assert "mine.ckpt" in ran.err
    assert not Path("was-here").exists()


@pytest.mark.parametrize("start", ["hello", [1], 5, {}])
def test_a_start_that_is_no_record_is_shown_as_it_is(
    start: Any, av1part: Command, stage1: Path, tmp_path: Path
) -> None:
    path = rewritten(
        stage1, tmp_path / "mine.ckpt", lambda c: c["hyper_parameters"].update(start=start)
    )
    ran = av1part("validate", path, "--show", "out=.")
    assert ran.code == 0, ran.err
    assert json.loads(Path("checkpoint.json").read_text())["start"] == {
        "backbone": start or "not said"
    }


def test_half_a_character_is_written_out(av1part: Command, stage1: Path, tmp_path: Path) -> None:
    """A lone surrogate, which a pickle can hold and UTF-8 cannot."""
    path = rewritten(
        stage1,
        tmp_path / "mine.ckpt",
        lambda c: c["hyper_parameters"].update({"a\ud800": "b\udc80"}),
    )
    ran = av1part("validate", path, "--show", "out=.")
    assert ran.code == 0, ran.err
    shown = json.loads(Path("checkpoint.json").read_text(encoding="utf-8"))
    assert shown["configuration"]["a\\ud800"] == "b\\udc80"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("class_counts", [1]),
        ("class_counts", [0, 0]),
        ("type_counts", [1]),
        ("type_counts", [-1] * 10),
    ],
)
def test_counts_that_are_not_of_its_classes(
    key: str, value: Any, av1part: Command, stage1: Path, tmp_path: Path
) -> None:
    """Guessers are drawn from them, so they must not be told by a traceback."""
    path = rewritten(stage1, tmp_path / "mine.ckpt", with_fact(key, value))
    ran = av1part("validate", path)
    assert ran.code == 2, ran.out
    assert len(ran.err.splitlines()) == 1
    assert key in ran.err


def test_files_that_are_no_checkpoint(av1part: Command, stage1: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.ckpt"

    def refused(said: str) -> None:
        ran = av1part("validate", "--show", path)
        assert ran.code == 2
        assert len(ran.err.splitlines()) == 1
        assert said in ran.err

    refused("does not exist")
    path.write_bytes(stage1.read_bytes()[:10_000])
    refused("truncated")
    path.write_bytes(pickle.dumps(Code(os.system, "touch was-here")))
    refused("mine.ckpt")
    torch.save({"state_dict": {}, "hyper_parameters": {}, "epoch": 3}, path)
    refused("not a checkpoint of av1part")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("archive/data.pkl", bytes(50_000_000))
    refused("would unpack to 50000000 bytes")
    shutil.copy(stage1, path)
    path.with_name("mine.verified.json").write_text("[" * 100_000)
    refused("is damaged")
    path.with_name("mine.verified.json").write_text('{"file_sha256": "0"}')
    refused("its bytes have changed since")
    assert not Path("was-here").exists()


def test_nothing_from_the_file_acts_on_the_terminal(
    av1part: Command, stage1: Path, tmp_path: Path
) -> None:
    evil = "\x1b[2J\x1b]0;title\x07[bold red]x[/]\nav1part: forged\r\u202egnp.\x9b1m:smile:"

    def change(checkpoint: Checkpoint) -> None:
        endless: list[Any] = []
        endless += [endless] * 150
        checkpoint["hyper_parameters"] |= {evil: evil, "endless": endless, "huge": 1 << 500}
        checkpoint["hyper_parameters"] |= {"method": evil, "inf": float("inf"), "t": torch.ones(2)}
        checkpoint["hyper_parameters"]["data"]["path"] = evil
        checkpoint["av1part"] |= {"stage": evil, "classes": {evil: [evil]}}

    path = rewritten(stage1, tmp_path / "mine.ckpt", change)
    shown = av1part("validate", path, "--show", "out=.")
    assert shown.code == 0, shown.err
    refused = av1part("validate", path)
    assert refused.code == 2
    assert len(refused.err.splitlines()) == 1
    for text in (shown.out, refused.err):
        assert not set(text) & set("\x1b\x07\r\u202e\x9b")
        assert not any(line.startswith("av1part: forged") for line in text.splitlines())
        assert "[bold red]x[/]\\nav1part: forged" in text
    assert ":smile:" in shown.out
    assert len(shown.out) < 300_000
    assert json.loads(Path("checkpoint.json").read_text())["model"]["stage"] == evil


def test_a_stored_calibration_is_shown(av1part: Command, stage1: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(stage1, tmp_path / "mine.ckpt"))
    assert av1part("calibrate", path).code == 0
    stored = json.loads(path.with_name("mine.calibration.json").read_text())
    ran = av1part("validate", path, "--show", "out=.")
    assert ran.code == 0
    assert json.loads(Path("checkpoint.json").read_text())["calibration"] == stored
    torch.save({**torch.load(path, weights_only=True), "more": 1}, path)
    ran = av1part("validate", path, "--show")
    assert ran.code == 0
    assert "was fitted for another file" in ran.out
