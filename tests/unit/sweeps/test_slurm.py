"""What a sweep makes of a SLURM that does not answer; the real one is in integration/test_slurm."""

from __future__ import annotations

import os
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


def test_only_those_who_submitted_are_asked_for(
    sweep: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A question for one user is answered from that user's jobs alone, a wider one from all."""
    asked = tmp_path / "asked"
    squeue = tmp_path / "bin/squeue"
    squeue.parent.mkdir()
    squeue.write_text(f'#!/bin/sh\necho "$@" >> {asked}\n')
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", str(squeue.parent), prepend=os.pathsep)
    for name in ("7_0", "7_1"):
        (sweep / slurm.FOLDER / name).mkdir()
    assert slurm.queued(sweep) == {}
    (line,) = asked.read_text().splitlines()
    assert f"--user={os.getuid()} " in line
    shutil.rmtree(sweep / slurm.FOLDER)
    assert slurm.queued(sweep) == {}
    assert asked.read_text().count("--user=") == 2
