"""Splits: disjoint, complete, by sequence, along time, in bands; refused where they cannot be."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from av1part.data.store.splits import (
    OUTSIDE,
    SPLITS,
    Division,
    check_protocol,
    read_split_list,
    segments,
)
from av1part.system.errors import StoreError


def grid(sequences: int, frames: int = 1, side: int = 320) -> tuple[pl.DataFrame, dict]:
    shapes = {f"s{i}": (frames, side, side) for i in range(sequences)}
    rows = [
        (s, f, r, c, 16)
        for s in shapes
        for f in range(frames)
        for r in range(0, side, 16)
        for c in range(0, side, 64)
    ]
    columns = ["sequence", "frame", "row", "col", "size"]
    return pl.DataFrame(rows, schema=columns, orient="row"), shapes


@pytest.mark.parametrize("count", [3, 4, 7, 20])
def test_by_sequence_keeps_sequences_whole(count: int) -> None:
    nodes, shapes = grid(count)
    split = Division(shapes, protocol="by_sequence", seed=1).assign(nodes)
    table = (
        nodes.with_columns(split=pl.Series(split))
        .group_by("sequence")
        .agg(pl.col("split").unique())
    )
    assert all(len(s) == 1 for s in table["split"])
    assert set(split) == {0, 1, 2}
    held = max(1, round(0.15 * count))
    assert [len(set(nodes["sequence"].filter(pl.Series(split == i)))) for i in (1, 2)] == [held] * 2


def test_by_sequence_depends_on_the_seed_alone() -> None:
    nodes, shapes = grid(12)
    first, again, other = (
        Division(shapes, protocol="by_sequence", seed=s).assign(nodes) for s in (1, 1, 2)
    )
    assert (first == again).all()
    assert (first != other).any()


def test_too_few_sequences_name_the_way_out() -> None:
    nodes, shapes = grid(2)
    with pytest.raises(StoreError, match="by_segment"):
        Division(shapes, protocol="by_sequence").assign(nodes)


@pytest.mark.parametrize("protocol", ["by_sequence", "by_segment", "given", "random_blocks"])
def test_a_division_is_the_same_at_every_size_and_another_for_another_split(protocol: str) -> None:
    _, shapes = grid(12)
    listed = {name: SPLITS[number % 3] for number, name in enumerate(shapes)}
    ways: list[dict] = [{}, {"seed": 1}, {"listed": listed}]
    if protocol == "given":
        ways = [{"listed": listed}, {"listed": {**listed, "s0": "val"}}]
    of_each = [
        [Division(shapes, protocol=protocol, **way).sha256(size) for size in (8, 16, 64)]
        for way in ways
    ]
    if protocol == "random_blocks":
        assert len({*of_each[0], *of_each[1]}) == 6, "it knows no places"
        return
    assert all(len(set(sizes)) == 1 for sizes in of_each)
    others = 1 if protocol == "by_segment" else len(ways)
    assert len({sizes[0] for sizes in of_each}) == others


def test_a_list_is_followed_and_must_fit() -> None:
    nodes, shapes = grid(3)
    listed = {"s0": "test", "s1": "train", "s2": "val"}
    split = Division(shapes, protocol="by_sequence", listed=listed).assign(nodes)
    got = dict(zip(nodes["sequence"], split, strict=True))
    assert {s: SPLITS[i] for s, i in got.items()} == listed
    with pytest.raises(StoreError, match=r"dataset: it lacks 's2' of the dataset$"):
        Division(shapes, protocol="by_sequence", listed={"s0": "val", "s1": "train"}).assign(nodes)
    names = r"dataset: it names 's9', which the dataset has not$"
    with pytest.raises(StoreError, match=names):
        Division(shapes, protocol="given", listed={**listed, "s9": "val"}).assign(nodes)
    many = {f"t{i}": "val" for i in range(8)}
    with pytest.raises(StoreError, match="'t0', 't1', 't2', 't3', 't4' and 3 more, which"):
        Division(shapes, protocol="given", listed={**listed, **many}).assign(nodes)
    with pytest.raises(StoreError, match="brings no split"):
        Division(shapes, protocol="given").assign(nodes)


def test_a_group_is_never_parted() -> None:
    """Block sizes of one clip are sequences of their own, and one group."""
    nodes, shapes = grid(12)
    groups = {name: f"clip{int(name[1:]) // 3}" for name in shapes}
    for seed in range(20):
        split = Division(shapes, protocol="by_sequence", seed=seed, groups=groups).assign(nodes)
        where = dict(zip(nodes["sequence"], split.tolist(), strict=True))
        parts = {
            group: {where[s] for s in shapes if groups[s] == group} for group in groups.values()
        }
        assert all(len(part) == 1 for part in parts.values())
        assert set(split) == {0, 1, 2}
    alone = dict(zip(shapes, shapes, strict=True))
    assert (
        Division(shapes, protocol="by_sequence", groups=alone).assign(nodes)
        == Division(shapes, protocol="by_sequence").assign(nodes)
    ).all()
    groups = {name: f"clip{int(name[1:]) // 6}" for name in shapes}
    with pytest.raises(StoreError, match="this dataset has 2"):
        Division(shapes, protocol="by_sequence", groups=groups).assign(nodes)


def test_a_list_that_parts_a_group_is_refused() -> None:
    nodes, shapes = grid(4)
    groups = {"s0": "a", "s1": "a", "s2": "b", "s3": "c"}
    listed = {"s0": "train", "s1": "train", "s2": "val", "s3": "test"}
    Division(shapes, protocol="by_sequence", listed=listed, groups=groups).assign(nodes)
    listed["s1"] = "val"
    with pytest.raises(StoreError, match="s0 into train and s1 into val, which show the same a"):
        Division(shapes, protocol="by_sequence", listed=listed, groups=groups).assign(nodes)
    Division(shapes, protocol="given", listed=listed, groups=groups).assign(nodes)


def test_a_dataset_may_offer_few_protocols() -> None:
    check_protocol("by_sequence", None, "d")
    check_protocol("given", ["given", "random_blocks"], "d")
    with pytest.raises(
        StoreError, match=r"data\.protocol=by_segment does not apply.*data\.protocol=given"
    ):
        check_protocol("by_segment", ["given", "random_blocks"], "d")


def test_random_blocks_is_the_studys_protocol() -> None:
    nodes, shapes = grid(2)
    split = Division(shapes, protocol="random_blocks", seed=42).assign(nodes)
    assert np.bincount(split).tolist() == [round(0.8 * len(split)), round(0.2 * len(split))]
    frames = (
        nodes.with_columns(split=pl.Series(split))
        .group_by("sequence")
        .agg(pl.col("split").n_unique())
    )
    assert frames["split"].to_list() == [2, 2]  # the leak it is kept to show


@pytest.mark.parametrize("frames", [1, 3, 5, 12, 300])
def test_by_segment_leaves_a_gap(frames: int) -> None:
    nodes, shapes = grid(2, frames)
    split = Division(shapes, protocol="by_segment").assign(nodes)
    assert set(split) == {0, 1, 2, OUTSIDE}
    along, ends = ("frame", 1) if frames >= 5 else ("row", 16)
    for name in shapes:
        mine = (nodes["sequence"] == name).to_numpy()
        at = nodes[along].to_numpy()
        reach = [(at[mine & (split == i)].min(), at[mine & (split == i)].max()) for i in range(3)]
        for before, after in pairwise(reach):
            assert after[0] > before[1] + ends - (along == "row")
            assert after[0] - before[1] - ends >= (1 if along == "frame" else 16)


def test_by_segment_cuts_each_sequence_by_its_own_length() -> None:
    still, video = grid(1)[0], grid(1, 12, side=160)[0].with_columns(sequence=pl.lit("video"))
    nodes = pl.concat([video, still]).sample(fraction=1, shuffle=True, seed=1)
    shapes = {"s0": (1, 320, 320), "video": (12, 160, 160)}
    together = Division(shapes, protocol="by_segment").assign(nodes)
    for name, shape in shapes.items():
        mine = (nodes["sequence"] == name).to_numpy()
        alone = Division({name: shape}, protocol="by_segment").assign(nodes.filter(mine))
        assert together[mine].tolist() == alone.tolist()
        along = nodes["frame" if name == "video" else "row"].to_numpy()[mine]
        for index, (start, stop) in enumerate(
            segments(12, 1) if name == "video" else segments(320, 20)
        ):
            inside = along[alone == index]
            assert inside.min() >= start
            assert inside.max() < stop


@given(st.integers(5, 5000), st.integers(1, 64))
def test_segments_are_in_order_with_gaps(length: int, gap: int) -> None:
    if length - 2 * gap < 3:
        return
    (a, b), (c, d), (e, f) = segments(length, gap)
    assert a == 0
    assert f == length
    assert b < c < d < e < f
    assert c - b == e - d == gap


def test_split_lists_are_read_strictly(tmp_path: Path) -> None:
    file = tmp_path / "split.csv"
    with pytest.raises(StoreError, match="cannot be read"):
        read_split_list(file)
    for text in ("sequence,split\na,training\n", "name,split\na,val\n", "sequence,split\na\n"):
        file.write_text(text)
        with pytest.raises(StoreError, match=r"train\|val\|test"):
            read_split_list(file)
    file.write_text("sequence,split\na,val\na,test\n")
    with pytest.raises(StoreError, match="twice"):
        read_split_list(file)
    file.write_text("sequence,split\na,val\nb,test\n")
    assert read_split_list(file) == {"a": "val", "b": "test"}


@pytest.mark.parametrize("name", ["/dev/zero", "", "a\0b", "long.csv", "latin.csv"])
def test_split_lists_that_cannot_be_read_are_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "long.csv").write_text('sequence,split\n"' + "x" * 200_000)
    (tmp_path / "latin.csv").write_bytes(b"sequence,split\n\xe9,val\n")
    with pytest.raises(StoreError, match=r"cannot be read|is not a file") as caught:
        read_split_list(tmp_path / name)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "content",
    [
        "\ufeffsequence,split\r\ngröße,val\r\nb,test\r\n".encode(),
        "\ufeffsequence;split\r\ngröße;val\r\nb;test\r\n".encode(),
        "sequence\tsplit\ngröße\tval\nb\ttest".encode(),
        '\n"sequence","split"\n\n"größe" , val \nb,test,,\n,,\n'.encode(),
        "sequence,split\rgröße,val\rb,test\r".encode(),
    ],
)
def test_split_lists_as_spreadsheets_write_them(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "\ufefflist.csv"
    file.write_bytes(content)
    assert read_split_list(file) == {"größe": "val", "b": "test"}


@pytest.mark.parametrize("encoding", ["utf-16", "cp1252"])
def test_split_lists_in_other_encodings_are_refused(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "list.csv").write_bytes("sequence,split\ngröße,val\n".encode(encoding))
    with pytest.raises(StoreError, match="save it as CSV in UTF-8"):
        read_split_list(tmp_path / "list.csv")
