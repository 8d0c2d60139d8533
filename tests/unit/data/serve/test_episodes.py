"""Tasks: support and query of a picture, with a gap between them, always the same."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from av1part import embedded
from av1part.data.serve.datamodule import BlockDataModule
from av1part.data.serve.episodes import EpisodeDataModule, Episodes
from av1part.data.store.store import Store
from av1part.data.store.writer import StoreWriter
from av1part.partition import Partition
from av1part.system.errors import StoreError

P = Partition


def module(path: Path, *, tasks: int = 2, **options: Any) -> EpisodeDataModule:
    own = {"gap": 16, "least": 4} | {
        k: v for k, v in options.items() if k in Episodes.__annotations__
    }
    other = {k: v for k, v in options.items() if k not in Episodes.__annotations__}
    data = EpisodeDataModule(
        path,
        episodes=Episodes(**own),
        tasks=tasks,
        **{"stage": "stage2", "split_list": embedded.SPLIT_LIST} | other,
    )
    data.setup()
    return data


@pytest.fixture
def whole() -> EpisodeDataModule:
    """Tasks of the embedded pictures."""
    return module(embedded.STORE, gap=64, least=8, context=8)


def rows(data: BlockDataModule, split: str, positions: np.ndarray) -> np.ndarray:
    return data.store.nodes["row"].to_numpy()[data.readers[split].nodes[positions]]


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_support_and_query_are_apart_by_the_gap(whole: EpisodeDataModule, split: str) -> None:
    reader = whole.reader(split)
    sequences, _, row, _ = reader.places()
    qindex = whole.store.nodes["qindex"].to_numpy()[reader.nodes]
    assert len(whole.tasks[split]) > 6
    for task in whole.tasks[split]:
        both = np.concatenate([task.support, task.query])
        assert len(np.unique(both)) == len(both)
        assert {reader.store.sequences[code] for code in sequences[both]} == {task.sequence}
        assert set(qindex[both]) == {task.qindex}
        # The last row of a labelled block with its margin is above the first row asked for.
        assert row[task.support].max() + 16 + 8 <= row[task.query].min()
        height = reader.store.plane(task.sequence).shape[1]
        half = (height - 64) // 2
        assert row[task.support].max() + 16 <= half < half + 64 <= row[task.query].min()


def test_the_labels_are_those_of_the_store_and_no_other_node_is_left_out(
    whole: EpisodeDataModule,
) -> None:
    """Against a count made one by one."""
    nodes = whole.store.nodes.with_row_index("node").filter(
        (pl.col("size") == 16) & (pl.col("partition") != P.NONE)
    )
    for batch, task in zip(whole.batches("val"), whole.tasks["val"], strict=True):
        height = whole.store.plane(task.sequence).shape[1]
        own = nodes.filter(sequence=task.sequence, qindex=task.qindex)
        half = (height - 64) // 2
        asked = own.filter(pl.col("row") >= half + 64)
        labelled = own.filter(pl.col("row") + 16 <= half)
        assert batch["node"][~batch["support"]].tolist() == asked["node"].to_list()
        assert batch["node"][batch["support"]].tolist() == labelled["node"].to_list()
        assert batch["partition"].tolist() == [
            *labelled["partition"].to_list(),
            *asked["partition"].to_list(),
        ]
        assert not batch["task"].any()


def test_every_picture_at_a_qindex_is_a_task_or_counted(
    whole: EpisodeDataModule, caplog: pytest.LogCaptureFixture
) -> None:
    of_split = pl.read_csv(embedded.SPLIT_LIST)
    for split in ("train", "val", "test"):
        names = of_split.filter(split=split)["sequence"].to_list()
        asked = whole.store.nodes.filter(
            pl.col("sequence").is_in(names), pl.col("size") == 16, pl.col("partition") != P.NONE
        )
        pictures = asked.select("sequence", "qindex").unique().height
        assert len(whole.tasks[split]) + whole.left_out[split].total() == pictures
        assert whole.facts()["tasks"][split]["tasks"] == len(whole.tasks[split])
    assert whole.left_out["val"] == {"few": 1, "one_class": 1}
    with caplog.at_level(logging.INFO):
        whole.log_tasks()
    assert (
        "val: 10 tasks; left out of the pictures at a qindex: 1 with fewer than 8 nodes in support "
        "or 8 in query, 1 with one class alone in support"
    ) in caplog.messages


def test_so_many_labelled_nodes_are_drawn_as_asked_for_and_always_the_same() -> None:
    first, again, other = (
        module(embedded.STORE, support_nodes=20, least=8, split_seed=seed) for seed in (1, 1, 2)
    )
    assert first.tasks["train"]
    every = {(t.sequence, t.qindex): t for t in module(embedded.STORE, least=8).tasks["train"]}
    for one, same in zip(first.tasks["train"], again.tasks["train"], strict=True):
        assert len(one.support) == 20
        assert np.array_equal(one.support, same.support)
        whole = every[one.sequence, one.qindex]
        assert set(one.support) <= set(whole.support)
        assert np.array_equal(one.query, whole.query)
    drawn = [np.concatenate([t.support for t in data.tasks["train"]]) for data in (first, other)]
    assert not np.array_equal(*drawn)


def test_an_epoch_has_every_task_once_in_an_order_of_its_own(small_store: Path) -> None:
    data = module(small_store, tasks=3)

    def epoch(number: int) -> list[dict[str, torch.Tensor]]:
        loader = data.train_dataloader()
        loader.sampler.set_epoch(number)
        return list(loader)

    expected = sorted(
        tuple(data.readers["train"].nodes[np.concatenate([t.support, t.query])])
        for t in data.tasks["train"]
    )
    assert len(expected) == 10
    orders = []
    for number in (0, 1):
        batches = epoch(number)
        assert [int(batch["task"].max()) + 1 for batch in batches] == [3, 3, 2, 2]
        served = [
            tuple(batch["node"][batch["task"] == k].tolist())
            for batch in batches
            for k in range(int(batch["task"].max()) + 1)
        ]
        assert sorted(served) == expected
        orders.append(served)
    assert orders[0] != orders[1]
    again = epoch(0)
    assert all(
        torch.equal(a[key], b[key]) for a, b in zip(epoch(0), again, strict=True) for key in a
    )


def test_features_are_served_instead_of_blocks_in_training_alone(small_store: Path) -> None:
    data = module(small_store)
    for split in ("train", "val"):
        count = len(data.readers[split])
        data.features[split] = torch.arange(count, dtype=torch.float32)[None, :, None]
    for loader, split in ((data.train_dataloader(), "train"), (data.val_dataloader(), "val")):
        batch = next(iter(loader))
        assert "block" not in batch
        positions = batch["features"][:, 0].long().numpy()
        assert np.array_equal(data.readers[split].nodes[positions], batch["node"].numpy())
    assert "block" in next(iter(data.batches("val")))


def test_what_is_scored_are_the_queries(whole: EpisodeDataModule) -> None:
    asked = torch.cat([b["node"][~b["support"]] for b in whole.batches("val")]).sort().values
    assert whole.scored("val")[16].tolist() == asked.tolist()
    assert len(whole.reader("val")) > len(asked)


def clip(out: Path, frames: int) -> Path:
    """Write a clip of 64x64 samples with random cuts in every frame."""
    rng = np.random.default_rng(0)
    writer = StoreWriter(out, {"made": "by a test"})
    names = ("astronaut", "brick", "camera")
    for name in names:
        writer.add_plane(name, rng.integers(0, 256, (frames, 64, 64)).astype(np.uint8), 8)
    places = [
        (s, f, r, c) for s in names for f in range(frames) for r in (0, 16, 32, 48) for c in (0, 16)
    ]
    table = pl.DataFrame(
        {
            "sequence": [p[0] for p in places],
            **{
                key: pl.Series([p[i] for p in places], dtype=pl.Int32)
                for i, key in ((1, "frame"), (2, "row"), (3, "col"))
            },
            "size": pl.Series([16] * len(places), dtype=pl.Int32),
            "qindex": pl.Series([80] * len(places), dtype=pl.Int16),
            "partition": pl.Series(
                rng.choice([P.SPLIT, P.HORZ, P.HORZ_A], len(places)), dtype=pl.Int8
            ),
        }
    )
    return writer.finish(table, {s: {"bit_depth": 8} for s in names}, {}).path


@pytest.mark.parametrize(("frames", "column"), [(10, "frame"), (4, "row")])
def test_a_clip_is_cut_along_time_if_it_has_the_frames(
    tmp_path: Path, frames: int, column: str
) -> None:
    listed = tmp_path / "split.csv"
    listed.write_text("sequence,split\nastronaut,train\nbrick,val\ncamera,test\n")
    data = module(clip(tmp_path / "clip", frames), gap=16, split_list=listed)
    (task,) = data.tasks["val"]
    nodes = data.readers["val"].nodes
    values = data.store.nodes[column].to_numpy()
    found = [sorted(set(values[nodes[part]].tolist())) for part in (task.support, task.query)]
    # Nine frames without the gap of one; 48 rows without that of 16.
    assert found == ([[0, 1, 2, 3], [5, 6, 7, 8, 9]] if column == "frame" else [[0], [48]])


def test_a_split_without_a_task_is_refused_in_one_line(small_store: Path) -> None:
    data = module(small_store, support_nodes=30, least=20)
    with pytest.raises(StoreError, match=r"no task in the val split.*fewer than 30.*method\.least"):
        data.reader("val")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"support": 0.0}, "method.support"),
        ({"support": 1}, "method.support"),
        ({"gap": -1}, "method.gap"),
        ({"gap": 2.5}, "method.gap"),
        ({"least": 0}, "method.least"),
        ({"support_nodes": 4}, "method.support_nodes"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Episodes(**options)


def test_the_checkpoint_s_data_is_the_ordinary_one(small_store: Path) -> None:
    """But for the tasks: the same split, nodes and class counts as of any other method."""
    ours = module(small_store).facts()
    ordinary = BlockDataModule(small_store, stage="stage2", split_list=embedded.SPLIT_LIST)
    assert ours.pop("tasks")["train"] == {"tasks": 10, "few": 5, "one_class": 1}
    assert ours == ordinary.facts()
    assert Store.open(small_store).manifest_sha256 == ours["manifest_sha256"]
