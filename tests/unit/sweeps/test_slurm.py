"""What a sweep makes of a SLURM that does not answer; the real one is in integration/test_slurm."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from av1part.sweeps import slurm


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """A sweep that has given jobs to SLURM."""
    (tmp_path / slurm.FOLDER).mkdir()
    return tmp_path


def answers(monkeypatch: pytest.MonkeyPatch, said: Iterator[dict[str, str] | None]) -> list[float]:
    waited: list[float] = []
    monkeypatch.setattr(slurm, "queued", lambda _: next(said))
    monkeypatch.setattr(slurm.time, "sleep", waited.append)
    return waited


def test_no_answer_is_not_no_jobs(
    sweep: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/squeue")
    said: Iterator[dict[str, str] | None] = iter([None, None, {"7_0": "RUNNING"}, None, {}])
    waited = answers(monkeypatch, said)
    slurm.wait_for_earlier(sweep)
    assert next(said, "all asked") == "all asked"
    assert len(waited) == 4
    assert caplog.text.count("does not answer") == 1


def test_where_there_is_no_slurm_nothing_is_waited_for(
    sweep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert answers(monkeypatch, iter([None])) == []
    slurm.wait_for_earlier(sweep)
