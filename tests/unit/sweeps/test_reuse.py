"""Copying finished runs from other sweeps, and those put aside."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from av1part.sweeps.reuse import FinishedRuns
from av1part.system.files import atomic_path

WANTED: dict[str, Any] = {"settings": {"seed": 1}, "inputs": {"data": "ab"}, "code": "cd"}


def run(folder: Path, record: dict[str, Any], *, done: bool = True) -> Path:
    folder.mkdir(parents=True)
    (folder / "job.json").write_text(json.dumps({**record, "error": None}))
    if done:
        (folder / "metrics.json").write_text("{}")
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "best.ckpt").write_text("weights")
    return folder


def test_a_finished_run_of_the_same_making_is_copied(tmp_path: Path) -> None:
    other = run(tmp_path / "a" / "frozen" / "seed-1", WANTED)
    to = tmp_path / "b" / "base" / "seed-1"
    to.parent.mkdir(parents=True)
    assert FinishedRuns(tmp_path / "b").copy(WANTED, to) == other
    assert (to / "checkpoints" / "best.ckpt").read_text() == "weights"
    assert (other / "metrics.json").is_file()
    assert [path.name for path in to.parent.iterdir()] == ["seed-1"]


def test_a_result_put_aside_is_copied(tmp_path: Path) -> None:
    aside = run(tmp_path / "b" / ".outdated" / "frozen" / "seed-1" / "2", WANTED)
    to = tmp_path / "b" / "frozen" / "seed-1"
    to.parent.mkdir(parents=True)
    assert FinishedRuns(tmp_path / "b").copy(WANTED, to) == aside
    assert (to / "metrics.json").is_file()
    assert (aside / "metrics.json").is_file()


def test_checkpoints_take_no_more_room_and_stay_apart(tmp_path: Path) -> None:
    other = run(tmp_path / "a" / "frozen" / "seed-1", WANTED) / "checkpoints" / "best.ckpt"
    to = tmp_path / "b" / "base" / "seed-1"
    to.parent.mkdir(parents=True)
    FinishedRuns(tmp_path / "b").copy(WANTED, to)
    copied = to / "checkpoints" / "best.ckpt"
    assert copied.samefile(other)
    with atomic_path(copied) as part:  # as every checkpoint is written
        part.write_text("other weights")
    assert other.read_text() == "weights"
    assert not (to / "metrics.json").samefile(other.parents[1] / "metrics.json")


def test_without_links_checkpoints_are_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    run(tmp_path / "a" / "frozen" / "seed-1", WANTED)
    to = tmp_path / "b" / "base" / "seed-1"
    to.parent.mkdir(parents=True)
    monkeypatch.setattr("av1part.sweeps.reuse.os.link", refused)
    FinishedRuns(tmp_path / "b").copy(WANTED, to)
    assert (to / "checkpoints" / "best.ckpt").read_text() == "weights"


def test_a_full_disk_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: str, to: str) -> None:
        raise OSError(28, "No space left on device", file, None, to)

    run(tmp_path / "a" / "frozen" / "seed-1", WANTED)
    to = tmp_path / "b" / "base" / "seed-1"
    to.parent.mkdir(parents=True)
    monkeypatch.setattr("av1part.sweeps.reuse.shutil.copy2", full)
    with pytest.raises(OSError, match="No space left") as raised:
        FinishedRuns(tmp_path / "b").copy(WANTED, to)
    assert str(raised.value).count("No space left") == 1
    assert not any(to.parent.iterdir())


@pytest.mark.parametrize(
    ("place", "change", "done"),
    [
        ("a/frozen/seed-1", {"settings": {"seed": 2}}, True),
        ("a/frozen/seed-1", {"inputs": {"data": "ab", "stage1": "ef"}}, True),
        ("a/frozen/seed-1", {"code": "other"}, True),
        ("a/frozen/seed-1", {}, False),
        ("a/.outdated/frozen", {}, True),  # another sweep's
        ("b/frozen/seed-1", {}, True),  # its own
    ],
)
def test_no_other_run_is_copied(
    tmp_path: Path, place: str, change: dict[str, Any], done: bool
) -> None:
    run(tmp_path / place, {**WANTED, **change}, done=done)
    to = tmp_path / "b" / "base" / "seed-1"
    to.parent.mkdir(parents=True)
    assert FinishedRuns(tmp_path / "b").copy(WANTED, to) is None
    assert not to.exists()


def test_what_cannot_be_copied_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Path, to: Path, **_options: object) -> None:
        to.mkdir()  # as far as it came
        raise OSError(28, "No space left on device", "best.ckpt")

    run(tmp_path / "a" / "frozen" / "seed-1", WANTED)
    to = tmp_path / "b" / "base" / "seed-1"
    to.parent.mkdir(parents=True)
    monkeypatch.setattr("av1part.sweeps.reuse.shutil.copytree", full)
    with pytest.raises(OSError, match="No space"):
        FinishedRuns(tmp_path / "b").copy(WANTED, to)
    assert not any(to.parent.iterdir())


def test_a_run_that_goes_while_it_is_copied_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def moved_away(source: Path, to: Path, **_: object) -> None:
        to.mkdir()
        (source / "metrics.json").unlink()
        raise shutil.Error([("a", "b", "gone")])

    run(tmp_path / "a" / "frozen" / "seed-1", WANTED)
    to = tmp_path / "b" / "base" / "seed-1"
    to.parent.mkdir(parents=True)
    monkeypatch.setattr("av1part.sweeps.reuse.shutil.copytree", moved_away)
    assert FinishedRuns(tmp_path / "b").copy(WANTED, to) is None
    assert not any(to.parent.iterdir())
