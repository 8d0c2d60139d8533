"""Scores on tasks: of a stage after steps, of ridge regression, of class frequencies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars
import pytest
import torch
from sklearn.metrics import f1_score

from av1part import embedded
from av1part.data.serve.episodes import EpisodeDataModule, Episodes
from av1part.data.store.store import Store
from av1part.data.store.writer import StoreWriter
from av1part.evaluation.attach import RECORDED, DataSource
from av1part.evaluation.evaluate import evaluate, stage_scores
from av1part.evaluation.tasks import (
    after_steps,
    by_frequencies,
    by_ridge,
    open_tasks,
    score_tasks,
    tasks_of,
)
from av1part.stages.blocks import BlockStage, Stage2
from av1part.stages.meta import MetaOptions
from av1part.system.errors import ConfigError, StoreError

OPTIONS = {"gap": 16, "least": 4, "inner_steps": 3, "inner_lr": 0.02}
EPISODES = MetaOptions.of(OPTIONS).episodes


@pytest.fixture
def module(small_store: Path) -> BlockStage:
    data = EpisodeDataModule(
        small_store, stage="stage2", split_list=embedded.SPLIT_LIST, episodes=EPISODES
    )
    torch.manual_seed(3)
    made = Stage2(
        taxonomy="v6",
        method="meta",
        method_options=OPTIONS,
        backbone={"width": 8},
        head={"kind": "linear"},
        loss={"kind": "cross_entropy"},
        optimizer={},
        scheduler={"kind": "constant"},
        data=data.facts(),
        adapter={"kind": "bottleneck", "layers": [4], "bottleneck": 8, "init_std": 0.3},
    )
    return centred(made.eval(), data, seed=3)


def centred(module: BlockStage, data: EpisodeDataModule, seed: int) -> BlockStage:
    """Give a stage a random head that predicts every class of some blocks."""
    torch.manual_seed(seed)
    head = module.classifier.head[-1]
    with torch.no_grad():
        block = data.reader("val")[np.arange(100)]
        pooled = module.classifier.features(block["block"], block["qindex"])
        torch.nn.init.normal_(head.weight).div_(pooled.std(0).norm())
        head.bias.copy_(-(pooled.mean(0) @ head.weight.T))
    return module


def test_a_stage_after_its_own_steps_is_what_validation_scores(module: BlockStage) -> None:
    data, splits = open_tasks(module, EPISODES, RECORDED, "val")
    found = score_tasks([module], data, splits, lambda m, b: after_steps(m, b, {0.02: (0, 1, 3)}))
    expected = stage_scores(module, evaluate(module, data.batches("val")))
    assert found[0.02, 3].estimate["macro_f1"] == pytest.approx(expected["macro_f1"], abs=1e-6)
    assert found[0.02, 3].estimate["accuracy"] == pytest.approx(expected["accuracy"], abs=1e-6)
    assert found[0.02, 3].pictures == len({task.sequence for task in data.tasks["val"]})
    # No step is the stage as it is.
    predicted, labels = [], []
    for batch in data.batches("val"):
        asked = ~batch["support"]
        with torch.no_grad():
            logits = module(batch["block"][asked], batch["qindex"][asked])
        predicted.append(logits.argmax(1))
        labels.append(module.labels(batch)[asked])
    score = f1_score(torch.cat(labels), torch.cat(predicted), average="macro")
    assert found[0.02, 0].estimate["macro_f1"] == pytest.approx(score)
    assert len({own.estimate["macro_f1"] for own in found.values()}) == 3


def test_several_seeds_are_averaged(module: BlockStage) -> None:
    data, splits = open_tasks(module, EPISODES, RECORDED, "val")
    other = centred(Stage2(**module.hparams).eval(), data, seed=4)
    scores = [
        score_tasks(own, data, splits, lambda m, b: after_steps(m, b, {0.02: (3,)}))[0.02, 3]
        for own in ([module], [other], [module, other])
    ]
    one, two, both = (own.estimate["macro_f1"] for own in scores)
    assert one != two
    assert both == pytest.approx((one + two) / 2)


def test_class_frequencies_are_those_of_the_support(module: BlockStage) -> None:
    data, splits = open_tasks(module, EPISODES, RECORDED, "val")
    for _, batch in tasks_of(data, splits):
        own = batch["support"]
        counts = np.bincount(module.labels(batch)[own], minlength=3)
        asked = np.bincount(module.labels(batch)[~own], minlength=3)
        found = by_frequencies(module, batch)
        np.testing.assert_allclose(found["prior"], np.outer(asked, counts / counts.sum()))
        assert found["majority"].sum(0).argmax() == counts.argmax()
        assert np.array_equal(found["majority"].sum(1), asked)


def test_ridge_does_without_adapters_and_head(module: BlockStage) -> None:
    data, splits = open_tasks(module, EPISODES, RECORDED, "val")
    batch = next(iter(tasks_of(data, splits)))[1]
    found = by_ridge(module, batch, {False: [0.1, 1.0], True: [1.0]})
    assert list(found) == [(False, 0.1), (False, 1.0), (True, 1.0)]
    assert {int(matrix.sum()) for matrix in found.values()} == {int((~batch["support"]).sum())}
    for name, parameter in module.named_parameters():
        if ".backbone." not in name:
            torch.nn.init.normal_(parameter)
    again = by_ridge(module, batch, {False: [0.1, 1.0], True: [1.0]})
    assert all(np.array_equal(found[key], again[key]) for key in found)


def again(small_store: Path, out: Path, side: int, source: str | None = None) -> DataSource:
    """Write the pictures of `small_store` once more, `side` samples of them, under other names."""
    old, writer = Store.open(small_store), StoreWriter(out, {"made": "again"})
    for name in old.sequences:
        writer.add_plane(f"new_{name}", old.plane(name)[:, :side, :side], 8)
    nodes = old.nodes.with_columns(polars.format("new_{}", "sequence").alias("sequence"))
    inside = (polars.col("row") + 16 <= side) & (polars.col("col") + 16 <= side)
    facts = {
        f"new_{name}": {"bit_depth": 8} | ({"source_sha256": source + name} if source else {})
        for name in old.sequences
    }
    writer.finish(nodes.filter(inside), facts, {})
    listed = embedded.SPLIT_LIST.read_text().splitlines()
    split_list = out.with_suffix(".csv")
    split_list.write_text("\n".join([listed[0], *("new_" + line for line in listed[1:])]))
    return DataSource(str(out), "by_sequence", str(split_list))


def test_pictures_that_were_trained_on_are_found_under_other_names(
    module: BlockStage, small_store: Path, tmp_path: Path
) -> None:
    source = again(small_store, tmp_path / "again", 128)
    for split in ("train", "val", "all"):
        with pytest.raises(StoreError, match=r"new_(\w+) of .*again is \1 of .*small, which the"):
            open_tasks(module, EPISODES, source, split)
    # Pictures of the checkpoint's own test split may be scored, whatever they are here.
    swapped = tmp_path / "swapped.csv"
    other = {"val": "test", "test": "val"}
    rows = (line.split(",") for line in embedded.SPLIT_LIST.read_text().splitlines())
    swapped.write_text("\n".join(f"{name},{other.get(split, split)}" for name, split in rows))
    data = EpisodeDataModule(small_store, stage="stage2", split_list=swapped, episodes=EPISODES)
    module.hparams["data"].update(data.facts())
    assert open_tasks(module, EPISODES, source, "val")[1] == ["val"]
    with pytest.raises(StoreError, match="which the checkpoint was trained or chosen on"):
        open_tasks(module, EPISODES, source, "all")


def test_pictures_of_the_same_source_are_the_same_pictures(
    module: BlockStage, small_store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Cut in another way: their planes differ, and the file that they are of is the same."""
    cut = again(small_store, tmp_path / "cut", 112)
    assert open_tasks(module, EPISODES, cut, "all")[1] == ["train", "val"]
    assert "names no source of" in caplog.text
    named = again(small_store, tmp_path / "named", 128, "of ")
    facts = EpisodeDataModule(
        tmp_path / "named", stage="stage2", split_list=named.split_list, episodes=EPISODES
    ).facts()
    module.hparams["data"].update(facts)
    same = again(small_store, tmp_path / "same", 112, "of ")
    with pytest.raises(StoreError, match="which the checkpoint was trained or chosen on"):
        open_tasks(module, EPISODES, same, "all")
    other = again(small_store, tmp_path / "other", 112, "another ")
    caplog.clear()
    assert open_tasks(module, EPISODES, other, "all")[1] == ["train", "val"]
    assert not caplog.records


def test_a_checkpoint_whose_dataset_is_gone_says_that_it_cannot_be_checked(
    module: BlockStage, small_store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    module.hparams["data"]["path"] = str(tmp_path / "gone")
    source = again(small_store, tmp_path / "again", 128)
    assert open_tasks(module, EPISODES, source, "val")[1] == ["val"]
    assert "cannot check whether" in caplog.text
    assert "gone, is not there" in caplog.text


def test_all_of_another_dataset_is_scored_and_of_the_own_one_val_or_test(
    module: BlockStage,
) -> None:
    other = DataSource(str(embedded.STORE), "by_sequence", str(embedded.SPLIT_LIST))
    data, splits = open_tasks(module, EPISODES, other, "all")
    assert splits == ["train", "val", "test"]
    assert len(list(tasks_of(data, splits))) == sum(map(len, data.tasks.values()))
    for split in ("train", "all", "each"):
        with pytest.raises(ConfigError, match=f"split={split}: give val or test"):
            open_tasks(module, EPISODES, RECORDED, split)
    with pytest.raises(StoreError, match="no task in the val split"):
        open_tasks(module, Episodes(gap=16, support_nodes=500), RECORDED, "val")
