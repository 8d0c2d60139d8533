"""Blocks and batches: the right pixels, the right nodes, the same for any number of workers."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from av1part import embedded
from av1part.data.serve.blocks import Batch, BatchLoader, BlockReader, EpochBatches
from av1part.data.serve.datamodule import BlockDataModule
from av1part.data.store.store import Store
from av1part.data.store.writer import StoreWriter
from av1part.partition import Partition, taxonomy
from av1part.system.errors import ConfigError, StoreError
from av1part.system.files import sha256_file


def module(path: Path, **options: Any) -> BlockDataModule:
    data = BlockDataModule(path, **({"split_list": embedded.SPLIT_LIST} | options))
    data.setup()
    return data


def train_batches(data: BlockDataModule, epoch: int = 0) -> list[Batch]:
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return list(loader)


def equal(one: list[Batch], other: list[Batch]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a[k], b[k]) for a, b in zip(one, other, strict=True) for k in a
    )


@pytest.mark.parametrize("context", [0, 3, 8])
def test_blocks_are_the_planes_pixels(small_store: Path, context: int) -> None:
    """Each block against a cut made one by one from a padded plane."""
    store = Store.open(small_store)
    rng = np.random.default_rng(0)
    nodes = np.sort(rng.choice(store.nodes.height, 200, replace=False))
    reader = BlockReader(store, nodes, size=16, context=context)
    batch = reader[rng.permutation(200)]
    side = 16 + 2 * context
    assert batch["block"].shape == (200, 1, side, side)
    assert batch["block"].dtype == torch.uint8
    for i, node in enumerate(batch["node"].tolist()):
        row = store.nodes.row(node, named=True)
        padded = np.pad(store.plane(row["sequence"])[row["frame"]], context, mode="edge")
        cut = padded[row["row"] : row["row"] + side, row["col"] : row["col"] + side]
        assert np.array_equal(batch["block"][i, 0].numpy(), cut)
        assert batch["partition"][i] == row["partition"]
        assert batch["qindex"][i] == row["qindex"]


def test_ten_bit_blocks_are_int16(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path / "d", {})
    plane = np.arange(32 * 32, dtype=np.uint16).reshape(1, 32, 32)
    writer.add_plane("p", plane, 10)
    columns = {"sequence": ["p"], "frame": [0], "row": [16], "col": [0], "size": [16]}
    nodes = pl.DataFrame({**columns, "qindex": [90], "partition": [2]})
    store = writer.finish(nodes, {"p": {"bit_depth": 10}}, {})
    batch = BlockReader(store, np.array([0]), size=16)[np.array([0])]
    assert batch["block"].dtype == torch.int16
    assert np.array_equal(batch["block"][0, 0].numpy(), plane[0, 16:, :16].astype(np.int16))


def test_an_epoch_has_every_node_once(small_store: Path) -> None:
    data = module(small_store, batch_size=64)
    batches = train_batches(data)
    nodes = torch.cat([b["node"] for b in batches])
    assert sorted(nodes.tolist()) == sorted(data.reader("train").nodes.tolist())
    assert nodes.tolist() != sorted(nodes.tolist())
    sizes = {len(b["node"]) for b in batches}
    assert max(sizes) <= 64
    assert max(sizes) - min(sizes) <= 1


def test_epochs_and_seeds_differ_and_repeat(small_store: Path) -> None:
    data = module(small_store)
    assert equal(train_batches(data, 3), train_batches(module(small_store), 3))
    assert not equal(train_batches(data, 3), train_batches(data, 4))
    assert not equal(train_batches(data, 3), train_batches(module(small_store, seed=7), 3))


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_give_the_same_batches(small_store: Path, workers: int) -> None:
    for sampling in ("natural", "balanced"):
        alone, helped = (
            train_batches(module(small_store, num_workers=n, sampling=sampling), 2)
            for n in (0, workers)
        )
        assert equal(alone, helped)


def test_batches_leave_global_randomness_alone(small_store: Path) -> None:
    data = module(small_store)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    list(data.val_dataloader())
    train_batches(data)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("stage", ["stage1", "stage2", "stage3_rect", "stage3_ab"])
def test_a_stage_gets_its_population(small_store: Path, stage: str) -> None:
    data = module(small_store, stage=stage)
    types = {Partition(int(p)) for b in data.batches("val") for p in b["partition"]}
    assert types <= taxonomy("v6").stage(stage).population
    nodes = data.store.nodes
    population = [int(p) for p in taxonomy("v6").stage(stage).population]
    wanted = nodes.filter(pl.col("partition").is_in(population)).height
    listed = sum(len(data.readers[s]) for s in ("train", "val", "test"))
    assert listed == wanted
    counts = data.class_counts("train")
    assert sum(counts) == len(data.reader("train"))


def test_splits_share_no_sequence_and_are_the_same_for_all_stages(small_store: Path) -> None:
    where: dict[str, str] = {}
    for stage in ("stage1", "stage2", "stage3_ab"):
        data = module(small_store, stage=stage, split_list=None)
        for split in ("train", "val", "test"):
            for sequence in data.store.nodes["sequence"][data.readers[split].nodes].unique():
                assert where.setdefault(sequence, split) == split


def test_balanced_sampling_draws_classes_alike(small_store: Path) -> None:
    data = module(small_store, stage="stage2", sampling="balanced")
    drawn = torch.cat([b["partition"] for b in train_batches(data)])
    share = np.bincount(taxonomy("v6").stage("stage2").labels[drawn.numpy()]) / len(drawn)
    assert np.abs(share - 1 / 3).max() < 0.05
    natural = np.array(data.class_counts()) / sum(data.class_counts())
    assert np.abs(natural - 1 / 3).max() > 0.05


def test_types_outside_the_taxonomy_are_counted(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path / "d", {})
    writer.add_plane("p", np.zeros((1, 64, 64), np.uint8), 8)
    columns = {"sequence": "p", "frame": 0, "size": 16, "qindex": 80}
    rows = [{**columns, "row": 16 * i, "col": 0, "partition": t} for i, t in enumerate((8, 9, 9))]
    writer.finish(pl.DataFrame(rows), {"p": {"bit_depth": 8}}, {})
    with pytest.raises(StoreError, match=r"1 HORZ_4, 2 VERT_4 nodes.*v6_1to4"):
        module(tmp_path / "d", protocol="by_segment", split_list=None)
    module(tmp_path / "d", protocol="by_segment", split_list=None, taxonomy="v6_1to4")


@pytest.mark.parametrize("split", ["by_segment", "random_blocks", "given"])
def test_a_list_that_the_protocol_would_not_read_is_refused(split: str, small_store: Path) -> None:
    with pytest.raises(ConfigError, match=r"split_list is of data\.protocol=by_sequence"):
        BlockDataModule(small_store, protocol=split, split_list="list.csv")


def test_refusals(small_store: Path) -> None:
    for options in ({"sampling": "x"}, {"augment": "x"}, {"protocol": "x"}, {"size": 12}):
        with pytest.raises(ConfigError, match=next(iter(options))):
            BlockDataModule(small_store, **options)  # type: ignore[arg-type]
    for options in ({"eval_batch_size": 65537}, {"context": 257}):  # no checkpoint may say so
        with pytest.raises(ConfigError, match=rf"data\.{next(iter(options))} must be at most"):
            BlockDataModule(small_store, **options)  # type: ignore[arg-type]
    for options in ({"stage": "stage9"}, {"taxonomy": "v7"}):
        with pytest.raises(ConfigError, match=next(iter(options.values()))):
            module(small_store, **options)
    with pytest.raises(StoreError, match="no 32x32 node"):
        module(small_store, size=32).reader("train")
    with pytest.raises(StoreError, match="test split"):
        module(small_store, protocol="random_blocks", split_list=None).reader("test")
    data = module(small_store)
    data.store.manifest["sequences"]["brick"]["bit_depth"] = 10
    with pytest.raises(StoreError, match="mixes bit depths"):
        data.store.bit_depth()


def test_reading_leaves_the_store_as_it_was(small_store: Path) -> None:
    before = {p: sha256_file(p) for p in small_store.rglob("*") if p.is_file()}
    data = module(small_store, context=4)
    for batch in train_batches(data):
        batch["block"] += 1
    assert {p: sha256_file(p) for p in small_store.rglob("*") if p.is_file()} == before


def test_ranks_share_an_epoch() -> None:
    """Every position on one of two ranks, in equally many steps."""
    parts = [list(EpochBatches(103, 10, shuffle=True, rank=r, ranks=2)) for r in (0, 1)]
    assert len(parts[0]) == len(parts[1]) == len(EpochBatches(103, 10, shuffle=True, ranks=2))
    drawn = np.concatenate([b for part in parts for b in part])
    assert sorted(drawn.tolist()) == list(range(103)), "each once"
    sizes = [len(b) for part in parts for b in part]
    assert max(sizes) <= 10
    assert max(sizes) - min(sizes) <= 1
    seen = [list(EpochBatches(103, 10, rank=r, ranks=2)) for r in (0, 1)]
    positions = np.concatenate([b for part in seen for b in part])
    assert sorted(positions.tolist()) == list(range(103))
    few = [list(EpochBatches(5, 10, rank=r, ranks=2)) for r in (0, 1)]
    assert [len(b) for part in few for b in part] == [3, 2]
    assert [len(s) for s in seen] == [len(EpochBatches(103, 10, rank=r, ranks=2)) for r in (0, 1)]


@settings(deadline=None, max_examples=200)
@given(count=st.integers(2, 400), batch_size=st.integers(2, 9), ranks=st.integers(1, 3))
def test_no_training_batch_has_one_block(count: int, batch_size: int, ranks: int) -> None:
    """BatchNorm fails on one; a count that is odd has one batch of three instead."""
    batches = [
        batch
        for rank in range(ranks)
        for batch in EpochBatches(count, batch_size, shuffle=True, rank=rank, ranks=ranks)
    ]
    assert sorted(np.concatenate(batches).tolist()) == list(range(count))
    sizes = [len(batch) for batch in batches]
    if count >= 2 * ranks:
        assert min(sizes) >= 2
        assert max(sizes) <= max(batch_size, 3 * ranks)
    assert [len(b) for b in EpochBatches(3, 1, shuffle=True)] == [1, 1, 1], "as asked for"


def test_a_loader_goes_on_inside_the_epoch_it_was_in(small_store: Path) -> None:
    def loader(epoch: int) -> BatchLoader:
        made = module(small_store, batch_size=64).train_dataloader()
        made.sampler.set_epoch(epoch)
        return made

    def nodes(batches: Iterable[Batch]) -> list[int]:
        return [node for batch in batches for node in batch["node"].tolist()]

    whole = nodes(loader(1))
    first = loader(1)
    some = nodes(islice(first, 2))
    assert first.state_dict() == {"epoch": 1, "batches": 2}
    for epoch, left in ((1, whole[len(some) :]), (2, nodes(loader(2)))):
        again = loader(epoch)
        again.load_state_dict(first.state_dict())
        assert len(again) == len(first), "an epoch is as long as ever"
        assert nodes(again) == left
