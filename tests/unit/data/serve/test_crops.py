"""Crops and label maps are those of a store that is read node by node, under every symmetry."""

from __future__ import annotations

import tempfile
from itertools import islice
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from av1part.data.serve.crops import CropReader, Views, node_key, partition_key, weight_key
from av1part.data.serve.datamodule import BlockDataModule
from av1part.data.serve.device import DeviceCrops
from av1part.data.serve.superblocks import SuperblockDataModule
from av1part.data.store.schema import NODE_SCHEMA
from av1part.data.store.store import Store
from av1part.data.store.writer import StoreWriter
from av1part.partition import SIZES, SYMMETRIES, Partition, legal_partitions
from av1part.system.errors import ConfigError, StoreError


def random_store(out: Path, shapes: list[tuple[int, int, int]], depth: int, seed: int) -> Store:
    """Noise, and at every size some of the nodes, of random types, at two qindexes."""
    rng, rows = np.random.default_rng(seed), []
    writer = StoreWriter(out, {"made": "by the tests"})
    for number, (frames, height, width) in enumerate(shapes):
        plane = rng.integers(0, 1 << depth, (frames, height, width))
        writer.add_plane(f"s{number}", plane.astype(np.uint8 if depth == 8 else np.uint16), depth)
        rows += [
            (f"s{number}", frame, row, col, size, qindex, int(rng.choice(legal_partitions(size))))
            for frame in range(frames)
            for qindex in (80, 172)
            for size in SIZES
            for row in range(0, height - size + 1, size)
            for col in range(0, width - size + 1, size)
            if rng.random() < 0.6
        ]
    rows = [rows[i] for i in rng.permutation(len(rows))]
    nodes = pl.DataFrame(rows, schema=NODE_SCHEMA, orient="row")
    return writer.finish(nodes, {f"s{n}": {"bit_depth": depth} for n in range(len(shapes))}, {})


def all_views(store: Store) -> Views:
    sizes = store.nodes["size"].to_numpy()
    nodes = {size: np.flatnonzero(sizes == size) for size in SIZES}
    # A node's weight is its number and a half, which tells it from all others.
    return Views(
        store, nodes, weights={n: (own + 0.5).astype(np.float32) for n, own in nodes.items()}
    )


@settings(deadline=None, max_examples=25)
@given(
    shapes=st.lists(
        st.tuples(st.integers(1, 2), st.integers(16, 150), st.integers(16, 150)),
        min_size=1,
        max_size=2,
    ),
    side=st.sampled_from([64, 128]),
    depth=st.sampled_from([8, 10]),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_a_crop_is_what_its_nodes_say(
    shapes: list[tuple[int, int, int]], side: int, depth: int, seed: int, data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = random_store(Path(folder) / "store", shapes, depth, seed)
        views = all_views(store)
        view = data.draw(st.integers(0, len(views) - 1))
        row = 64 * data.draw(st.integers(0, int(views.height[view] - 1) // 64))
        col = 64 * data.draw(st.integers(0, int(views.width[view] - 1) // 64))
        places = np.array([(view, row, col, turned, 0) for turned in range(len(SYMMETRIES))])
        batch = CropReader(views, side)[places]
        sequence = store.sequences[views.sequence[view]]
        frame, qindex = int(views.frame[view]), int(views.qindex[view])
        plane = store.plane(sequence)[frame].astype(np.int64)
        padded = np.pad(plane, ((0, 192), (0, 192)), "edge")[row : row + side, col : col + side]
        nodes = store.nodes.with_row_index("node").filter(
            sequence=sequence, frame=frame, qindex=qindex
        )
        assert (batch["qindex"] == qindex).all()
        for turned, symmetry in enumerate(SYMMETRIES):
            # Pixel by pixel and node by node: where does the symmetry take each?
            block = batch["block"][turned, 0].numpy()
            for i, j in data.draw(
                st.lists(st.tuples(st.integers(0, side - 1), st.integers(0, side - 1)), max_size=5)
            ):
                to = moved(symmetry, i, j, 1, side)
                assert block[to] == padded[i, j]
            expected = {size: np.full((side // size,) * 2, -1) for size in SIZES}
            weights = {size: np.full((side // size,) * 2, -1.0) for size in SIZES}
            columns = nodes.select("row", "col", "size", "partition", "node")
            for r, c, size, type_, node in columns.iter_rows():
                inside = row <= r and r + size <= row + side and col <= c and c + size <= col + side
                if inside:
                    y, x = moved(symmetry, r - row, c - col, size, side)
                    turned_type = symmetry.partition(Partition(type_))
                    expected[size][y // size, x // size] = turned_type
                    weights[size][y // size, x // size] = node + 0.5
            for size in SIZES:
                np.testing.assert_array_equal(batch[partition_key(size)][turned], expected[size])
                np.testing.assert_array_equal(batch[weight_key(size)][turned], weights[size])


def moved(symmetry: object, row: int, col: int, size: int, side: int) -> tuple[int, int]:
    """Return the upper left corner of a square after a symmetry of the crop around it."""
    s = symmetry
    if s.transpose:  # type: ignore[attr-defined]
        row, col = col, row
    if s.top_bottom:  # type: ignore[attr-defined]
        row = side - row - size
    if s.left_right:  # type: ignore[attr-defined]
        col = side - col - size
    return row, col


def test_whole_frames_hold_every_node_once(one_to_four_store: Path) -> None:
    data = SuperblockDataModule(one_to_four_store, taxonomy="v6_1to4")
    data.setup()
    nodes, found = data.store.nodes, []
    for split in ("train", "val", "test"):
        for batch in data.batches(split):
            for size in SIZES:
                node, types = batch[node_key(size)], batch[partition_key(size)]
                kept = node >= 0
                assert torch.equal(kept, types >= 0)
                rows = nodes[node[kept].numpy()]
                assert (rows["size"] == size).all()
                assert (rows["qindex"] == int(batch["qindex"])).all()
                np.testing.assert_array_equal(rows["partition"], types[kept])
                _, r, c = torch.nonzero(kept, as_tuple=True)
                np.testing.assert_array_equal(rows["row"], size * r)
                np.testing.assert_array_equal(rows["col"], size * c)
                found.append(node[kept])
    assert torch.cat(found).sort().values.tolist() == list(range(nodes.height))


@pytest.mark.parametrize("protocol", ["by_sequence", "by_segment", "random_blocks"])
def test_nodes_are_split_as_those_of_blocks(protocol: str, one_to_four_store: Path) -> None:
    options = {"taxonomy": "v6_1to4", "protocol": protocol}
    data = SuperblockDataModule(one_to_four_store, **options)
    data.setup()
    for size in SIZES:
        alone = BlockDataModule(one_to_four_store, stage="stage1", size=size, **options)
        alone.setup()
        for split in ("train", "val", "test"):
            own = data._views[split].nodes[size]
            np.testing.assert_array_equal(own, alone.readers[split].nodes)


def test_bands_of_a_frame_do_not_show_each_other() -> None:
    data = SuperblockDataModule(protocol="by_segment")
    for split in ("train", "val"):
        for batch in islice(data.batches(split), 5):
            node = torch.cat([batch[node_key(s)].flatten() for s in SIZES])
            table = data.store.nodes[node[node >= 0].numpy()]
            plane = data.store.plane(table["sequence"][0])[0]
            first, last = table["row"].min(), (table["row"] + table["size"]).max()
            shown = plane[first:last].astype(int)
            block = batch["block"][0, 0].numpy().astype(int)
            above = first - first // 64 * 64
            np.testing.assert_array_equal(block[above:], shown)
            assert (block[:above] == shown[0]).all()


def test_an_epochs_crops_are_a_function_of_seed_and_epoch(one_to_four_store: Path) -> None:
    data = SuperblockDataModule(
        one_to_four_store, taxonomy="v6_1to4", crop=64, augment="symmetries", batch_size=4
    )
    data.setup()
    places, index = data._places, np.arange(data.training_blocks)
    first, again, other = places(index, 0), places(index[::-1].copy(), 0)[::-1], places(index, 1)
    np.testing.assert_array_equal(first, again)
    assert (first[:, 1:] != other[:, 1:]).any()
    assert set(first[:, 3]) == set(range(8))
    # 160 samples a side: a crop may begin at 0, 64 or 128, and reach over the edge.
    for axis in (1, 2):
        assert set(first[:, axis]) == {0, 64, 128}
    assert data.training_blocks == 6 * len(data.views("train"))
    one, two = (list(data._loader("train", training=True, rank=0, ranks=1)) for _ in range(2))
    for mine, theirs in zip(one, two, strict=True):
        assert all(torch.equal(mine[key], theirs[key]) for key in mine)
    assert sum(len(batch["qindex"]) for batch in one) == data.training_blocks


def test_levels_change_the_luma_of_crops_and_nothing_else(one_to_four_store: Path) -> None:
    served = []
    for levels in (False, True):
        data = SuperblockDataModule(
            one_to_four_store, taxonomy="v6_1to4", crop=128, augment="symmetries", levels=levels
        )
        data.setup()
        batches = list(data._loader("train", training=True, rank=0, ranks=1))
        served.append({key: torch.cat([b[key] for b in batches]) for key in batches[0]})
        val = list(data._loader("val", training=False, rank=0, ranks=1))
        served[-1]["val"] = val[0]["block"]
    plain, changed = served
    assert [key for key in plain if not torch.equal(plain[key], changed[key])] == ["block"]
    same, negated, shifts = 0, 0, set()
    for before, after in zip(plain["block"].int(), changed["block"].int(), strict=True):
        shift, mirror = after - before, after + before
        if (shift == shift.flatten()[0]).all():
            same += 1
            shifts.add(int(shift.flatten()[0]))
        negated += bool((mirror == mirror.flatten()[0]).all())
    assert same + negated >= len(plain["block"])
    assert min(same, negated) > len(plain["block"]) / 4
    assert len(shifts) > same / 4, "luma is shifted too, each crop by its own"


def test_workers_serve_the_same_crops(one_to_four_store: Path) -> None:
    served = []
    for workers in (0, 2):
        data = SuperblockDataModule(
            one_to_four_store, taxonomy="v6_1to4", crop=128, num_workers=workers, seed=5
        )
        served.append(list(data.train_dataloader()))
    for one, two in zip(*served, strict=True):
        assert one.keys() == two.keys()
        assert all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize("levels", [False, True])
@pytest.mark.parametrize("depth", [8, 10])
def test_crops_cut_on_a_device_are_the_same(depth: int, levels: bool, tmp_path: Path) -> None:
    store = random_store(tmp_path / "store", [(2, 150, 90), (1, 64, 200)], depth, seed=3)
    reader = CropReader(all_views(store), 64, levels=levels)
    rng = np.random.default_rng(1)
    view = rng.integers(0, len(reader), 64)
    rows, cols = (
        64 * rng.integers(0, n[view] // 64 + 1) for n in (reader.views.height, reader.views.width)
    )
    turned, level = rng.integers(0, 8, 64), rng.integers(0, 1 << 16, 64)
    index = np.stack([view, rows, cols, turned, level], axis=1)
    cut = DeviceCrops(reader, torch.device("cpu"))(torch.from_numpy(index))
    assert torch.equal(cut, reader[index]["block"])
    without = CropReader(reader.views, 64, pixels=False)[index]
    assert "block" not in without
    assert torch.equal(without["position"], torch.from_numpy(index))


@pytest.mark.parametrize("crop", [0, 100, 1 << 13])
def test_crops_are_of_whole_superblocks(crop: int) -> None:
    with pytest.raises(ConfigError, match=r"data\.crop must be a multiple of 64"):
        SuperblockDataModule(crop=crop)


def test_nodes_off_the_grid_are_refused(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path / "store", {"made": "by the tests"})
    writer.add_plane("s", np.zeros((1, 64, 64), np.uint8), 8)
    row = [("s", 0, 8, 0, 16, 80, 0)]
    nodes = pl.DataFrame(row, schema=NODE_SCHEMA, orient="row")
    store = writer.finish(nodes, {"s": {"bit_depth": 8}}, {})
    with pytest.raises(StoreError, match="not at multiples of their size"):
        all_views(store)


def test_a_checkpoint_records_what_was_trained_on(one_to_four_store: Path) -> None:
    data = SuperblockDataModule(one_to_four_store, taxonomy="v6_1to4")
    facts = data.facts()
    train = data.views("train").nodes
    types = data.store.nodes["partition"].to_numpy()
    for size in SIZES:
        counts = np.bincount(types[train[size]], minlength=10)
        assert facts["counts_by_size"][str(size)] == counts.tolist()
    assert facts["class_counts"] == facts["counts_by_size"]["16"]
    assert (facts["size"], facts["context"], facts["crop"]) == (16, 0, 256)
