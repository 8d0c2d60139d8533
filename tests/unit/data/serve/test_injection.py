"""Noise injection: which foreign blocks are drawn, how often, and that they go nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from av1part import embedded
from av1part.data.serve.blocks import Batch, EpochBatches
from av1part.data.serve.datamodule import BlockDataModule
from av1part.data.serve.injection import ForeignBlocks, describe, is_foreign, sender
from av1part.partition import IGNORED, Partition, Taxonomy, taxonomy
from av1part.system.errors import ConfigError
from av1part.system.files import sha256_file

P = Partition
# By AV1 id: NONE, HORZ, VERT, SPLIT, the four AB, the two 1:4.
RATES = (0.9, 0.8, 0.7, 0.5, 0.1, 0.0, 0.2, 0.2, 0.3, 0.3)
V6 = taxonomy("v6")


def injection(**options: Any) -> ForeignBlocks:
    defaults = {"source": "confusion", "share": 0.25, "labels": "nearest", "rates": RATES}
    return ForeignBlocks(**defaults | options)


def module(path: Path, **options: Any) -> BlockDataModule:
    defaults = {"split_list": embedded.SPLIT_LIST, "stage": "stage3_rect"}
    data = BlockDataModule(path, **{**defaults, "injection": injection(), **options})
    data.setup()
    return data


def epoch(data: BlockDataModule, number: int = 0) -> list[Batch]:
    loader = data.train_dataloader()
    loader.sampler.set_epoch(number)
    return list(loader)


def joined(batches: list[Batch]) -> Batch:
    return {k: torch.cat([b[k] for b in batches]) for k in batches[0]}


@given(st.integers(1, 10**6), st.floats(0.001, 0.9))
def test_the_share_holds_within_one_block(own: int, share: float) -> None:
    foreign = injection(share=share).count(own)
    assert abs(foreign - share * (own + foreign)) <= 1


def test_weights_are_the_rates() -> None:
    types = np.array([P.SPLIT, P.HORZ_A, P.HORZ_A, P.HORZ_B])
    np.testing.assert_allclose(injection().weights(types), np.array([5, 1, 1, 0]) / 7)
    with pytest.raises(ConfigError, match="sends no foreign block"):
        injection().weights(np.array([P.HORZ_B]))


RECT, AB = {P.HORZ, P.VERT}, {P.HORZ_A, P.HORZ_B, P.VERT_A, P.VERT_B}


@pytest.mark.parametrize(
    ("name", "tree", "foreign"),
    [
        ("stage3_rect", V6, AB | {P.SPLIT}),
        ("stage3_ab", V6, RECT | {P.SPLIT}),
        ("stage3_rect", V6.at(8), {P.SPLIT}),
        ("stage3_1to4", taxonomy("v6_1to4"), RECT | AB | {P.SPLIT}),
    ],
)
def test_foreign_is_what_stage_2_takes_for_another_class(
    name: str, tree: Taxonomy, foreign: set[P]
) -> None:
    ids = np.array(tree.partitions)
    found = is_foreign(ids, tree, tree.stage(name))
    assert {P(int(i)) for i in ids[found]} == foreign


@pytest.mark.parametrize("name", ["stage1", "stage2"])
def test_other_stages_are_refused(name: str, small_store: Path) -> None:
    with pytest.raises(ConfigError, match=f"{name} is none"):
        sender(V6, V6.stage(name))
    with pytest.raises(ConfigError, match=f"{name} is none"):
        module(small_store, stage=name)


@pytest.mark.parametrize("sampling", ["natural", "balanced"])
def test_an_epoch_has_its_own_nodes_and_the_share_of_foreign_ones(
    small_store: Path, sampling: str
) -> None:
    data = module(small_store, sampling=sampling, batch_size=32)
    plain = module(small_store, sampling=sampling, batch_size=32, injection=None)
    for number in (0, 1):
        batch = joined(epoch(data, number))
        label = torch.from_numpy(V6.stage("stage3_rect").labels)[batch["partition"]]
        own = batch["node"][label != IGNORED]
        assert sorted(own.tolist()) == sorted(joined(epoch(plain, number))["node"].tolist())
        foreign = len(label) - len(own)
        assert abs(foreign - 0.25 * len(label)) <= 1
        drawn = {P(int(p)) for p in batch["partition"][label == IGNORED]}
        assert P.SPLIT in drawn
        assert drawn <= {P.SPLIT, P.HORZ_A, P.VERT_A, P.VERT_B}, "HORZ_B has rate 0"
    train = set(data.store.nodes["sequence"][data.reader("train").nodes].unique())
    assert set(data.store.nodes["sequence"][batch["node"].numpy()].unique()) <= train


def test_foreign_blocks_are_drawn_by_their_rates_and_anew_each_epoch(small_store: Path) -> None:
    data = module(small_store, injection=injection(share=0.9))
    batches = [joined(epoch(data, number)) for number in (0, 1)]
    drawn = [
        b["node"][torch.from_numpy(V6.stage("stage3_rect").labels)[b["partition"]] == IGNORED]
        for b in batches
    ]
    assert sorted(drawn[0].tolist()) != sorted(drawn[1].tolist())
    facts = data.facts()["injection"]
    types = data.store.nodes["partition"].to_numpy()[torch.cat(drawn).numpy()]
    assert len(types) == 2 * facts["foreign"] > 2500
    for name, share in facts["expected"].items():
        assert (types == P[name]).mean() == pytest.approx(share, abs=0.02), name
    weight = {n: c * RATES[P[n]] for n, c in facts["available"].items()}
    expected = {n: w / sum(weight.values()) for n, w in weight.items()}
    assert facts["expected"] == pytest.approx(expected)


def test_foreign_blocks_reach_neither_val_nor_counts_nor_statistics(small_store: Path) -> None:
    data, plain = module(small_store), module(small_store, injection=None)
    ours, theirs = data.facts(), plain.facts()
    assert ours.pop("injection")["own"] == sum(ours["class_counts"])
    assert theirs.pop("injection") is None
    assert ours == theirs
    for split in ("train", "val"):
        assert np.array_equal(data.labels(split), plain.labels(split))
        evaluated = joined(list(data.batches(split)))
        assert "target" not in evaluated
        assert torch.equal(evaluated["node"], joined(list(plain.batches(split)))["node"])


def test_batches_are_the_same_for_any_workers_and_shared_by_ranks(small_store: Path) -> None:
    alone, helped = (epoch(module(small_store, num_workers=n), 3) for n in (0, 2))
    assert len(alone) == len(helped)
    assert all(torch.equal(a[k], b[k]) for a, b in zip(alone, helped, strict=True) for k in a)
    foreign = np.full(40, 1 / 40)
    options: dict[str, Any] = {"shuffle": True, "seed": 3, "foreign": foreign, "drawn": 31}
    whole = list(EpochBatches(100, 10, **options))
    ranks = [list(EpochBatches(100, 10, **options, rank=r, ranks=2)) for r in (0, 1)]
    assert len(ranks[0]) == len(ranks[1]) == len(EpochBatches(100, 10, **options, ranks=2))
    both = [b for pair in zip(*ranks, strict=True) for b in pair][: len(whole)]
    assert all(np.array_equal(a, b) for a, b in zip(both, whole, strict=True))
    positions = np.concatenate(whole)
    assert sorted(positions[positions < 100]) == list(range(100))
    assert (positions >= 100).sum() == 31
    assert positions.max() < 140
    spread = [(b >= 100).sum() for b in whole]
    assert min(spread[:3]) > 0, "all over the epoch"
    assert min(spread[-3:]) > 0, "all over the epoch"


def test_an_epoch_with_everything_on_changes_neither_files_nor_planes(small_store: Path) -> None:
    """The study's Cutout wrote into the stored tensor: its data decayed while it trained."""
    before = {p: sha256_file(p) for p in small_store.rglob("*") if p.is_file()}
    data = module(
        small_store, context=4, augment="symmetries", noise=0.3, mixup=0.4, sampling="balanced"
    )
    planes = {s: data.store.plane(s).copy() for s in data.store.sequences}
    for step, batch in enumerate(epoch(data)):
        given_ = {k: v.clone() for k, v in batch.items()}
        trained = data.augmenter(batch, epoch=0, step=step)
        assert not torch.equal(trained["block"], batch["block"])
        assert trained["block"].dtype == torch.uint8
        torch.testing.assert_close(trained["target"].sum(1), torch.ones(len(batch["node"])))
        assert batch.keys() == given_.keys()
        assert all(torch.equal(batch[k], v) for k, v in given_.items())
    assert all(np.array_equal(data.store.plane(s), plane) for s, plane in planes.items())
    assert {p: sha256_file(p) for p in small_store.rglob("*") if p.is_file()} == before


def test_facts_are_plain_and_told_in_one_line(small_store: Path) -> None:
    facts = module(small_store, injection=injection(stage2_sha256="ab")).facts()["injection"]
    assert (facts["stage2_sha256"], facts["share"]) == ("ab", 0.25)
    assert facts["rates"]["SPLIT"] == 0.5
    line = describe(facts)
    assert f"{facts['foreign']} of an epoch's {facts['own'] + facts['foreign']} blocks" in line
    assert "on val Stage 2 sends here SPLIT 50.0 %" in line
    assert "on val" not in describe({**facts, "source": "uniform"})
