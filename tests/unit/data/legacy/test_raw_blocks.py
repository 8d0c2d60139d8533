"""Raw blocks: a store written so and imported again is equal; every contradiction has its line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from av1part.data.legacy.importer import import_dataset
from av1part.data.legacy.numbers import read_numbers
from av1part.data.store.store import Store
from av1part.system.errors import SourceError
from av1part.system.files import sha256_file

from .writers import cut, write_raw_blocks

REAL = Path(__file__).parents[5] / "shared" / "data" / "legacy"
BEAUTY = "Beauty_3840x2160_120fps_420_10bit"
BEAUTY_COUNTS = [7762, 2136, 3032, 5285, 3105, 3594, 3260, 3603]


def test_a_store_comes_back_equal(ten_bit_store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    written = {}
    for (seq, size), nodes in ten_bit_store.nodes.group_by(
        ["sequence", "size"], maintain_order=True
    ):
        blocks = cut(ten_bit_store, nodes)
        write_raw_blocks(folder, seq, blocks, nodes["partition"], nodes["qindex"])
        written[f"{seq}_sample_{size}"] = (size, blocks, nodes)
    assert {size for size, *_ in written.values()} == {8, 16, 32, 64}
    store = import_dataset("raw-blocks", folder, tmp_path / "out")
    assert set(store.sequences) == set(written)
    for name, (size, blocks, nodes) in written.items():
        plane, got = store.plane(name), store.nodes.filter(sequence=name)
        assert plane.dtype == np.uint16
        assert np.array_equal(plane, blocks)
        assert got["frame"].to_list() == list(range(len(blocks)))
        assert set(got["row"]) == set(got["col"]) == {0}
        assert set(got["size"]) == {size}
        for column in ("partition", "qindex"):
            assert got[column].to_list() == nodes[column].to_list()
        facts = store.manifest["sequences"][name]
        assert facts["bit_depth"] == 10
        assert facts["group"] == name.rpartition("_sample_")[0] == store.groups[name]
        file = folder / "intra_raw_blocks" / f"{name}.txt"
        assert (facts["source"], facts["source_sha256"]) == (file.name, sha256_file(file))
    assert store.manifest["left_out"] == {}
    assert store.manifest["layout"] == "raw-blocks"


def test_sizes_and_files_of_other_names_are_left_out_and_counted(
    raw_folder: Path, tmp_path: Path
) -> None:
    write_raw_blocks(raw_folder, "b", np.zeros((2, 8, 8)), [0, 3], [7, 255])
    write_raw_blocks(raw_folder, "c", np.zeros((1, 128, 128)), [0], [7])
    (raw_folder / "labels" / "b_labels_8_inter.txt").write_text("1")
    store = import_dataset("raw-blocks", raw_folder, tmp_path / "out", sizes=[16])
    assert store.sequences == ("a_clip_2x_sample_16",)
    assert store.manifest["sequences"]["a_clip_2x_sample_16"]["group"] == "a clip_2x"
    assert store.manifest["left_out"] == {"other_files": 7}
    with pytest.raises(SourceError, match=r"_sample_<S>\.txt with S in sizes=\[64\]"):
        import_dataset("raw-blocks", raw_folder, tmp_path / "none", sizes=[64])


BLOCKS = "intra_raw_blocks/a clip_2x_sample_16.txt"
LABELS = "labels/a clip_2x_labels_16_intra.txt"
QPS = "qps/a clip_2x_qps_16_intra.txt"


def put(name: str, data: bytes | str) -> Callable[[Path], object]:
    data = data if isinstance(data, bytes) else data.encode()
    return lambda folder: (folder / name).write_bytes(data)


def change_block_file(change: Callable[[np.ndarray], object]) -> Callable[[Path], object]:
    def act(folder: Path) -> None:
        blocks = np.fromfile(folder / BLOCKS, "<u2").reshape(6, 16, 16)
        change(blocks)
        blocks.tofile(folder / BLOCKS)

    return act


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (put(BLOCKS, b"\0" * (6 * 512 - 1)), ("sample_16.txt has 3071 bytes", "truncated")),
        (put(BLOCKS, b""), ("0 bytes", "truncated")),
        (put(BLOCKS, b"\0" * (5 * 512)), ("has 5 blocks of 16x16", "6 labels", "6 QPs")),
        (put(LABELS, "0 1 2 3 4"), ("6 blocks", "5 labels", "6 QPs")),
        (put(QPS, "80 " * 7), ("6 blocks", "6 labels", "7 QPs")),
        (put(LABELS, "0 1 2 3 10 5"), (LABELS, "entry 5 is 10", "partition ids are 0 to 9")),
        (put(LABELS, "0 1 2 3 -1 5"), (LABELS, "entry 5 is '-1'")),
        (put(LABELS, "0 1 2 3 4.0 5"), (LABELS, "entry 5 is '4.0'")),
        (put(QPS, "80 80 256 80 80 80"), (QPS, "entry 3 is 256", "0 to 255")),
        (put(QPS, "80 80 eighty 80 80 80"), (QPS, "entry 3 is 'eighty'")),
        (change_block_file(lambda b: b.__setitem__((3, 0, 5), 1024)), ("block 4 holds 1024",)),
        (change_block_file(lambda b: b.byteswap(inplace=True)), ("more than 10 bits",)),
        (lambda f: (f / LABELS).unlink(), (LABELS, "is missing")),
        (lambda f: (f / QPS).unlink(), (QPS, "is missing")),
        (lambda f: (f / BLOCKS).unlink(), (BLOCKS, "is missing")),
        (lambda f: (f / LABELS).rename(f / "labels" / "x"), (LABELS, "is missing")),
        (lambda f: (f / "qps").rename(f / "qp"), ("no folder qps",)),
        (lambda f: (f / LABELS).unlink() or (f / LABELS).mkdir(), (LABELS, "cannot be read")),
    ],
)
def test_what_contradicts_is_refused(
    raw_folder: Path, tmp_path: Path, damage: Callable[[Path], object], said: tuple[str, ...]
) -> None:
    import_dataset("raw-blocks", raw_folder, tmp_path / "good")
    damage(raw_folder)
    with pytest.raises(SourceError) as caught:
        import_dataset("raw-blocks", raw_folder, tmp_path / "out")
    for word in said:
        assert word in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["good", "raw"]


def test_an_ab_type_of_8x8_is_refused(tmp_path: Path) -> None:
    write_raw_blocks(tmp_path / "raw", "a", np.zeros((3, 8, 8)), [0, 4, 3], [80] * 3)
    with pytest.raises(SourceError, match="entry 2 is HORZ_A, which no 8x8 node can have"):
        import_dataset("raw-blocks", tmp_path / "raw", tmp_path / "out")


def test_two_clips_of_one_name_are_refused(tmp_path: Path) -> None:
    for seq in ("a clip", "a_clip"):
        write_raw_blocks(tmp_path / "raw", seq, np.zeros((1, 8, 8)), [0], [80])
    with pytest.raises(SourceError, match="both be sequence a_clip_sample_8: rename one"):
        import_dataset("raw-blocks", tmp_path / "raw", tmp_path / "out")


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the study's own label files are not in {REAL}")
def test_the_study_s_own_labels(tmp_path: Path) -> None:
    labels = read_numbers(REAL / f"{BEAUTY}_labels_16_intra.txt")
    qps = read_numbers(REAL / f"{BEAUTY}_qps_16_intra.txt")
    assert np.bincount(labels, minlength=10).tolist() == [*BEAUTY_COUNTS, 0, 0]
    assert set(qps.tolist()) == {80}
    # The blocks are not there: grey ones stand for them.
    write_raw_blocks(tmp_path / "raw", BEAUTY, np.full((len(labels), 16, 16), 512), labels, qps)
    for side in ("labels", "qps"):
        name = f"{BEAUTY}_{side}_16_intra.txt"
        (tmp_path / "raw" / side / name).write_bytes((REAL / name).read_bytes())
    store = import_dataset("raw-blocks", tmp_path / "raw", tmp_path / "out")
    assert list(store.manifest["nodes"]["16"].values()) == BEAUTY_COUNTS
    assert store.nodes["partition"].to_list() == labels.tolist()
