"""Partition frames: what was only visited goes, the tree comes back, contradictions are named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from av1part.data.legacy.importer import import_dataset
from av1part.data.legacy.partition_frames import judge_nodes
from av1part.data.store.store import Store
from av1part.partition import Partition, legal_partitions
from av1part.system.errors import ConfigError, SourceError
from av1part.system.files import sha256_file

from .writers import BLOCK_SIZE, NODE, frame_lines, in_tree, write_yuv

SIDE, QINDEX = 160, 128
COLUMNS = ["size", "row", "col", "partition", "qindex"]


def visited(nodes: pl.DataFrame) -> pl.DataFrame:
    """Return children, all SPLIT, and grandchildren, all NONE, of nodes that are not SPLIT."""
    extra = []
    for size, row, col, partition, qindex in nodes.select(COLUMNS).iter_rows():
        if partition != Partition.SPLIT and size >= 32:
            half, quarter = size // 2, size // 4
            extra += [(half, row + r, col + c, 3, qindex) for r in (0, half) for c in (0, half)]
            extra += [
                (quarter, row + r, col + c, 0, qindex)
                for r in range(0, size, quarter)
                for c in range(0, size, quarter)
            ]
    return pl.DataFrame(extra, schema=nodes.select(COLUMNS).schema, orient="row")


@pytest.fixture
def frames(ten_bit_store: Store) -> list[pl.DataFrame]:
    """Nodes of one frame each, from one picture each, at one qindex."""
    nodes = ten_bit_store.nodes.filter(qindex=QINDEX)
    return [nodes.filter(sequence=s).with_columns(frame=pl.lit(0)) for s in ten_bit_store.sequences]


@pytest.fixture
def folder(ten_bit_store: Store, frames: list[pl.DataFrame], tmp_path: Path) -> Path:
    """A clip of three frames; text files of the first and the last, in another order."""
    folder = tmp_path / "clip"
    folder.mkdir()
    luma = np.concatenate([ten_bit_store.plane(s) for s in ten_bit_store.sequences])
    write_yuv(folder / f"a clip_{SIDE}x{SIDE}.yuv", luma)
    for number in (0, 2):
        nodes = frames[number].select(COLUMNS)
        lines = frame_lines(
            pl.concat([visited(nodes), nodes.sample(fraction=1, shuffle=True, seed=1)])
        )
        (folder / f"partition_frame_{number}.txt").write_text("\n".join(lines) + "\n")
    return folder


def test_the_tree_comes_back_and_what_was_visited_goes(
    ten_bit_store: Store, frames: list[pl.DataFrame], folder: Path, tmp_path: Path
) -> None:
    shutil.copy(folder / "partition_frame_0.txt", folder / "notes.txt")
    store = import_dataset("partition-frames", folder, tmp_path / "out")
    name = f"a_clip_{SIDE}x{SIDE}"
    assert store.sequences == (name,)
    names = ten_bit_store.sequences
    assert np.array_equal(store.plane(name)[0], ten_bit_store.plane(names[0])[0])
    assert np.array_equal(store.plane(name)[1], ten_bit_store.plane(names[2])[0])
    wanted = pl.concat([frames[0], frames[2].with_columns(frame=pl.lit(1))])
    assert set(wanted["size"]) == {8, 16, 32, 64}
    key = [c for c in NODE if c != "partition"]
    assert store.nodes.select(NODE).equals(
        wanted.select(pl.col(c).cast(store.nodes.schema[c]) for c in NODE).sort(key)
    )
    gone = sum(visited(frames[n].select(COLUMNS)).height for n in (0, 2))
    assert gone > 100
    assert store.manifest["left_out"] == {"parent_not_split": gone, "other_files": 1}
    facts = store.manifest["sequences"][name]
    assert facts["source_frames_kept"] == [0, 2]
    assert facts["bit_depth"] == 10
    assert facts["source_sha256"] == sha256_file(folder / f"a clip_{SIDE}x{SIDE}.yuv")
    text = folder / "partition_frame_2.txt"
    assert facts["label_files"][text.name] == sha256_file(text)
    # 160 = 2.5 x 64: four whole superblocks, and 32x32 nodes at the edge whose parent reaches over.
    assert facts["roots"]["64"] == 8
    assert facts["roots"]["32"] > 0


def test_some_sizes_only_are_cut_from_the_whole_tree(
    frames: list[pl.DataFrame], folder: Path, tmp_path: Path
) -> None:
    store = import_dataset("partition-frames", folder, tmp_path / "out", sizes=[16])
    nodes = pl.concat([frames[0], frames[2]])
    assert store.nodes.height == nodes.filter(size=16).height
    assert store.manifest["left_out"]["other_size"] == nodes.filter(pl.col("size") != 16).height


def test_several_clips_of_a_folder_are_several_sequences(folder: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        shutil.copytree(folder, tmp_path / "clips" / name)
        clip = tmp_path / "clips" / name / f"a clip_{SIDE}x{SIDE}.yuv"
        clip.rename(clip.with_name(f"{name}_{SIDE}x{SIDE}.yuv"))
    (tmp_path / "clips" / "empty").mkdir()
    store = import_dataset("partition-frames", tmp_path / "clips", tmp_path / "out")
    assert store.sequences == (f"one_{SIDE}x{SIDE}", f"two_{SIDE}x{SIDE}")
    with pytest.raises(ConfigError, match="yuv= names one clip"):
        import_dataset("partition-frames", tmp_path / "clips", tmp_path / "o", yuv=folder / "x.yuv")


def test_the_clip_may_be_named_and_described(folder: Path, tmp_path: Path) -> None:
    (clip,) = folder.glob("*.yuv")
    clip = clip.rename(tmp_path / "elsewhere.yuv")
    with pytest.raises(SourceError, match=r"holds 0 \.yuv files: name the clip with yuv="):
        import_dataset("partition-frames", folder, tmp_path / "out")
    with pytest.raises(SourceError, match="does not say its size: give width="):
        import_dataset("partition-frames", folder, tmp_path / "out", yuv=clip)
    said = {"width": SIDE, "height": SIDE}
    store = import_dataset("partition-frames", folder, tmp_path / "out", yuv=clip, **said)
    assert store.sequences == ("elsewhere",)
    assert store.manifest["settings"] == {
        "sizes": [64, 32, 16, 8],
        **said,
        "bit_depth": None,
        "layout": None,
    }
    for depth, word in ((8, "more than 8 bits|8 bits"), (12, "12 bits")):
        with pytest.raises(SourceError, match=word):
            import_dataset(
                "partition-frames",
                folder,
                tmp_path / "o",
                yuv=clip,
                bit_depth=depth,
                width=SIDE,
                height=SIDE - 2,
            )


# What is in the tree


def judged(*nodes: tuple[int, int, int, int], height: int = 128, width: int = 128) -> dict:
    """Return the fate of `(size, row, col, partition)` by `(size, row, col)`."""
    listed = pl.DataFrame([(*n, 80) for n in nodes], schema=COLUMNS, orient="row")
    table = judge_nodes(listed, height, width)
    return {(z, r, c): fate for z, r, c, fate in table.select("size", "row", "col", "fate").rows()}


def test_the_whole_chain_of_ancestors_must_be_split() -> None:
    fate = judged(
        (64, 0, 0, 0), (32, 0, 0, 3), (16, 0, 0, 3), (8, 0, 0, 0),
        (64, 0, 64, 3), (32, 0, 64, 3), (16, 0, 64, 3), (8, 0, 64, 0), (8, 8, 72, 2),
        (32, 32, 96, 1), (16, 32, 96, 0),
    )  # fmt: skip
    kept = {(64, 0, 0), (64, 0, 64), (32, 0, 64), (16, 0, 64), (8, 0, 64), (8, 8, 72), (32, 32, 96)}
    assert {node for node, said in fate.items() if said == "kept"} == kept
    assert {said for node, said in fate.items() if node not in kept} == {"parent_not_split"}


def test_roots_are_the_largest_listed_and_what_hangs_from_the_edge() -> None:
    assert judged((16, 0, 0, 3), (8, 0, 0, 0)) == {(16, 0, 0): "kept", (8, 0, 0): "kept"}
    # A 32x32 node without its parent, where a 64x64 one is listed elsewhere: nobody can tell.
    fate = judged((64, 0, 0, 3), (32, 64, 64, 3), (16, 64, 64, 0))
    assert fate[32, 64, 64] == "parent_not_listed"
    assert fate[16, 64, 64] == "parent_not_split"
    # The same where that parent would reach over the edge, which some lists leave out.
    fate = judged((64, 0, 0, 3), (32, 64, 64, 3), (16, 64, 64, 0), height=96)
    assert fate[32, 64, 64] == fate[16, 64, 64] == "kept"
    # But if it is listed, it decides.
    fate = judged((64, 0, 0, 3), (64, 64, 64, 1), (32, 64, 64, 3), height=96)
    assert fate[64, 64, 64] == "not_inside_frame"
    assert fate[32, 64, 64] == "parent_not_split"
    # So does one above it, if the parent alone is missing.
    for partition, said in ((1, "parent_not_split"), (3, "kept")):
        fate = judged((64, 64, 64, partition), (16, 64, 64, 3), (8, 64, 64, 0), height=88)
        assert fate[16, 64, 64] == fate[8, 64, 64] == said


def test_each_qp_has_its_own_tree() -> None:
    rows = [(64, 0, 0, 3, 80), (32, 0, 0, 0, 80), (64, 0, 0, 0, 90), (32, 0, 0, 1, 90)]
    table = judge_nodes(pl.DataFrame(rows, schema=COLUMNS, orient="row"), 64, 64)
    assert table.filter(fate="kept").select(COLUMNS).sort(COLUMNS).rows() == sorted(rows[:3])


@pytest.mark.parametrize("seed", range(20))
def test_any_list_is_judged_as_by_walking_up(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = (int(rng.integers(8, 40)) * 4 for _ in range(2))
    rows = []
    for size in BLOCK_SIZE:
        places = [(r, c) for r in range(0, height, size) for c in range(0, width, size)]
        for r, c in places:
            if rng.random() < 0.8:
                split = rng.random() < 0.6
                partition = 3 if split else int(rng.choice(legal_partitions(size)))
                rows.append((size, r, c, partition, 80))
    table = pl.DataFrame(rows, schema=COLUMNS, orient="row")
    kept = judge_nodes(table, height, width).filter(fate="kept")
    wanted = in_tree(table.iter_rows(named=True), height, width)
    assert set(kept.select("qindex", "size", "row", "col", "partition").iter_rows()) == wanted


# What is refused


def line(number: int, text: str) -> Callable[[Path], object]:
    def act(folder: Path) -> None:
        file = folder / "partition_frame_2.txt"
        lines = file.read_text().splitlines()
        lines[number - 1] = text
        file.write_text("\n".join(lines))

    return act


def put(name: str, data: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(data)


CLIP = f"a clip_{SIDE}x{SIDE}.yuv"
FRAME = SIDE * SIDE * 3 // 2 * 2


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (line(3, "0 0 6 0 0 10 128"), ("line 3 is 10", "partition ids are 0 to 9")),
        (line(3, "0 0 3 0 0 4 128"), ("line 3 is HORZ_A, which no 8x8 node",)),
        (line(3, "0 0 7 0 0 0 128"), ("line 3 has 7 as block_size",)),
        (line(3, "0 0 15 0 0 0 128"), ("line 3 has 15 as block_size",)),
        (line(3, "0 4 6 0 0 0 128"), ("line 3 has 4 as frame_type",)),
        (line(3, "0 0 6 0 0 0 256"), ("line 3 is 256", "0 to 255")),
        (line(3, "0 0 6 2 0 0 128"), ("line 3 has 2 as row, for its block_size",)),
        (line(3, "0 0 6 0 3 0 128"), ("line 3 has 3 as col, for its block_size",)),
        (line(3, "1 0 6 0 0 0 128"), ("line 3 has 1 as order_hint",)),
        (line(3, "0 0 6 0 0 0"), ("line 3 is '0 0 6 0 0 0', not 7 whole numbers",)),
        (line(3, "0 0 6 -4 0 0 128"), ("line 3 is '0 0 6 -4 0 0 128'",)),
        (line(1, "order_hint frame_type"), ("line 1 is 'order_hint frame_typ'", "7 whole")),
        (put("partition_frame_2.txt", b""), ("partition_frame_2.txt lists no node",)),
        (put("partition_frame_02.txt", b""), ("are both of frame 2",)),
        (put("partition_frame_3.txt", b"0 0 6 0 0 0 128"), ("has 3 frames", "counted from 0")),
        (put(CLIP, b"\0" * (3 * FRAME - 1)), ("not a whole number of 160x160 frames",)),
        (put(CLIP, b"\0" * (2 * FRAME)), ("partition_frame_2.txt is of frame 2", "2 frames")),
        (put(CLIP, b""), ("is empty",)),
        (put(CLIP, b"\xff" * (3 * FRAME)), ("holds 65535, more than 10 bits",)),
        (put("other_160x160.yuv", b""), ("holds 2 .yuv files: name the clip with yuv=",)),
        (lambda f: (f / CLIP).unlink(), ("holds 0 .yuv files",)),
        (lambda f: [p.unlink() for p in f.glob("p*")], ("has no partition_frame_<n>.txt",)),
    ],
)
def test_what_contradicts_is_refused(
    folder: Path, tmp_path: Path, damage: Callable[[Path], object], said: tuple[str, ...]
) -> None:
    damage(folder)
    with pytest.raises(SourceError) as caught:
        import_dataset("partition-frames", folder, tmp_path / "out")
    for word in said:
        assert word in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["clip"]


def test_a_node_listed_twice_is_refused(folder: Path, tmp_path: Path) -> None:
    file = folder / "partition_frame_0.txt"
    first, *_, last = file.read_text().splitlines()
    file.write_text(f"{file.read_text()}{first[:-5]}0 {last.split()[-1]}\n")
    with pytest.raises(SourceError, match=r"partition_frame_0\.txt lists a node more than once"):
        import_dataset("partition-frames", folder, tmp_path / "out")


def test_frames_that_are_not_intra_are_left_out_and_counted(folder: Path, tmp_path: Path) -> None:
    lines = (folder / "partition_frame_0.txt").read_text().splitlines()
    inter = [f"1 1 {rest.split(' ', 2)[2]}" for rest in lines]
    (folder / "partition_frame_1.txt").write_text("\n".join(inter))
    whole = import_dataset("partition-frames", folder, tmp_path / "out")
    assert whole.manifest["left_out"]["not_intra"] == len(lines)
    (facts,) = whole.manifest["sequences"].values()
    assert facts["source_frames_kept"] == [0, 2]
    for number in (0, 2):
        (folder / f"partition_frame_{number}.txt").unlink()
    with pytest.raises(SourceError, match="no intra frame"):
        import_dataset("partition-frames", folder, tmp_path / "again")


def test_nodes_over_the_edge_are_left_out_and_counted(folder: Path, tmp_path: Path) -> None:
    for number in (0, 2):
        (folder / f"partition_frame_{number}.txt").write_text(
            "0 0 12 32 32 3 128\n0 0 9 32 32 1 128\n0 0 9 40 32 1 128\n0 0 12 64 0 0 128"
        )
    store = import_dataset("partition-frames", folder, tmp_path / "out")
    # 128 + 32 = 160: the first 32x32 is inside; its 64x64 parent, the second, and the third not.
    assert store.nodes.select("frame", "row", "col", "size").rows() == [
        (0, 128, 128, 32),
        (1, 128, 128, 32),
    ]
    assert store.manifest["left_out"] == {"not_inside_frame": 6}
    with pytest.raises(SourceError, match="has no node to keep"):
        import_dataset("partition-frames", folder, tmp_path / "o", sizes=[8])
