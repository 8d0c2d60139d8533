"""`baselines=trees`: boosted trees beside a network, on the same nodes, and in its report."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from av1part import embedded
from av1part.config.schema import Trees
from av1part.data.serve.datamodule import BlockDataModule
from av1part.data.serve.superblocks import SuperblockDataModule
from av1part.data.store.store import Store
from av1part.evaluation import trees as evaluation_trees
from av1part.evaluation.trees import ask_peers, train_peers
from av1part.metrics.intervals import bootstrap_difference
from av1part.metrics.scores import from_predictions
from av1part.partition import SIZES, taxonomy
from av1part.trees.boosting import Boosted

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
    nodes = {16: table["node"].to_numpy().astype(np.int64)}
    own = ask_peers(train_peers(data, small_boosting()), data, nodes)[16].probabilities
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
    nodes = {16: table["node"].to_numpy().astype(np.int64)}
    own = ask_peers(train_peers(data, small_boosting(), np.arange(8)), data, nodes)[16].predictions
    trees = report["baselines"]["trees"]
    assert trees["accuracy"] == pytest.approx((own == truth).mean(), abs=1e-6)
    assert report["intervals"]["accuracy"]["margin_trees"]["estimate"] == pytest.approx(
        report["overall"]["accuracy"] - trees["accuracy"], abs=1e-5
    )
    assert av1part("report", "runs/with", "out=page").code == 0
    assert "nothing: boosted trees" in next(Path("page").glob("*.html")).read_text()


NETWORKS = """# @package _global_
defaults:
  - override /stage: superblock
taxonomy: v6_1to4
data: {crop: 64, batch_size: 16}
trainer: {max_epochs: 1}
callbacks: {plots: false}
logger: {names: []}
hydra:
  sweeper:
    baseline: narrow
    seeds: [1]
    variants:
      narrow: [backbone.width=2]
      wide: [backbone.width=3]
"""


def test_a_sweep_of_superblock_networks_has_trees_at_every_size(
    av1part: Command, one_to_four_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained once for all jobs, validations and the test split; in every table."""
    trained: list[int] = []
    original = evaluation_trees.search

    def counted(*arguments: Any) -> Boosted:
        trained.append(1)
        return original(*arguments)

    monkeypatch.setattr(evaluation_trees, "search", counted)
    (tmp_path / "own/experiment").mkdir(parents=True)
    (tmp_path / "own/experiment/two.yaml").write_text(NETWORKS)
    names = Store.open(one_to_four_store).sequences
    splits = ("train", "train", "train", "val", "val", "test")
    rows = [f"{name},{split}" for name, split in zip(names, splits, strict=True)]
    Path("split.csv").write_text("\n".join(["sequence,split", *rows, ""]))
    words = (f"data.path={one_to_four_store}", "data.split_list=split.csv", "baselines=trees")
    words += WORDS
    ran = av1part("train", "-m", "--config-dir", tmp_path / "own", "experiment=two", *words)
    assert ran.code == 0, ran.err
    assert len(trained) == len(SIZES)
    run = Path("runs/two/narrow/seed-1")
    metrics = json.loads((run / "metrics.json").read_text())

    data = SuperblockDataModule(one_to_four_store, taxonomy="v6_1to4", split_list="split.csv")
    nodes = data.scored("val")
    answers = ask_peers(train_peers(data, small_boosting()), data, nodes)
    types = data.store.nodes["partition"].to_numpy()
    expected, priors = [], []
    for size, own in nodes.items():
        of_size = taxonomy("v6_1to4").at(size)
        labels = of_size.superblock.labels[types[own]]
        shares = answers[size].probabilities
        expected.append(-np.log(shares[np.arange(len(own)), labels]).mean())
        counts = np.array(data.counts_by_size()[str(size)])[list(of_size.partitions)] + 1
        priors.append(-np.log(counts[labels] / counts.sum()).mean())
        beside = metrics["by_size"][str(size)]["baselines"]
        assert beside["trees"]["log_loss"] == pytest.approx(expected[-1], abs=1e-6)
        assert beside["prior"]["log_loss"] == pytest.approx(priors[-1], abs=1e-6)
        right = (shares.argmax(1) == labels).mean()
        assert beside["trees"]["accuracy"] == pytest.approx(right, abs=1e-6)
        frequent = np.bincount(labels).max() / len(labels)
        assert beside["constant"]["accuracy"] == pytest.approx(frequent, abs=1e-6)
        margins = metrics["by_size"][str(size)]["intervals"]["log_loss"]
        own_loss = metrics["by_size"][str(size)]["log_loss"]
        margin = own_loss - expected[-1]
        assert margins["margin_trees"]["estimate"] == pytest.approx(margin, abs=1e-5)
    assert metrics["baselines"]["trees"]["log_loss"] == pytest.approx(np.mean(expected), abs=1e-6)
    assert metrics["baselines"]["prior"]["log_loss"] == pytest.approx(np.mean(priors), abs=1e-6)
    trees = metrics["by_size"]["16"]["baselines"]["trees"]
    assert metrics["baselines"]["trees"]["macro_f1"] == trees["macro_f1"]

    trained.clear()
    best = run / "checkpoints/best.ckpt"
    for more in ((), ("baselines=trees", *WORDS)):
        validated = av1part("validate", best, *more)
        assert "every figure" in validated.out, validated.out + validated.err
        assert ("Trees" in validated.out) == bool(more)
    refused = av1part("validate", "runs/two", "split=test", "baselines=trees")
    assert refused.code == 2
    assert "trained with baselines=trees" in refused.error_lines[0]
    opened = av1part("validate", "runs/two", "split=test")
    assert opened.code == 0, opened.err
    assert "Trees" in opened.out
    assert "log loss in nats" in opened.out
    tests = json.loads(Path("runs/two/test.json").read_text())["runs"]
    assert len(tests) == 2
    for test in tests.values():
        assert test["by_size"]["64"]["baselines"]["trees"]["log_loss"] > 0
    assert trained == [], "the trees are those of the sweep"

    report = av1part("report", "runs/two", "out=page")
    assert report.code == 0, report.err
    for name in ("log-loss", "sizes", "comparison", "test", "pictures"):
        assert "Trees" in Path(f"page/tables/{name}.md").read_text(), name
    assert "Log loss" in Path("page/tables/test.md").read_text()


def test_tries_of_trees_are_recorded(
    av1part: Command, on_small: tuple[str, ...], small_store: Path
) -> None:
    words = ("train", "stage=stage1", "name=s1", "baselines=trees", *WORDS, "trees.tries=3")
    ran = av1part(*words, *on_small)
    assert ran.code == 0, ran.err
    trees = json.loads(Path("runs/s1/metrics.json").read_text())["baselines"]["trees"]
    data = BlockDataModule(small_store, split_list=embedded.SPLIT_LIST)
    chosen = train_peers(data, small_boosting(tries=3))[16]
    assert trees["tries"] == 3
    assert trees["iterations"] == chosen.iterations
    assert trees["settings"]["leaves"] == chosen.settings.leaves
    validated = av1part("validate", "runs/s1/checkpoints/best.ckpt")
    assert "every figure" in validated.out, validated.out + validated.err


def test_without_the_library_nothing_is_begun(
    av1part: Command, on_small: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    ran = av1part("train", "stage=stage1", "name=s1", "baselines=trees", *on_small)
    assert ran.code == 2
    assert len(ran.error_lines) == 1
    assert "pip install 'av1part[trees]'" in ran.error_lines[0]
    assert not Path("runs/s1/config.yaml").exists()
