"""What a run folder holds when `resume=true` meets it half-done, whole, or not quite whole."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from av1part.system.files import sha256_file
from av1part.training.callbacks.verified import adopt_records

from .conftest import Command

Again = Callable[[], object]


@pytest.fixture
def run(stage1_run: Path, tmp_path: Path) -> Path:
    """A copy of a finished run."""
    return Path(shutil.copytree(stage1_run, tmp_path / "runs" / "s1"))


def test_a_finished_run_without_its_last_checkpoint_is_not_begun_again(
    av1part: Command, run: Path, on_small: tuple[str, ...]
) -> None:
    (run / "checkpoints/last.ckpt").unlink()
    best = sha256_file(run / "checkpoints/best.ckpt")
    ran = av1part("train", "stage=stage1", "name=s1", *on_small, "resume=true")
    assert ran.code == 2
    assert "finished run without its last.ckpt" in ran.error_lines[0]
    assert sha256_file(run / "checkpoints/best.ckpt") == best


def test_a_process_killed_before_it_named_the_record_has_left_it(
    av1part: Command, run: Path, on_small: tuple[str, ...]
) -> None:
    record = run / "checkpoints/last.verified.json"
    said = record.read_text()
    record.rename(record.with_name(f"{record.name}.part"))
    (run / "metrics.json").unlink()
    (run / "metrics.json.99999.part").touch()
    words = ("train", "stage=stage1", "name=s1", *on_small, "resume=true", "callbacks.plots=true")
    ran = av1part(*words)
    assert ran.code == 0, ran.err
    assert record.read_text() == said
    assert not list(run.rglob("*.part"))


def test_a_record_of_other_bytes_is_not_taken(run: Path) -> None:
    record = run / "checkpoints/last.verified.json"
    pending = record.rename(record.with_name(f"{record.name}.part"))
    (run / "checkpoints/last.ckpt").write_bytes(b"another")
    adopt_records(run / "checkpoints")
    assert not record.exists()
    assert pending.exists()
    pending.write_text("{")
    adopt_records(run / "checkpoints")
    assert not record.exists()


def test_a_resumed_run_keeps_the_log_of_its_first_part(
    av1part: Command, on_small: tuple[str, ...]
) -> None:
    words = ("train", "stage=stage1", "name=s1", *on_small, "logger=csv")
    assert av1part(*words).code == 0
    first = Path("runs/s1/logs/csv/metrics.csv")
    before = first.read_text()
    Path("runs/s1/metrics.json").unlink()
    assert av1part(*words, "resume=true").code == 0
    assert first.read_text() == before
    assert before.count("\n") > 1
