"""What earlier releases wrote is still read, and scores what it did; see tests/data/README.md."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from av1part.checkpoints.calibration import read_calibration
from av1part.checkpoints.contents import contents
from av1part.checkpoints.load import load_backbone, load_stage, read_checkpoint
from av1part.data.store.store import Store
from av1part.evaluation.attach import DataSource, attach_data, check_pixels
from av1part.evaluation.scores import split_scores
from av1part.runs.read import read_metrics
from av1part.stages.choice import stage_class
from av1part.system.errors import CheckpointError

DATA = Path(__file__).parents[2] / "data"
RELEASES = sorted(DATA.glob("release_*"))
RUNS = [file.parent for release in RELEASES for file in sorted(release.glob("*/metrics.json"))]

releases = pytest.mark.parametrize("release", RELEASES, ids=lambda folder: folder.name)
runs = pytest.mark.parametrize("run", RUNS, ids=lambda run: f"{run.parent.name}-{run.name}")


def test_there_are_files_of_this_format() -> None:
    assert [run.relative_to(DATA).as_posix() for run in RUNS[:2]] == [
        "release_0_1/stage1",
        "release_0_1/stage2",
    ]
    files = [file for release in RELEASES for file in release.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 2 * 2**20 * len(RELEASES)


@releases
def test_the_store_opens_with_every_file_checked(release: Path) -> None:
    store = Store.open(release / "store", verify="full")
    assert store.manifest["format"] == 1
    assert store.nodes.height == sum(
        count for types in store.manifest["nodes"].values() for count in types.values()
    )


def leaves(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in record.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


@runs
def test_a_checkpoint_scores_what_training_recorded(run: Path) -> None:
    release, path = run.parent, run / "checkpoints" / "best.ckpt"
    assert read_checkpoint(path)["av1part"]["format"] == 1
    module = load_stage(path, stage=run.name)
    assert module.hparams["backbone"]["width"] == 8
    source = DataSource(path=str(release / "store"), split_list=str(release / "split.csv"))
    data = attach_data(module, source)
    check_pixels(module, data, "val")
    assert data.store.manifest_sha256 == module.hparams["data"]["manifest_sha256"]
    scores, _ = split_scores(module, data, "val")
    said = read_metrics(run / "metrics.json")  # of format 1, with dotted keys
    matrix = said["confusion_matrix"]
    assert scores["confusion_matrix"] == matrix
    assert sum(any(column) for column in zip(*matrix, strict=True)) > 1  # no constant guess
    recorded, today = dict(leaves(said)), dict(leaves(scores))
    ours = {key for key in today if not key.endswith((".level", ".clusters"))}  # new in format 2
    assert ours <= recorded.keys()
    for key in ours:
        value = today[key]
        exact = not isinstance(value, float)
        assert recorded[key] == (value if exact else pytest.approx(value, abs=1e-6)), key


@runs
def test_what_lies_beside_a_checkpoint_is_read(run: Path) -> None:
    path = run / "checkpoints" / "best.ckpt"
    calibration = read_calibration(path)
    assert calibration is not None
    assert calibration.stage == run.name
    assert (calibration.threshold is None) is (run.name != "stage1")
    assert contents(path)["verification"]["macro_f1_full"] == pytest.approx(
        json.loads((run / "metrics.json").read_text())["macro_f1"]
    )


@releases
def test_a_backbone_is_loaded_strictly(release: Path, tmp_path: Path) -> None:
    first, second = (release / name / "checkpoints" / "best.ckpt" for name in ("stage1", "stage2"))
    trained = read_checkpoint(second)
    module = stage_class("stage2")(**trained["hyper_parameters"])
    load_backbone(module, first)
    state = module.classifier.backbone.state_dict()
    frozen = {n: t for n, t in trained["state_dict"].items() if "classifier.backbone." in n}
    assert {f"classifier.backbone.{name}" for name in state} == set(frozen)
    assert all(torch.equal(frozen[f"classifier.backbone.{n}"], t) for n, t in state.items())
    # One bit of what was committed changed, and it is no longer that file.
    copy = shutil.copytree(first.parent, tmp_path / "copy") / first.name
    copy.write_bytes(first.read_bytes()[:-1] + b"\1")
    with pytest.raises(CheckpointError, match="is not the file that"):
        load_stage(copy)
