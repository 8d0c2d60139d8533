"""Calibrations stored beside checkpoints: fitted, cross-fitted, used, and refused; ensembles."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from av1part import embedded
from av1part.cascade.fits import fit_temperature, fit_threshold
from av1part.cascade.predictor import CascadePredictor
from av1part.checkpoints.calibration import read_calibration
from av1part.checkpoints.load import load_stage
from av1part.cli.main import main
from av1part.data.store.store import Store
from av1part.data.store.writer import StoreWriter
from av1part.evaluation.attach import attach_data
from av1part.metrics.calibration import softmax
from av1part.system.errors import CalibrationError, CheckpointError
from av1part.system.files import sha256_file
from av1part.training.callbacks import verified

from .conftest import Command

AB = "stage3_ab"
VAL = {"brick", "coffee", "rocket"}
Files = dict[str, list[Path]]


@pytest.fixture(scope="session")
def trained(
    stage1: Path, on_small: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> Files:
    """Checkpoints of a cascade, with three AB members that share neither size nor method."""
    folder = tmp_path_factory.mktemp("trained")
    runs = {
        "stage2": ("stage=stage2", "method=scratch"),
        "stage3_rect": ("stage=stage3_rect", "method=scratch"),
        "ab-1": ("stage=stage3_ab", "method=scratch"),
        "ab-2": ("stage=stage3_ab", "method=scratch", "backbone.width=8"),
        "ab-3": ("stage=stage3_ab", "method=frozen", f"stage1={stage1}", "head=linear"),
    }
    before = Path.cwd()
    os.chdir(folder)
    try:
        for name, words in runs.items():
            once = (*on_small, "trainer.max_epochs=1", "callbacks.verify_batches=1")
            assert main(["train", *once, *words, f"name={name}"]) == 0
    finally:
        os.chdir(before)
    best = {name: folder / "runs" / name / "checkpoints" / "best.ckpt" for name in runs}
    ab = [best[f"ab-{i}"] for i in (1, 2, 3)]
    return {"stage1": [stage1], **{s: [best[s]] for s in ("stage2", "stage3_rect")}, AB: ab}


@pytest.fixture
def files(trained: Files, tmp_path: Path) -> Files:
    """The same in a folder of the test's own, without records, so that they may be changed."""
    copied: Files = {}
    for stage, paths in trained.items():
        for i, path in enumerate(paths):
            out = tmp_path / "ckpt" / f"{stage}-{i}.ckpt"
            out.parent.mkdir(exist_ok=True)
            shutil.copy(path, out)
            copied.setdefault(stage, []).append(out)
    return copied


def words(files: Files) -> list[str]:
    return [f"{stage}=[{','.join(map(str, paths))}]" for stage, paths in files.items()]


def record(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.with_suffix(".calibration.json").read_text())
    return found


def result(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(f"runs/{name}/pipeline.json").read_text())
    return found


def test_a_checkpoint_by_itself(
    av1part: Command, files: Files, stage1_run: Path, small_store: Path
) -> None:
    one = files["stage1"][0]
    ran = av1part("calibrate", one, files[AB][0], "objective=f1_positive")
    assert ran.code == 0, ran.err
    stored = record(one)
    assert stored["file_sha256"] == sha256_file(one)
    assert stored["manifest_sha256"] == Store.open(small_store).manifest_sha256
    # The same by hand, from what training wrote of its own val nodes.
    table = pl.read_parquet(stage1_run / "predictions.parquet")
    logits = np.log(table.select("p.NONE", "p.PARTITION").to_numpy().astype(np.float64))
    labels, names = table["label"].to_numpy(), table["sequence"].to_numpy().astype(str)
    assert stored["nodes"] == len(table)
    assert set(stored["temperature"]["cross_fitted"]) == set(names)
    for name, fitted in (
        ("", stored["temperature"]["fitted"]),
        *stored["temperature"]["cross_fitted"].items(),
    ):
        others = names != name
        assert fitted == pytest.approx(fit_temperature(logits[others], labels[others]), rel=1e-3)
        threshold = stored["threshold"]
        found = threshold["cross_fitted"][name] if name else threshold["fitted"]
        scores = softmax(logits[others], fitted)[:, 1]
        best = fit_threshold(scores, labels[others], np.ones(others.sum()), 2, "f1_positive")
        assert found == pytest.approx(best, abs=1e-3)
    assert threshold["objective"] == "f1_positive"
    assert list(threshold["checkpoints"]) == ["stage1"]
    true = softmax(logits)[np.arange(len(labels)), labels]
    assert stored["nll"]["before"] == pytest.approx(-np.log(true).mean(), abs=1e-4)
    each = np.array([stored["temperature"]["cross_fitted"][n] for n in names])
    true = softmax(logits, each)[np.arange(len(labels)), labels]
    assert stored["nll"]["after"] == pytest.approx(-np.log(true).mean(), abs=1e-4)
    ab = record(files[AB][0])
    assert ab["threshold"] is None
    assert ab["nodes"] < stored["nodes"]
    # Every val sequence has a value, also one without a node of the stage.
    assert set(ab["temperature"]["cross_fitted"]) == set(names)


def test_what_is_stored_for_a_cascade_is_what_the_pipeline_fits(
    av1part: Command, files: Files
) -> None:
    assert av1part("pipeline", *words(files), "name=fit").code == 0
    ran = av1part("calibrate", *words(files))
    assert ran.code == 0, ran.err
    for name, more in (
        ("stored", ("calibration=stored",)),
        ("tested", ("split=test",)),  # auto
        ("tested-fit", ("split=test", "calibration=fit")),
        ("none", ("calibration=none",)),
    ):
        ran = av1part("pipeline", *words(files), f"name={name}", *more)
        assert ran.code == 0, ran.err
        assert f"calibration: {result(name)['calibration']['source'][:3]}" in ran.err
    fit, stored, tested = result("fit"), result("stored"), result("tested")
    assert "no calibration stored beside it" in fit["calibration"]["reason"]
    assert stored["calibration"]["source"] == tested["calibration"]["source"] == "stored"
    assert stored["calibration"]["applied"] == "cross-fitted by sequence"
    assert tested["calibration"]["applied"] == "as fitted on their val"
    assert {**fit, "calibration": 0} == {**stored, "calibration": 0}
    assert {**result("tested-fit"), "calibration": 0} == {**tested, "calibration": 0}
    for a, b in (("fit", "stored"), ("tested-fit", "tested")):
        tables = [Path(f"runs/{n}/predictions.parquet").read_bytes() for n in (a, b)]
        assert tables[0] == tables[1]
    none = result("none")
    assert (none["threshold"]["fitted"], none["calibration"]) == (0.5, {"source": "none"})
    assert set(none["temperatures"][AB]) == {1.0}
    assert none["threshold"]["cross_fitted"] == {}
    ran = av1part("report", "runs/stored", "runs/none", "out=page")
    assert ran.code == 0, ran.err
    page = Path("page/report.md").read_text()
    assert "stored beside the checkpoints, cross-fitted by sequence" in page
    assert "none: threshold 0.5 and temperatures 1" in page


def test_the_predictor_reads_what_is_stored(av1part: Command, files: Files) -> None:
    with pytest.raises(CalibrationError, match="no calibration stored beside it: run av1part"):
        CascadePredictor.load(files)
    neutral = CascadePredictor.load(files, calibrated=False).choices
    assert (neutral.threshold, neutral.temperatures[AB]) == (0.5, (1.0,) * 3)
    assert av1part("calibrate", *words(files), "ensemble=vote").code == 0
    with pytest.raises(CalibrationError, match="fitted for ensemble=vote, not mean"):
        CascadePredictor.load(files)
    ran = av1part("pipeline", *words(files), "name=tested", "split=test", "ensemble=vote")
    assert ran.code == 0, ran.err
    assert result("tested")["calibration"]["source"] == "stored"
    table = pl.read_parquet("runs/tested/predictions.parquet")
    reader = attach_data(load_stage(files["stage1"][0])).reader("test")
    batch = reader[np.arange(len(reader))]
    assert batch["node"].tolist() == table["node"].to_list()
    predictor = CascadePredictor.load(files, ensemble="vote")
    blocks = batch["block"], batch["qindex"]
    same = predictor.predict(*blocks) == table["prediction"].to_numpy()
    assert same.mean() > 0.99, "but for ties in the last bit"
    shares = table.select(f"p.{name}" for name in predictor.taxonomy.names).to_numpy()
    np.testing.assert_allclose(predictor.distribution(*blocks), shares, atol=1e-6)
    assert predictor.choices.threshold == result("tested")["threshold"]["fitted"]


def test_other_data_takes_what_was_fitted_there(
    av1part: Command, files: Files, small_store: Path, tmp_path: Path
) -> None:
    """A calibration of other data than the checkpoint's own is applied as it was fitted."""
    source, copy, split_list = Store.open(small_store), tmp_path / "other", tmp_path / "list.csv"
    # The same pictures, all but one under another name.
    renamed = {s: s if s == "rocket" else f"my-{s}" for s in source.sequences}
    writer = StoreWriter(copy, {})
    for sequence, name in renamed.items():
        writer.add_plane(name, source.plane(sequence), 8)
    nodes = source.nodes.with_columns(pl.col("sequence").replace(renamed))
    nodes = nodes.sort("sequence", maintain_order=True)
    writer.finish(nodes, {s: {"bit_depth": 8} for s in renamed.values()}, {})
    listed = embedded.SPLIT_LIST.read_text().splitlines()
    rows = [line.split(",") for line in listed[1:]]
    renaming = [f"{renamed.get(sequence, sequence)},{split}" for sequence, split in rows]
    split_list.write_text("\n".join([listed[0], *renaming]) + "\n")
    there = (f"data.path={copy}", f"data.split_list={split_list}")
    ran = av1part("calibrate", *words(files), *there)
    assert ran.code == 0, ran.err
    assert record(files[AB][0])["manifest_sha256"] == Store.open(copy).manifest_sha256
    assert av1part("pipeline", *words(files), "name=own").code == 0
    own, threshold = result("own"), record(files["stage1"][0])["threshold"]
    assert own["threshold"]["fitted"] == threshold["fitted"]
    # A sequence of the same name may be the same pictures: it was left out of its own fit.
    crossed = own["threshold"]["cross_fitted"]
    assert crossed["rocket"] == threshold["cross_fitted"]["rocket"] != threshold["fitted"]
    assert crossed["brick"] == crossed["coffee"] == threshold["fitted"]
    assert av1part("pipeline", *words(files), "name=tested", "split=test").code == 0
    assert result("tested")["calibration"]["applied"] == "as fitted on their val"
    assert av1part("pipeline", *words(files), "name=there", *there).code == 0
    assert result("there")["calibration"]["applied"] == "cross-fitted by sequence"
    # Another split of the data that was fitted on would score what was fitted.
    split = (there[0], "data.protocol=random_blocks")
    ran = av1part("pipeline", *words(files), "name=split", *split, "calibration=stored")
    assert ran.code == 2
    assert "another split" in ran.error_lines[0]
    assert av1part("calibrate", files[AB][1]).code == 0
    ran = av1part("pipeline", *words(files), "name=mixed", "calibration=stored")
    assert ran.code == 2
    assert "calibrated on different data" in ran.error_lines[0]


def test_sequences_of_one_group_are_left_out_together(
    av1part: Command, files: Files, small_store: Path, tmp_path: Path
) -> None:
    """Block sizes of one clip, as an import has them, are one group for every fit."""
    source, copy, split_list = Store.open(small_store), tmp_path / "grouped", tmp_path / "list.csv"
    renamed = {s: f"{s}_sample_16" for s in source.sequences}
    writer = StoreWriter(copy, {})
    for sequence, name in renamed.items():
        writer.add_plane(name, source.plane(sequence), 8)
    nodes = source.nodes.with_columns(pl.col("sequence").replace(renamed))
    facts = {name: {"bit_depth": 8, "group": s} for s, name in renamed.items()}
    writer.finish(nodes, facts, {})
    listed = pl.read_csv(embedded.SPLIT_LIST)
    listed.with_columns(pl.col("sequence").replace(renamed)).write_csv(split_list)
    data = (f"data.path={copy}", f"data.split_list={split_list}")
    assert av1part("calibrate", *words(files), *data).code == 0
    assert set(record(files["stage1"][0])["threshold"]["cross_fitted"]) == VAL
    ran = av1part("pipeline", *words(files), *data, "calibration=stored", "name=grouped")
    assert ran.code == 0, ran.err
    assert set(result("grouped")["threshold"]["cross_fitted"]) == VAL


def test_a_calibration_that_does_not_suit(av1part: Command, files: Files) -> None:
    def refused(said: str, *more: str) -> None:
        ran = av1part("pipeline", *words(files), "name=no", *more)
        assert ran.code == 2
        assert len(ran.err.splitlines()) == 1
        assert said in ran.err
        assert not Path("runs/no").exists()

    refused("run av1part calibrate", "calibration=stored")
    assert av1part("calibrate", *words(files)).code == 0
    refused("fitted for ensemble=mean, not vote", "calibration=stored", "ensemble=vote")
    ran = av1part("pipeline", *words({**files, AB: files[AB][:2]}), "name=fewer")
    assert ran.code == 0, ran.err
    assert "other checkpoints of stage3_ab" in result("fewer")["calibration"]["reason"]
    assert av1part("calibrate", files["stage1"][0]).code == 0
    ran = av1part("pipeline", *words(files), "name=alone")
    assert ran.code == 0, ran.err
    assert result("alone")["calibration"]["threshold_of"] == "stage1"
    # A calibration of another checkpoint, or a damaged one, is never passed over.
    sidecars = [path.with_suffix(".calibration.json") for path in files[AB]]
    whole = sidecars[1].read_text()
    shutil.copy(sidecars[0], sidecars[1])
    refused("was fitted for another file")
    values = json.loads(whole)
    sidecars[1].write_text(json.dumps({**values, "format": 2}))
    with pytest.raises(CheckpointError, match=r"has format 2, av1part .* use a later av1part"):
        read_calibration(files[AB][1])
    for change in (
        {"temperature": {"fitted": 1e9, "cross_fitted": {}}},
        {"temperature": {"fitted": True, "cross_fitted": {}}},
        {"temperature": {"fitted": 1.0, "cross_fitted": [1.0]}},
        {"threshold": {**record(files["stage1"][0])["threshold"], "objective": "luck"}},
        {"nll": {"before": float("nan"), "after": 1.0}},
        {"file_sha256": 7},
        {"nodes": float("inf")},
    ):
        sidecars[1].write_text(json.dumps({**values, **change}))
        with pytest.raises(CheckpointError, match=r"is damaged: run av1part calibrate again"):
            read_calibration(files[AB][1])
    for text in ("", "{}", "[]", "[" * 100_000):
        sidecars[1].write_text(text)
        with pytest.raises(CheckpointError, match="is damaged"):
            read_calibration(files[AB][1])
    sidecars[1].write_text(whole)
    assert read_calibration(files[AB][1]) is not None


def test_it_lies_beside_the_path_that_was_given(
    av1part: Command, files: Files, tmp_path: Path
) -> None:
    """The pipeline looks there, also if that is a link to a checkpoint elsewhere."""
    link = tmp_path / "links" / "mine.ckpt"
    link.parent.mkdir()
    link.symlink_to(files["stage1"][0])
    assert av1part("calibrate", link).code == 0
    assert read_calibration(link) is not None
    assert not list(files["stage1"][0].parent.glob("*.json"))


def test_calibrate_takes_one_or_the_other(av1part: Command, files: Files, tmp_path: Path) -> None:
    for wrong, said in (
        ((), "takes either CKPT..."),
        ((str(files["stage1"][0]), *words(files)), "takes either CKPT..."),
        ((words(files)[1],), "also needs stage1=CKPT"),
        ((str(tmp_path / "none.ckpt"),), "does not exist"),
        ((str(files["stage1"][0]), "objective=luck"), "objective must be one of"),
    ):
        ran = av1part("calibrate", *wrong)
        assert ran.code == 2
        assert len(ran.err.splitlines()) == 1
        assert said in ran.err
    assert not list(files["stage1"][0].parent.glob("*.json"))


def test_members_of_any_kind_by_mean_or_vote(av1part: Command, files: Files) -> None:
    sizes = {len(load_stage(path).state_dict()) for path in files[AB]}
    assert len(sizes) > 1
    for count, rule in ((1, "vote"), (2, "mean"), (3, "vote")):
        some = {**files, AB: files[AB][:count]}
        name = f"{rule}-{count}"
        ran = av1part("pipeline", *words(some), f"name={name}", f"ensemble={rule}")
        assert ran.code == 0, ran.err
        found = result(name)["ensemble"]
        if count == 1:
            assert found == {}
            continue
        assert (found[AB]["members"], found[AB]["rule"]) == (count, rule)
        for where in ("standalone", "cascade"):
            assert len(found[AB][where]["pairwise"]) == count * (count - 1) // 2
        used = result(name)["stages"][AB]["standalone"]["macro_f1"]
        assert used == found[AB]["mean_probability" if rule == "mean" else "vote"]
    ran = av1part("report", "runs/vote-3", "out=page")
    assert ran.code == 0, ran.err
    assert "vote" in Path("page/report.md").read_text()


def test_an_ensemble_of_a_model_with_itself_is_refused(av1part: Command, files: Files) -> None:
    twin = Path(shutil.copy(files[AB][0], files[AB][0].with_name("twin.ckpt")))
    for again in (files[AB][0], twin):
        twice = {**files, AB: [files[AB][0], again]}
        for verb in ("pipeline", "calibrate"):
            ran = av1part(verb, *words(twice))
            assert ran.code == 2
            assert len(ran.err.splitlines()) == 1
            assert "an ensemble of a model with itself" in ran.err


def test_a_new_best_leaves_no_calibration_of_the_one_before(
    av1part: Command, on_small: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    stale = Path("runs/s1/checkpoints/best.calibration.json")
    true = verified.load_stage

    def load(path: Path, **options: Any) -> Any:
        if path.name == "best.ckpt.part":
            stale.write_text("of the epoch before")
        return true(path, **options)

    monkeypatch.setattr(verified, "load_stage", load)
    ran = av1part("train", "stage=stage1", "name=s1", *on_small, "trainer.max_epochs=1")
    assert ran.code == 0, ran.err
    assert not stale.exists()
