"""`callbacks.verify=process`: another Python process reads the file back, or the run ends."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from av1part.checkpoints.load import read_checkpoint
from av1part.system.files import sha256_file
from av1part.training.callbacks import readback, verified
from av1part.training.callbacks.readback_child import main, read_back

from .conftest import Command
from .test_verified_checkpoints import change_tensor, flip_byte, put_code, truncate

ONCE = ("train", "stage=stage1", "name=s1", "callbacks.verify=process", "trainer.max_epochs=1")


def test_a_run_is_read_back_by_other_processes(
    av1part: Command, on_small: tuple[str, ...], stage1_run: Path
) -> None:
    ran = av1part(*ONCE[:2], *on_small, *ONCE[2:], "callbacks.verify_batches=2")
    assert ran.code == 0, ran.err
    folder = Path("runs/s1")
    pids = {int(line.split()[-1]) for line in ran.err.splitlines() if "read back by" in line}
    assert len(pids) == 2
    assert os.getpid() not in pids
    for kind in ("best", "last"):
        file = folder / "checkpoints" / f"{kind}.ckpt"
        record = json.loads((folder / "checkpoints" / f"{kind}.verified.json").read_text())
        assert (record["process"], record["level"], record["batches"]) == ("new", "full", 2)
        assert record["delta_pp"] == 0
        assert record["macro_f1_reloaded"] == record["macro_f1_live"]
        assert record["file_sha256"] == sha256_file(file)
        assert record["sha256"] == read_checkpoint(file)["av1part"]["state_sha256"]
    other = json.loads((stage1_run / "checkpoints" / "best.verified.json").read_text())
    assert other["process"] == "same"


@pytest.mark.parametrize(
    "ask",
    [
        pytest.param(verified.read_back_in_new_process, id="process", marks=pytest.mark.slow),
        pytest.param(read_back, id="its code in this process"),
    ],
)
def test_a_file_changed_before_it_is_read(
    ask: Callable[..., Any],
    av1part: Command,
    on_small: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of another model, but whole: only the comparison with the live one can tell."""

    def damaged(path: Path, **options: Any) -> Any:
        change_tensor(path)
        return ask(path, **options)

    monkeypatch.setattr(verified, "read_back_in_new_process", damaged)
    ran = av1part(*ONCE[:2], *on_small, *ONCE[2:])
    assert ran.code == 2
    assert len(ran.error_lines) == 1
    assert "reads back with other tensors" in ran.error_lines[0]
    assert "classifier.head.0.bias (1 in all)" in ran.error_lines[0]
    folder = Path("runs/s1/checkpoints")
    assert [p.name for p in folder.iterdir()] == ["best.corrupt"]


def test_a_process_that_dies_ends_the_run(
    av1part: Command, on_small: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import os; os.kill(os.getpid(), 9)"
    monkeypatch.setattr(readback, "CHILD", (sys.executable, "-S", "-c", code))
    ran = av1part(*ONCE[:2], *on_small, *ONCE[2:])
    assert ran.code == 2
    assert len(ran.error_lines) == 1
    assert "best.ckpt does not read back in a new process" in ran.error_lines[0]
    assert "signal 9" in ran.error_lines[0]
    assert [p.name for p in Path("runs/s1/checkpoints").iterdir()] == ["best.corrupt"]


def test_a_file_changed_while_it_is_read(
    av1part: Command, on_small: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record must be of the bytes that were validated."""

    def in_this_process(path: Path, **options: Any) -> Any:
        back = read_back(path, **options)
        flip_byte(path)
        return back

    monkeypatch.setattr(verified, "read_back_in_new_process", in_this_process)
    ran = av1part(*ONCE[:2], *on_small, *ONCE[2:])
    assert ran.code == 2
    assert "changed while it was read back" in ran.error_lines[0]


@pytest.mark.parametrize("damage", [flip_byte, truncate, put_code, Path.unlink])
def test_what_the_new_process_does_with_a_damaged_file(
    damage: Any, stage1: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "best.ckpt.part"
    path.write_bytes(stage1.read_bytes())
    assert main([str(path), "1", "1", "cpu", "32-true"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["file_sha256"] == sha256_file(stage1)
    damage(path)
    assert main([str(path), "1", "1", "cpu", "32-true"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert "best.ckpt.part" in captured.err
    assert not Path("/tmp/av1part-was-here").exists()


def test_it_scores_the_batches_of_the_first_rank(
    stage1: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under DDP the live figures are of rank 0's share."""
    found = {}
    for words in (("all", "1"), ("1", "1"), ("all", "3")):
        assert main([str(stage1), *words, "cpu", "32-true"]) == 0
        found[words] = json.loads(capsys.readouterr().out)["macro_f1"]
    recorded = json.loads(stage1.with_name("best.verified.json").read_text())
    assert found["all", "1"] == recorded["macro_f1_full"]
    assert found["all", "3"] != found["all", "1"]


def test_a_device_that_is_not_there_is_said(
    stage1: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(stage1), "1", "1", "abacus", "32-true"]) == 2
    assert "abacus" in capsys.readouterr().err
