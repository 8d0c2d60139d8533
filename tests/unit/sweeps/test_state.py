"""What lies in a job's folder, and what it then is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from av1part.runs.sweeps import read_record, read_sweep
from av1part.sweeps.state import State, begin, depends_on, record_failure, state_of
from av1part.system.errors import CheckpointError, ConfigError

WANTED: dict[str, Any] = {"settings": {"a": 1, "b": [1, 2]}, "inputs": {"data": "x"}, "code": "c"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "variant" / "seed-0"


def test_a_job_s_life(folder: Path) -> None:
    assert state_of(folder, WANTED) == State("missing")
    begin(folder, WANTED)
    assert state_of(folder, WANTED) == State("missing")  # it waits for its turn
    (folder / "config.yaml").touch()
    assert state_of(folder, WANTED) == State("unfinished")
    record_failure(folder, RuntimeError("the disk\nis full"))
    assert state_of(folder, WANTED) == State("failed", "the disk is full")
    assert (read_record(folder) or {})["anew"] is False
    record_failure(folder, CheckpointError("last.ckpt is damaged"))
    assert (read_record(folder) or {})["anew"] is True
    begin(folder, WANTED)
    (folder / "metrics.json").touch()
    assert state_of(folder, WANTED) == State("done")


@pytest.mark.parametrize(
    ("now", "why"),
    [
        ({"settings": {"a": 2, "b": [1, 2]}}, "other a"),
        ({"settings": {"a": 1}}, "other b"),
        ({"settings": {"a": 1, "b": [1, 2], "new": 0}}, "other new"),
        ({"inputs": {"data": "y"}}, "other data"),
        ({"inputs": {"data": "x", "stage1": "s"}}, "other stage1"),
        ({"code": "d"}, "other code"),
        ({"settings": {"a": 3, "b": [1, 2]}, "code": "d"}, "other a, code"),
    ],
)
def test_what_has_changed_is_said(folder: Path, now: dict, why: str) -> None:
    begin(folder, WANTED)
    (folder / "metrics.json").touch()
    assert state_of(folder, {**WANTED, **now}) == State("outdated", why)


def test_a_folder_of_unknown_origin_is_outdated(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "metrics.json").touch()
    assert state_of(folder, WANTED).kind == "outdated"
    (folder / "job.json").write_text("{")
    assert state_of(folder, WANTED).kind == "outdated"
    (folder / "job.json").write_text('{"settings": 3}')
    assert state_of(folder, WANTED) == State("outdated", "other settings")
    record_failure(folder / "none", ValueError("of a run that is no job"))
    assert not (folder / "none").exists()


def test_inputs_are_known_by_their_contents(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "data": {"path": None, "split_list": None},
        "stage1": None,
        "backbone": {"weights": "none"},
        "injection": {},
        "seed": 1,
    }
    plain = depends_on(settings)
    assert list(plain["inputs"]) == ["data", "backbone.weights"]
    settings["backbone"]["weights"] = "imagenet"
    assert depends_on(settings)["inputs"] != plain["inputs"]
    split = tmp_path / "split.csv"
    split.write_text("sequence,split\n")
    settings["data"]["split_list"] = str(split)
    first = depends_on(settings)
    split.write_text("sequence,split\na,val\n")
    assert depends_on(settings)["inputs"] != first["inputs"]
    costs = tmp_path / "costs.parquet"
    costs.write_bytes(b"some")
    settings["data"]["costs"] = str(costs)
    first = depends_on(settings)
    costs.write_bytes(b"others")
    assert depends_on(settings)["inputs"] != first["inputs"]
    assert depends_on(settings)["settings"] == plain["settings"]
    # A checkpoint by its tensors, as its record has them: the file has dates in it.
    checkpoint = tmp_path / "best.ckpt"
    checkpoint.write_bytes(b"one")
    (tmp_path / "best.verified.json").write_text(json.dumps({"sha256": "tensors"}))
    settings["stage1"] = str(checkpoint)
    assert depends_on(settings)["inputs"]["stage1"] == "tensors"
    # What is not there is no change that would put results aside.
    for key, value in (("stage1", str(tmp_path / "gone.ckpt")), ("data", {"path": "gone"})):
        with pytest.raises(ConfigError, match="does not exist"):
            depends_on({**settings, key: {**settings["data"], **value} if key == "data" else value})


@pytest.mark.parametrize(
    ("record", "says"),
    [
        (None, "cannot be read"),
        ([], "cannot be read"),
        ({"jobs": []}, "has format None"),
        ({"format": 2, "versions": {"av1part": "99.0"}}, "written by av1part 99.0, use that"),
        ({"format": 1}, "lacks `jobs` "),
        ({"format": 1, "jobs": None}, "lacks `jobs` "),
        ({"format": 1, "jobs": {}}, "lacks `jobs` "),
        ({"format": 1, "jobs": [3]}, "lacks `jobs.0.folder` "),
        ({"format": 1, "jobs": [{"folder": "v/s", "member": "s"}]}, "lacks `jobs.0.variant` "),
        ({"format": 1, "jobs": [{"folder": "v/s", "variant": "v"}]}, "lacks `jobs.0.member` "),
        ({"format": 1, "jobs": [{"folder": "../v", "variant": "v", "member": "s"}]}, "lies out"),
    ],
)
def test_a_sweep_json_that_is_none_is_told(tmp_path: Path, record: Any, says: str) -> None:
    (tmp_path / "sweep.json").write_text("{" if record is None else json.dumps(record))
    with pytest.raises(ConfigError) as raised:
        read_sweep(tmp_path)
    assert str(raised.value).startswith(str(tmp_path / "sweep.json"))
    assert says in str(raised.value)
    assert str(raised.value).endswith("remove it and start the sweep again")
