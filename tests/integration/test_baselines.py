"""`baselines=trees`: boosted trees beside a network, on the same nodes, and in its report."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from av1part import embedded
from av1part.config.schema import Trees
from av1part.data.serve.datamodule import BlockDataModule
from av1part.evaluation.trees import ask_peer, train_peer
from av1part.metrics.intervals import bootstrap_difference
from av1part.metrics.scores import from_predictions
from av1part.partition import taxonomy

from ..unit.predictors.small import save_stage, small_boosting, small_stage
from .conftest import Command

FEW = Trees(iterations=6, leaves=6, leaf_nodes=2, features=1.0, learning_rate=0.3)
WORDS = tuple(f"trees.{key}={value}" for key, value in vars(FEW).items())


def test_trees_are_scored_on_the_nodes_of_the_run(
    av1part: Command, on_small: tuple[str, ...], small_store: Path
) -> None:
    words = ("stage=stage1", "name=s1", "baselines=trees", *WORDS, *on_small)
    ran = av1part("train", *words)
    assert ran.code == 0, ran.err
    assert "trees on val: macro-F1" in ran.err
    run = Path("runs/s1")
    metrics = json.loads((run / "metrics.json").read_text())
    table = pl.read_parquet(run / "predictions.parquet")
    labels = table["label"].to_numpy()
    data = BlockDataModule(small_store, split_list=embedded.SPLIT_LIST)
    assert np.array_equal(table["node"], data.reader("val").nodes)
    peer = train_peer(data, small_boosting())
    own = ask_peer(peer, data, table["node"].to_numpy().astype(np.int64)).probabilities
    expected = from_predictions(own.argmax(1), labels, metrics["class_names"])
    trees = metrics["baselines"]["trees"]
    for key in ("accuracy", "macro_f1", "f1_positive", "per_class"):
        assert trees[key] == expected[key], key
    at, shares = (np.arange(len(own)), labels), table.select(pl.col("^p[.].*$")).to_numpy()
    assert trees["log_loss"] == pytest.approx(-np.log(own[at]).mean(), abs=1e-5)
    assert metrics["log_loss"] == pytest.approx(-np.log(shares[at]).mean(), abs=1e-4)
    margin = bootstrap_difference(
        table["prediction"].to_numpy(), own.argmax(1), labels, table["sequence"].to_numpy(), 2
    )
    assert metrics["intervals"]["macro_f1"]["margin_trees"] == margin["macro_f1"].to_json()
    report = av1part("report", "runs/s1", "out=page")
    assert report.code == 0, report.err
    page = next(Path("page").glob("*.html")).read_text()
    assert "macro-F1 over the boosted trees" in page
    assert ">Trees</th>" in page
    assert "trained on the same nodes" in page


def test_trees_stand_beside_a_cascade(av1part: Command, small_store: Path) -> None:
    words = []
    for stage in taxonomy("v6").at(16).stages:
        path = save_stage(small_stage(stage.name, small_store, 16, 0), Path(f"{stage.name}.ckpt"))
        words.append(f"{stage.name}={path}")
    ran = av1part("pipeline", *words, "name=with", "baselines=trees", *WORDS)
    assert ran.code == 0, ran.err
    assert "Trees" in ran.out
    report = json.loads(Path("runs/with/pipeline.json").read_text())
    table = pl.read_parquet("runs/with/predictions.parquet")
    truth, data = table["partition"].to_numpy(), BlockDataModule(small_store)
    assert np.array_equal(table["node"], data.reader("val").nodes)
    # v6's types at 16x16 are numbered as AV1's.
    peer = train_peer(data, small_boosting(), np.arange(8))
    own = ask_peer(peer, data, table["node"].to_numpy().astype(np.int64)).predictions
    trees = report["baselines"]["trees"]
    assert trees["accuracy"] == pytest.approx((own == truth).mean(), abs=1e-6)
    assert report["intervals"]["accuracy"]["margin_trees"]["estimate"] == pytest.approx(
        report["overall"]["accuracy"] - trees["accuracy"], abs=1e-5
    )
    assert av1part("report", "runs/with", "out=page").code == 0
    assert "nothing: boosted trees" in next(Path("page").glob("*.html")).read_text()


def test_without_the_library_nothing_is_begun(
    av1part: Command, on_small: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    ran = av1part("train", "stage=stage1", "name=s1", "baselines=trees", *on_small)
    assert ran.code == 2
    assert len(ran.error_lines) == 1
    assert "pip install 'av1part[trees]'" in ran.error_lines[0]
    assert not Path("runs/s1/config.yaml").exists()
