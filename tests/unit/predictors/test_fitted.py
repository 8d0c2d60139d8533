"""Prior, variance rule, random sets and oracle answer for every node, with what they were given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from av1part import embedded
from av1part.data.build.libaom import Children, find_inspect, inspect_stream
from av1part.data.build.sources import open_source
from av1part.data.build.tree import partition_tree
from av1part.data.store.store import Store
from av1part.partition import SIZES, Partition, legal_partitions
from av1part.predictors.fitted import ByQindex, ClassPrior, RandomSets, VarianceRule
from av1part.predictors.interface import TYPES, Domain, Predictor, uniform
from av1part.predictors.oracle import Oracle, plane_sha256
from av1part.system.errors import SourceError, StoreError

DATA = Path(__file__).parents[2] / "data"


@pytest.fixture(scope="module")
def store() -> Store:
    return Store.open(embedded.STORE)


@pytest.fixture(scope="module")
def nodes(store: Store) -> pl.DataFrame:
    return store.nodes.filter(pl.col("sequence").is_in(["brick", "coffee", "rocket"]))


def predictors(store: Store, nodes: pl.DataFrame) -> list[Predictor]:
    prior = ClassPrior.fit(store, nodes)
    sizes = {(size, 80): np.array([0.5, 0.3, 0.2]) for size in SIZES}
    return [prior, VarianceRule.fit(store, nodes), RandomSets(prior.domain, ByQindex(sizes))]


def test_every_whole_node_has_a_distribution_over_its_sizes_types(
    store: Store, nodes: pl.DataFrame
) -> None:
    plane = store.plane("chelsea")[0][:200, :150]
    for predictor in predictors(store, nodes):
        for qindex in (80, 100, 220):
            found = predictor.predict(plane, 8, qindex)
            assert set(found) == set(SIZES), predictor.name
            for size, probabilities in found.items():
                assert probabilities.shape == (200 // size, 150 // size, TYPES)
                assert probabilities.dtype == np.float32
                assert np.allclose(probabilities.sum(-1), 1, atol=1e-5)
                illegal = [t for t in Partition if t not in legal_partitions(size)]
                assert (probabilities[..., [*illegal, Partition.HORZ_4]] == 0).all()


def test_the_prior_is_the_share_of_each_type(store: Store, nodes: pl.DataFrame) -> None:
    prior = ClassPrior.fit(store, nodes)
    assert prior.domain == Domain(SIZES, (80, 220), (8,), one_to_four=False)
    own = nodes.filter(size=16, qindex=128)
    shares = np.bincount(own["partition"], minlength=TYPES) / own.height
    predicted = prior.predict(np.zeros((16, 16), np.uint8), 8, 128)[16][0, 0]
    assert np.abs(predicted - shares).max() < 1 / own.height
    # The nearest qindex answers; of two as near, the lower one.
    at = prior.shares.at
    assert at(16, 0) is at(16, 80)
    assert at(16, 104) is at(16, 80)
    assert at(16, 105) is at(16, 128)


def test_the_variance_rule_knows_flat_from_busy(store: Store, nodes: pl.DataFrame) -> None:
    rule = VarianceRule.fit(store, nodes)
    rng = np.random.default_rng(0)
    flat, busy = np.full((64, 64), 90, np.uint8), rng.integers(0, 256, (64, 64), np.uint8)
    none = [rule.predict(plane, 8, 128)[64][0, 0, Partition.NONE] for plane in (flat, busy)]
    assert none[0] > 0.3 > 0.05 > none[1]
    # 10 bits of the same picture are the same picture.
    ten = rule.predict(busy.astype(np.uint16) * 4, 10, 128)[64]
    assert (ten == rule.predict(busy, 8, 128)[64]).all()


def test_the_variance_rule_beats_the_prior_on_other_pictures(
    store: Store,
) -> None:
    nodes = store.nodes.filter((pl.col("sequence") != "chelsea") & (pl.col("size") == 16))
    others = store.nodes.filter(sequence="chelsea", size=16, qindex=128)
    plane = store.plane("chelsea")[0]
    losses = []
    for predictor in (ClassPrior.fit(store, nodes), VarianceRule.fit(store, nodes)):
        found = predictor.predict(plane, 8, 128)[16]
        own = found[others["row"] // 16, others["col"] // 16, others["partition"]]
        losses.append(-np.log(own).mean())
    assert losses[1] < losses[0]


def test_random_sets_have_the_sizes_that_were_asked_for() -> None:
    shares = ByQindex({(16, 80): np.array([0.5, 0.3, 0.2])})
    random = RandomSets(Domain(sizes=(16,)), shares)
    plane = np.random.default_rng(1).integers(0, 256, (1600, 1600), np.uint8)
    found = random.predict(plane, 8, 80)[16]
    counts = np.bincount((found > 0).sum(-1).ravel(), minlength=4)[1:4] / 10_000
    assert np.abs(counts - [0.5, 0.3, 0.2]).max() < 0.02
    assert np.abs((found > 0).mean((0, 1)) - 0.17).max() < 0.02, "no type is preferred"
    assert (found == random.predict(plane, 8, 80)[16]).all()


@pytest.mark.libaom
def test_the_oracle_answers_with_the_streams_types() -> None:
    source = open_source(DATA / "crops_72x56.y4m")
    planes = [luma for luma, _, _ in source.frames()]
    inspected = list(inspect_stream(find_inspect().path, DATA / "crops_72x56.ivf", Children()))
    trees = {
        (plane_sha256(plane), frame.qindex): partition_tree(frame.blocks)
        for plane, frame in zip(planes, inspected, strict=True)
    }
    oracle = Oracle(trees)
    found = oracle.predict(planes[1], 8, inspected[1].qindex)
    checked = 0
    for size, row, col, partition in trees[plane_sha256(planes[1]), inspected[1].qindex]:
        if size in SIZES and 72 // size and 56 // size:
            for r, c, type_ in zip(row, col, partition, strict=True):
                if r + size <= 56 and c + size <= 72:
                    probabilities = found[size][r // size, c // size]
                    assert probabilities.argmax() == type_
                    assert probabilities[Partition.NONE] == pytest.approx(
                        1 if type_ == Partition.NONE else 0.4
                    )
                    checked += 1
    assert checked > 30
    with pytest.raises(SourceError, match="no stream of this frame at qindex 7"):
        oracle.predict(planes[1], 8, 7)


def test_nothing_to_fit_on_is_refused(store: Store, nodes: pl.DataFrame) -> None:
    for kind in (ClassPrior, VarianceRule):
        with pytest.raises(StoreError, match="no nodes to fit"):
            kind.fit(store, nodes.clear())


def test_uniform_prefers_no_type() -> None:
    assert uniform(8, Domain()).tolist() == [0.25] * 4 + [0] * 6
    assert uniform(64, Domain(one_to_four=False)).tolist() == [0.125] * 8 + [0] * 2
