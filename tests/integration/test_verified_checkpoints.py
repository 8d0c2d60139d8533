"""Every way a saved checkpoint can differ from the model that was saved, and what then happens."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from av1part.checkpoints.load import load_stage, read_checkpoint
from av1part.data.serve.datamodule import BlockDataModule
from av1part.runs.schema import sidecar_path
from av1part.stages.blocks import Stage1
from av1part.system.errors import CheckpointError
from av1part.system.files import sha256_file
from av1part.training.callbacks import verified
from av1part.training.callbacks.live import LivePredictions

from .conftest import Command

Damage = Callable[[Path], None]


def flip_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def change_tensor(path: Path) -> None:
    """A whole, well-formed checkpoint, of another model: its own hash fits."""
    from av1part.models.freeze import state_sha256

    checkpoint = torch.load(path, weights_only=True)
    checkpoint["state_dict"]["classifier.head.0.bias"] += 1e-6
    checkpoint["av1part"]["state_sha256"] = state_sha256(checkpoint["state_dict"])
    torch.save(checkpoint, path)


class Code:
    """Runs when unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path("/tmp/av1part-was-here").touch, ())


def put_code(path: Path) -> None:
    checkpoint = torch.load(path, weights_only=True)
    torch.save({**checkpoint, "extra": Code()}, path)


def on_second_write(damage: Damage) -> Callable[..., Any]:
    """A `load_stage` before which the file is damaged, from the second epoch's best on."""
    count = 0

    def load(path: Path, **options: Any) -> Any:
        nonlocal count
        count += 1
        if count > 2:  # best and last of the first epoch pass
            damage(path)
        return load_stage(path, **options)

    return load


@pytest.mark.parametrize("damage", [flip_byte, truncate, change_tensor, put_code])
def test_a_file_changed_between_write_and_read(
    damage: Damage,
    av1part: Command,
    on_small: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(verified, "load_stage", on_second_write(damage))
    ran = av1part("train", "stage=stage1", "name=s1", *on_small, "callbacks.patience=null")
    assert ran.code == 2
    assert len(ran.error_lines) == 1
    folder = Path("runs/s1/checkpoints")
    assert len(list(folder.glob("*.corrupt"))) == 1
    assert not list(folder.glob("*.part"))
    # The first epoch's files are untouched and still good.
    for kind in ("best", "last"):
        record = json.loads((folder / f"{kind}.verified.json").read_text())
        assert record["epoch"] == 0
        assert read_checkpoint(folder / f"{kind}.ckpt")["epoch"] == 0
    assert not Path("runs/s1/metrics.json").exists()
    assert not Path("/tmp/av1part-was-here").exists()


def test_another_architecture_in_the_file(
    av1part: Command,
    on_small: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    stage1: Path,
) -> None:
    def swap(path: Path) -> None:
        shutil.copy(stage1, path)

    monkeypatch.setattr(verified, "load_stage", on_second_write(swap))
    ran = av1part("train", "stage=stage1", "name=s1", *on_small, "backbone.se=false")
    assert ran.code == 2
    assert "other tensors" in ran.error_lines[0]


class ForgetsBuffer(Stage1):
    """Learns something that its state dict leaves out."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.register_buffer("shift", torch.zeros(2), persistent=False)

    def on_train_epoch_start(self) -> None:
        self.shift = torch.tensor([50.0, 0.0])

    def forward(self, block: Tensor, qindex: Tensor) -> Tensor:
        logits: Tensor = super().forward(block, qindex) + self.shift
        return logits


class Undecided(Stage1):
    """Gives another answer each time it is asked."""

    def forward(self, block: Tensor, qindex: Tensor) -> Tensor:
        logits = super().forward(block, qindex)
        return logits * 0 + torch.randn_like(logits) * (self.current_epoch + 1)


@pytest.mark.parametrize("broken", [ForgetsBuffer, Undecided])
def test_modules_that_do_not_come_back_as_they_were(
    broken: type[Stage1],
    av1part: Command,
    on_small: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("av1part.training.build.CASCADE", {"stage1": broken})
    ran = av1part("train", "stage=stage1", "name=s1", *on_small, "callbacks.tolerance_pp=0.1")
    assert ran.code == 2
    assert " pp, tolerance 0.1 pp" in ran.error_lines[0]
    assert not Path("runs/s1/checkpoints/best.ckpt").exists()


def test_scaling_outside_the_module(
    av1part: Command, on_small: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The study's defect: what training fed the model is not what a reload feeds it."""

    def scaled(self: BlockDataModule, batch: Any, dataloader_idx: int) -> Any:
        return {**batch, "block": batch["block"] // 16}

    monkeypatch.setattr(BlockDataModule, "on_after_batch_transfer", scaled)
    # Steps enough for a network that tells blocks apart. What so short a training comes to differs
    # between machines, and one that always gives the same answer has the same score either way.
    words = ("train", "stage=stage1", *on_small, "data.batch_size=64", "trainer.max_epochs=6")
    for seed in range(5):
        ran = av1part(*words, f"name=s1-{seed}", f"seed={seed}")
        if ran.code:
            break
    assert ran.code == 2
    assert "when reloaded" in ran.error_lines[0]


@pytest.mark.parametrize(("shift", "code"), [(0.02, 2), (-0.02, 2), (0.005, 0), (float("nan"), 2)])
def test_the_tolerance_is_in_percentage_points(
    shift: float,
    code: int,
    av1part: Command,
    on_small: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The study compared a fraction with 1.0, which could never fire."""
    true = LivePredictions.macro_f1
    monkeypatch.setattr(LivePredictions, "macro_f1", lambda s, m: true(s, m) + shift)
    assert av1part("train", "stage=stage1", *on_small).code == code


def test_verification_leaves_the_training_trace_unchanged(
    av1part: Command, on_small: tuple[str, ...], stage1: Path
) -> None:
    words = ("train", "experiment=exp11a/v1", f"stage1={stage1}", *on_small)
    assert av1part(*words, "name=some").code == 0
    more = ("callbacks.verify_every=epoch", "callbacks.save_every=epoch")
    assert av1part(*words, "name=all", *more, "callbacks.verify_batches=null").code == 0
    assert Path("runs/some/history.csv").read_text() == Path("runs/all/history.csv").read_text()


@pytest.mark.parametrize(
    ("damage", "record"),
    # Without a record, a consistent checkpoint of another model is a checkpoint.
    [(d, r) for d in (flip_byte, truncate, put_code) for r in (True, False)]
    + [(change_tensor, True)],
)
def test_damaged_checkpoints_are_refused_by_the_command_line(
    damage: Damage, record: bool, av1part: Command, stage1: Path, tmp_path: Path
) -> None:
    """With its record any changed byte shows; without, the file's own hashes must do."""
    path = Path(shutil.copy(stage1, tmp_path / "mine.ckpt"))
    if record:
        shutil.copy(sidecar_path(stage1), sidecar_path(path))
    assert av1part("validate", path).code == 0
    damage(path)
    ran = av1part("validate", path)
    assert ran.code == 2
    assert len(ran.err.splitlines()) == 1
    assert "mine.ckpt" in ran.err
    assert not Path("/tmp/av1part-was-here").exists()


def test_every_flipped_byte_of_the_data_is_noticed(stage1: Path, tmp_path: Path) -> None:
    """Without a record: zip checksums and the hash of the tensors, over the whole file."""
    data, path = stage1.read_bytes(), tmp_path / "x.ckpt"
    noticed = 0
    places = range(500, len(data), len(data) // 60)
    for place in places:
        changed = bytearray(data)
        changed[place] ^= 0x10
        path.write_bytes(changed)
        try:
            read_checkpoint(path)
        except CheckpointError:
            noticed += 1
    # What is left are bytes of padding between the zip's members.
    assert noticed >= 0.9 * len(places)


def test_foreign_files_are_refused(av1part: Command, stage1: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.ckpt"
    torch.save({"state_dict": {}, "epoch": 3}, foreign)
    assert "not a checkpoint of av1part" in av1part("validate", foreign).err
    foreign.write_bytes(pickle.dumps({"a": 1}))
    assert av1part("validate", foreign).code == 2
    checkpoint = torch.load(stage1, weights_only=True)
    checkpoint["av1part"]["format"] = 99
    torch.save(checkpoint, foreign)
    newer = av1part("validate", foreign)
    assert newer.code == 2
    assert "has format 99, av1part" in newer.err
    assert "use a later av1part" in newer.err
    checkpoint["av1part"]["format"] = 1
    checkpoint["av1part"]["classes"] = {"PARTITION": ["HORZ"], "NONE": ["NONE"]}
    torch.save(checkpoint, foreign)
    assert "trained on classes" in av1part("validate", foreign).err
    checkpoint = torch.load(stage1, weights_only=True)
    checkpoint["hyper_parameters"]["backbone"]["width"] = 16
    torch.save(checkpoint, foreign)
    assert "another architecture" in av1part("validate", foreign).err
    assert "does not exist" in av1part("validate", tmp_path / "none.ckpt").err
    assert av1part("validate", tmp_path).code == 2


@pytest.mark.parametrize(
    ("entry", "record"), [({"av1part": "9.1"}, "{}"), ({}, '{"av1part": "9.1"}'), ({}, "{}")]
)
def test_a_newer_format_names_the_release_that_wrote_it(
    av1part: Command, stage1: Path, tmp_path: Path, entry: dict[str, str], record: str
) -> None:
    newer = tmp_path / "newer.ckpt"
    checkpoint = torch.load(stage1, weights_only=True)
    del checkpoint["av1part"]["av1part"]
    checkpoint["av1part"] |= {"format": 2, **entry}
    torch.save(checkpoint, newer)
    (tmp_path / "newer.verified.json").write_text(
        f'{{"file_sha256": "{sha256_file(newer)}", "versions": {record}}}'
    )
    ran = av1part("validate", newer)
    assert ran.code == 2
    assert len(ran.error_lines) == 1
    says = "written by av1part 9.1, use that" if entry or "9.1" in record else "use a later av1part"
    assert says in ran.error_lines[0]


def test_a_backbone_loads_strictly(
    av1part: Command, stage1: Path, on_small: tuple[str, ...], tmp_path: Path
) -> None:
    """The study's `strict=False` left a head unloaded and nobody knew."""
    words = ("train", "experiment=exp11a/v1", *on_small)
    plain = av1part(*words, f"stage1={stage1}", "backbone.se=false")
    assert plain.code == 2
    assert "extra se1.excite.weight" in plain.err
    assert "does not exist" in av1part(*words, f"stage1={tmp_path / 'no.ckpt'}").err
    assert "give stage1=CKPT" in av1part(*words).err
    assert av1part(*words, f"stage1={stage1}", "name=s2").code == 0
    wrong = av1part(*words, "stage1=runs/s2/checkpoints/best.ckpt", "name=s3")
    assert "of stage2, not of stage1" in wrong.err
    assert not Path("runs/s3").exists()
