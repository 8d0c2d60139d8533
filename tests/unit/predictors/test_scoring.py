"""Predictors on labelled nodes: each node gets its own distribution, all predictors the same."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from av1part import embedded
from av1part.data.serve.datamodule import BlockDataModule
from av1part.data.store.schema import NODE_SCHEMA
from av1part.data.store.store import Store
from av1part.data.store.writer import StoreWriter
from av1part.evaluation.attach import DataSource
from av1part.metrics.class_weights import ClassWeights
from av1part.partition import IGNORED, SIZES, Partition
from av1part.predictors.bundle import Bundle, write_bundle
from av1part.predictors.bundle_stages import source_of
from av1part.predictors.fit import fit_bundle
from av1part.predictors.fitted import ClassPrior
from av1part.predictors.interface import TYPES, Distributions, Domain
from av1part.predictors.labelled import LabelledData
from av1part.predictors.named import NamedPredictor, open_predictor
from av1part.predictors.scoring import fit_weights, populations_of, score
from av1part.runs.compared_scores import scores_of
from av1part.system.errors import ConfigError, StoreError

from .small import save_stage, small_predictors, small_superblock

KINDS = ["superblock", "adapted", "cascade", "prior", "variance", "trees", "random"]
NONE, HORZ, SPLIT, AB = Partition.NONE, Partition.HORZ, Partition.SPLIT, Partition.HORZ_A
EMBEDDED = DataSource(None, None, str(embedded.SPLIT_LIST))


@dataclass
class Fake:
    """Gives each place of a size's map the distribution that it was told to."""

    answers: dict[tuple[int, int], NDArray[Any]]
    domain: Domain = field(default_factory=lambda: Domain(sizes=(16,)))
    name: str = "fake"
    asked: list[int] = field(default_factory=list)

    def predict(self, plane: NDArray[Any], bit_depth: int, qindex: int) -> Distributions:
        self.asked.append(qindex)
        height, width = plane.shape
        maps = {}
        for size in self.domain.sizes:
            found = np.full((height // size, width // size, TYPES), 1 / TYPES, np.float32)
            for place, distribution in self.answers.items():
                if place[0] < len(found) and place[1] < found.shape[1]:
                    found[place] = distribution
            maps[size] = found
        return maps


def distribution(**shares: float) -> NDArray[np.float32]:
    row = np.zeros(TYPES, np.float32)
    for name, share in shares.items():
        row[Partition[name]] = share
    return row


def named(name: str, predictor: Any, sources: Sequence[Any] = ()) -> NamedPredictor:
    return NamedPredictor(name, predictor, sources, {"kind": name})


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Two pictures, one wider than high, with five nodes of 16x16 at one qindex or two."""
    rows = [
        ("a", 0, 0, 48, 16, 80, NONE),
        ("a", 0, 16, 0, 16, 80, SPLIT),
        ("a", 0, 16, 0, 16, 200, AB),
        ("b", 0, 0, 0, 16, 80, HORZ),
        ("b", 0, 0, 16, 16, 80, Partition.HORZ_4),
        ("b", 0, 0, 0, 32, 80, SPLIT),
    ]
    writer = StoreWriter(tmp_path / "store", {"made": "by the tests"})
    writer.add_plane("a", np.zeros((1, 32, 64), np.uint8), 8)
    writer.add_plane("b", np.zeros((1, 32, 32), np.uint8), 8)
    nodes = pl.DataFrame(rows, schema=dict(NODE_SCHEMA), orient="row")
    return writer.finish(nodes, {s: {"bit_depth": 8} for s in "ab"}, {}).path


def test_each_node_has_the_distribution_at_its_place(store: Path) -> None:
    data = LabelledData(DataSource(str(store)), "all")
    answers = {
        (0, 3): distribution(NONE=0.5, SPLIT=0.5),
        (1, 0): distribution(SPLIT=0.75, HORZ_A=0.25),
        (0, 0): distribution(HORZ=0.125, VERT=0.875),
        (0, 1): distribution(HORZ_4=1.0),
    }
    predictor = Fake(answers)
    given = [named("fake", predictor)]
    populations = populations_of(given, data.type_counts())
    assert (list(populations), populations[16].nodes, populations[16].left_out) == ([16], 5, {})
    table = score(given, data, populations, progress=False).table
    assert predictor.asked == [80, 200, 80]  # once a view
    rows = {(r["picture"], r["qindex"]): r for r in table.iter_rows(named=True)}
    assert set(rows) == {("a", 80), ("a", 200), ("b", 80)}
    losses = {key: row["log_loss"] for key, row in rows.items()}
    assert losses == pytest.approx(
        {("a", 80): -math.log(0.5 * 0.75), ("a", 200): -math.log(0.25), ("b", 80): -math.log(0.125)}
    )
    assert {key: row["nodes"] for key, row in rows.items()} == {
        ("a", 80): 2,
        ("a", 200): 1,
        ("b", 80): 2,
    }
    # SPLIT and AB of the first picture, RECT of the second; 1:4 and NONE are no classes.
    assert rows["a", 80]["stage2_argmax"] == [1, 0, 0, 0, 0, 0, 0, 0, 0]
    assert rows["a", 200]["stage2_argmax"] == [0, 0, 0, 0, 0, 0, 1, 0, 0]
    assert rows["b", 80]["stage2_argmax"] == [0, 0, 0, 0, 1, 0, 0, 0, 0]
    assert rows["b", 80]["stage2_weighted"] is None
    record = scores_of(table, "fake")
    assert record["sizes"]["16"]["predictors"]["fake"]["scores"]["accuracy"]["estimate"] == 3 / 5
    assert record["sizes"]["16"]["types"] == dict.fromkeys(
        ("NONE", "HORZ", "SPLIT", "HORZ_A", "HORZ_4"), 1
    )
    assert record["stage2"]["predictors"]["fake"]["argmax"]["scores"]["accuracy"][
        "estimate"
    ] == pytest.approx(2 / 3)


def test_types_that_one_lacks_are_left_out_for_all(store: Path) -> None:
    data = LabelledData(DataSource(str(store)), "all")
    # What it says of HORZ_4 is left out: HORZ is 0.3 of 0.4.
    knows = Fake({(0, 0): distribution(HORZ=0.3, VERT=0.1, HORZ_4=0.6)})
    lacks = Fake({(0, 0): distribution(HORZ=1.0)}, Domain((16, 32), one_to_four=False))
    given = [named("knows", knows), named("lacks", lacks)]
    populations = populations_of(given, data.type_counts())
    assert populations[16].left_out == {"HORZ_4": 1}
    assert populations[16].lacking == ("lacks",)
    assert populations[16].nodes == 4
    table = score(given, data, populations, progress=False).table
    in_b = table.filter(picture="b", size=16)
    assert in_b["predictor"].to_list() == ["knows", "lacks"]
    assert in_b["nodes"].to_list() == [1, 1]
    assert in_b["log_loss"].to_list() == pytest.approx([-math.log(0.75), 0.0], abs=1e-6)
    assert in_b["removed"].to_list() == pytest.approx([0.6, 0.0])
    # Only one has nodes of 32x32, which are scored for it alone.
    assert table.filter(size=32)["predictor"].to_list() == ["lacks"]
    record = scores_of(table, "knows")
    assert "difference" not in record["sizes"]["32"]["predictors"]["lacks"]
    assert "difference" in record["sizes"]["16"]["predictors"]["lacks"]


def test_nothing_in_common_is_refused(store: Path) -> None:
    data = LabelledData(DataSource(str(store)), "all")
    with pytest.raises(StoreError, match="no predictor has a node size"):
        populations_of([named("x", Fake({}, Domain((8,))))], data.type_counts())
    only = {16: np.bincount([Partition.VERT_4], minlength=TYPES)}
    poor = Domain((16,), one_to_four=False)
    with pytest.raises(StoreError, match="a type that x or y does not know"):
        populations_of([named(n, Fake({}, poor)) for n in "xy"], only)


def test_weights_move_the_decision_of_stage_2(store: Path) -> None:
    data = LabelledData(DataSource(str(store)), "all")
    given = [named("fake", Fake({(1, 0): distribution(SPLIT=0.75, HORZ_A=0.25)}))]
    populations = populations_of(given, data.type_counts())
    weights = {"fake": ClassWeights((1.0, 1.0, 4.0), 1.0, 1.0)}
    table = score(given, data, populations, weights, progress=False).table
    row = table.filter(picture="a", qindex=200).row(0, named=True)
    assert row["stage2_argmax"] == [0, 0, 0, 0, 0, 0, 1, 0, 0]
    assert row["stage2_weighted"] == [0, 0, 0, 0, 0, 0, 0, 0, 1]


def test_weights_are_fitted_for_each_predictor_that_has_the_size(store: Path) -> None:
    data = LabelledData(DataSource(str(store)), "all")
    flat = distribution(SPLIT=0.5, HORZ=0.375, HORZ_A=0.125)
    answers = dict.fromkeys(((0, 0), (1, 0)), flat)
    given = [named("fake", Fake(answers)), named("other", Fake({}, Domain((32,))))]
    found = fit_weights(given, data, progress=False)
    assert list(found) == ["fake"]
    # One node of each class, with one distribution: whatever is answered, a third is right.
    assert found["fake"].macro_f1 == found["fake"].macro_f1_argmax == pytest.approx(1 / 2 / 3)


def test_a_split_has_the_nodes_of_the_data_module() -> None:
    data = LabelledData(EMBEDDED, "val")
    types = data.type_counts()
    assert set(types) == set(SIZES)
    for size in SIZES:
        module = BlockDataModule(size=size, split_list=embedded.SPLIT_LIST)
        nodes = module.reader("val").nodes
        partition = module.store.nodes["partition"].to_numpy()[nodes]
        assert types[size].tolist() == np.bincount(partition, minlength=TYPES).tolist()
    shown = [(view.types[size] != IGNORED).sum() for view in data for size in SIZES]
    assert sum(shown) == sum(count.sum() for count in types.values())
    test = LabelledData(EMBEDDED, "test")
    assert not data.shares_nodes(test)
    assert data.shares_nodes(LabelledData(DataSource(), "all"))


def test_what_a_predictor_was_trained_on_is_not_scored() -> None:
    bundle = fit_bundle("prior", EMBEDDED)
    assert isinstance(bundle.predictor, ClassPrior)
    LabelledData(EMBEDDED, "val").check_unseen("p", bundle.sources)
    other = LabelledData(DataSource(str(embedded.STORE), "by_sequence"), "val")
    with pytest.raises(StoreError, match=r"another split of .*data\.split_list"):
        other.check_unseen("p", bundle.sources)
    with pytest.raises(StoreError, match=r"p was trained on a part of .*split=val"):
        LabelledData(DataSource(), "all").check_unseen("p", bundle.sources)
    network = source_of(small_superblock().module)
    LabelledData(EMBEDDED, "val").check_unseen("net", [network])
    with pytest.raises(StoreError, match="another split"):
        other.check_unseen("net", [network])
    elsewhere = [{**source, "manifest_sha256": "0" * 64} for source in bundle.sources]
    LabelledData(DataSource(), "all").check_unseen("p", elsewhere)


def test_a_split_without_nodes_is_refused(small_store: Path, tmp_path: Path) -> None:
    names = Store.open(small_store).sequences
    listed = tmp_path / "list.csv"
    listed.write_text("sequence,split\n" + "".join(f"{name},train\n" for name in names))
    with pytest.raises(StoreError, match="no nodes in the val split"):
        LabelledData(DataSource(str(small_store), "by_sequence", str(listed)), "val")


def test_every_kind_of_bundle_is_scored(small_store: Path, store_8x8: Path, tmp_path: Path) -> None:
    given = []
    for kind, predictor in small_predictors(small_store, store_8x8).items():
        file = write_bundle(tmp_path / f"{kind}.av1part", Bundle(predictor))
        given.append(open_predictor(file))
    assert [predictor.name for predictor in given] == KINDS
    data = LabelledData(DataSource(str(small_store)), "all")
    populations = populations_of(given, data.type_counts())
    table = score(given, data, populations, progress=False).table
    nodes = table.group_by("predictor", maintain_order=True).agg(pl.col("nodes").sum())
    assert nodes["predictor"].to_list() == KINDS
    assert set(nodes["nodes"]) == {data.store.nodes.height}
    losses = scores_of(table, "prior")["sizes"]["16"]["predictors"]
    assert all(0 < own["scores"]["log_loss"]["estimate"] < 30 for own in losses.values())
    # The prior was fitted on these very nodes, so that nothing constant by qindex is better.
    prior = losses["prior"]["scores"]["log_loss"]["estimate"]
    assert losses["random"]["scores"]["log_loss"]["estimate"] > prior


def test_a_predictor_is_named_by_its_file_or_its_run(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "mine" / "checkpoints"
    folder.mkdir(parents=True)
    checkpoint = save_stage(small_superblock().module, folder / "best.ckpt")
    opened = open_predictor(checkpoint, calibration="none")
    assert (opened.name, opened.predictor.name) == ("mine", "superblock")
    assert opened.sources[0]["manifest_sha256"] == Store.open(embedded.STORE).manifest_sha256
    assert open_predictor(checkpoint, "net", calibration="none").name == "net"
    for name in ("", "a\nb", "x" * 61):
        with pytest.raises(ConfigError, match="is no name for a predictor"):
            open_predictor(checkpoint, name, calibration="none")


def test_frames_and_sequences_of_one_clip_are_one_picture(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path / "store", {"made": "by the tests"})
    for name in ("a", "b", "c"):
        writer.add_plane(name, np.zeros((2, 16, 16), np.uint8), 8)
    rows = [(name, frame, 0, 0, 16, 80, NONE) for name in "abc" for frame in (0, 1)]
    nodes = pl.DataFrame(rows, schema=dict(NODE_SCHEMA), orient="row")
    groups = {"a": "clip", "b": "clip", "c": "c"}
    facts = {name: {"bit_depth": 8, "group": group} for name, group in groups.items()}
    data = LabelledData(DataSource(str(writer.finish(nodes, facts, {}).path)), "all")
    assert (len(data), data.facts()["pictures"]) == (6, 2)
    given = [named("fake", Fake({(0, 0): distribution(NONE=0.5, SPLIT=0.5)}))]
    populations = populations_of(given, data.type_counts())
    table = score(given, data, populations, progress=False).table
    assert dict(table.select("picture", "nodes").iter_rows()) == {"clip": 4, "c": 2}
    assert table["log_loss"].to_list() == pytest.approx([-4 * math.log(0.5), -2 * math.log(0.5)])
