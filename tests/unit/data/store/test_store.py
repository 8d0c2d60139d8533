"""The dataset on disk: what is written comes back, and each kind of damage has its own line."""

from __future__ import annotations

import json
import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from av1part import __version__
from av1part.data.store.schema import NODE_KEY, NODE_SCHEMA, node_counts, plane_dtype, sequence_name
from av1part.data.store.store import Store, Verify
from av1part.data.store.writer import StoreWriter
from av1part.system.errors import ConfigError, StoreError
from av1part.system.files import sha256_file
from av1part.system.locks import HOLDER, LOCK

RECIPE = {"sources": ["a.y4m"], "cq_levels": [20, 32]}
SEQUENCES = {
    "cat": {"bit_depth": 8, "source": "cat.png"},
    "dog_10": {"bit_depth": 10, "source": "dog 10.y4m"},
}


def planes() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {
        "cat": rng.integers(0, 256, (1, 64, 96), dtype=np.uint8),
        "dog_10": rng.integers(0, 1024, (2, 64, 64), dtype=np.uint16),
    }


def table(*rows: tuple[str, int, int, int, int, int, int]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=dict(NODE_SCHEMA), orient="row")


NODES = table(
    ("cat", 0, 0, 0, 64, 80, 3),
    ("cat", 0, 0, 0, 8, 80, 2),
    ("cat", 0, 32, 64, 32, 80, 9),
    ("cat", 0, 32, 64, 32, 120, 0),
    ("dog_10", 0, 48, 48, 16, 80, 7),
    ("dog_10", 1, 48, 48, 16, 80, 0),
)


def build(out: Path, nodes: pl.DataFrame = NODES) -> Store:
    writer = StoreWriter(out, RECIPE)
    for sequence, luma in planes().items():
        writer.add_plane(sequence, luma, int(SEQUENCES[sequence]["bit_depth"]))
    return writer.finish(nodes, SEQUENCES, {"made_by": {"av1part": "0.1.0"}})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return build(tmp_path / "set").path


def edit_manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    file = folder / "manifest.json"
    manifest = json.loads(file.read_text())
    change(manifest)
    file.write_text(json.dumps(manifest))


def plant(folder: Path, name: str, write: Callable[[Path], object]) -> None:
    """Replace a file by another that the manifest vouches for, as a foreign tool might."""
    write(folder / name)
    digest = sha256_file(folder / name)
    edit_manifest(folder, lambda m: m["files"].update({name: digest}))


def plant_nodes(folder: Path, nodes: pl.DataFrame) -> None:
    plant(folder, "nodes.parquet", nodes.write_parquet)


def flip(file: Path, offset: int) -> None:
    data = bytearray(file.read_bytes())
    data[offset] ^= 1
    file.write_bytes(data)


def refusal(folder: Path, verify: Verify = "quick") -> str:
    """The one line with which a folder is refused."""
    with pytest.raises(StoreError) as caught:
        Store.open(folder, verify)
    line = str(caught.value)
    assert "\n" not in line
    return line


# What comes back


def test_round_trip(folder: Path) -> None:
    store = Store.open(folder, verify="full")
    assert store.sequences == ("cat", "dog_10")
    for sequence, luma in planes().items():
        np.testing.assert_array_equal(store.plane(sequence), luma)
        assert store.plane(sequence).dtype == luma.dtype
    assert store.nodes.schema == pl.Schema(dict(NODE_SCHEMA))
    assert store.nodes.equals(NODES.sort(NODE_KEY))
    assert store.manifest["made_by"] == {"av1part": "0.1.0"}
    assert store.manifest["sequences"]["cat"]["source"] == "cat.png"
    assert store.manifest["nodes"] == {
        "8": {"VERT": 1},
        "16": {"NONE": 1, "VERT_B": 1},
        "32": {"NONE": 1, "VERT_4": 1},
        "64": {"SPLIT": 1},
    }


def test_manifest_pins_every_file(folder: Path) -> None:
    files = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    store = Store.open(folder)
    assert files == {"manifest.json", *store.manifest["files"]}
    for name, digest in store.manifest["files"].items():
        assert sha256_file(folder / name) == digest
    assert store.manifest_sha256 == sha256_file(folder / "manifest.json")


def test_building_twice_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    again = build(tmp_path / "again", NODES.reverse().select(reversed(NODES.columns)))
    assert again.manifest_sha256 == Store.open(folder).manifest_sha256


def test_planes_are_mapped_and_cannot_be_written(folder: Path) -> None:
    before = sha256_file(folder / "planes/cat.npy")
    plane = Store.open(folder).plane("cat")
    assert isinstance(plane, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        plane[0, 0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        plane[0, :8, :8] *= 2
    assert sha256_file(folder / "planes/cat.npy") == before


def test_pickled_store_maps_the_files_itself(folder: Path) -> None:
    store = Store.open(folder)
    data = pickle.dumps(store)
    assert planes()["cat"].tobytes() not in data
    copy = pickle.loads(data)
    assert isinstance(copy.plane("cat"), np.memmap)
    np.testing.assert_array_equal(copy.plane("cat"), planes()["cat"])
    assert copy.nodes.equals(store.nodes)
    assert isinstance(store.plane("cat"), np.memmap)


@pytest.mark.parametrize("name", ["a=b", "set[1]", "set *", "size=8", "ümlaut (1)"])
def test_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    build(tmp_path / name / "set")
    assert Store.open(tmp_path / name / "set", verify="full").nodes.equals(NODES.sort(NODE_KEY))


def test_bit_depth_of_one_and_of_several(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"mixes bit depths \[8, 10\]"):
        Store.open(folder).bit_depth()
    writer = StoreWriter(tmp_path / "one", RECIPE)
    writer.add_plane("cat", planes()["cat"], 8)
    only = writer.finish(NODES.filter(pl.col("sequence") == "cat"), {"cat": SEQUENCES["cat"]}, {})
    assert only.bit_depth() == 8


def test_dataset_without_nodes_opens(tmp_path: Path) -> None:
    store = build(tmp_path / "none", NODES.clear())
    assert store.nodes.height == 0
    assert store.manifest["nodes"] == {}


@pytest.mark.parametrize(
    ("bits", "dtype"), [(8, "uint8"), (9, "uint16"), (10, "uint16"), (16, "uint16")]
)
def test_plane_dtype(bits: int, dtype: str) -> None:
    assert plane_dtype(bits) == np.dtype(dtype).newbyteorder("<")


@given(st.text())
def test_sequence_names_are_safe_and_keep_their_length(stem: str) -> None:
    name = sequence_name(stem)
    assert len(name) == len(stem)
    allowed = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-")
    for before, after in zip(stem, name, strict=True):
        assert after == (before if before in allowed else "_")


@given(
    st.lists(st.tuples(st.sampled_from([8, 16, 32, 64]), st.integers(0, 9)), min_size=1, max_size=9)
)
def test_node_counts_against_a_plain_count(pairs: list[tuple[int, int]]) -> None:
    counts = node_counts(table(*(("s", 0, 0, 0, size, 1, p) for size, p in pairs)))
    names = "NONE HORZ VERT SPLIT HORZ_A HORZ_B VERT_A VERT_B HORZ_4 VERT_4"
    flat = {(s, n): c for s, by_type in counts.items() for n, c in by_type.items()}
    assert flat == {(str(s), names.split()[p]): pairs.count((s, p)) for s, p in pairs}
    assert list(counts) == sorted(counts, key=int)


# What is refused on opening


def test_missing_folder(tmp_path: Path) -> None:
    line = refusal(tmp_path / "nowhere")
    assert f"{tmp_path / 'nowhere'} is not a dataset folder" in line
    assert "av1part data build" in line


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("manifest.json", "is not a complete dataset"),
        ("nodes.parquet", "is missing: restore it"),
        ("planes/dog_10.npy", "is missing: restore it"),
    ],
)
def test_missing_file(folder: Path, name: str, said: str) -> None:
    (folder / name).unlink()
    for verify in ("quick", "full"):
        line = refusal(folder, verify)
        assert str(folder / name) in line
        assert said in line


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"kind": "\udcff"}'])
def test_manifest_that_is_not_json(folder: Path, text: str) -> None:
    (folder / "manifest.json").write_bytes(text.encode(errors="surrogateescape"))
    assert "manifest.json cannot be read as JSON" in refusal(folder)


@pytest.mark.parametrize("text", ["[]", "1", "null", "{}", '{"kind": "other-store"}'])
def test_manifest_of_something_else(folder: Path, text: str) -> None:
    (folder / "manifest.json").write_text(text)
    assert "manifest.json is not the manifest of an av1part dataset" in refusal(folder)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"format": 2}, "has format 2, av1part {} reads 1: use a later av1part"),
        (
            {"format": 2, "made_by": {"av1part": "9.1"}},
            "written by av1part 9.1, use that",
        ),
        ({"format": 2, "made_by": {"av1part": "9\n"}}, "use a later av1part"),
        ({"format": 2, "made_by": "9.1"}, "use a later av1part"),
        ({"format": 0}, "has format 0, av1part {} reads 1: build the dataset again"),
        ({"format": "2"}, "has format '2', av1part {} reads 1: build the dataset again"),
    ],
)
def test_another_format(folder: Path, entries: dict[str, object], said: str) -> None:
    edit_manifest(folder, lambda m: m.update(entries))
    line = refusal(folder)
    assert "manifest.json has format" in line
    assert said.format(__version__) in line


@pytest.mark.parametrize("key", ["sequences", "nodes", "files"])
def test_manifest_lacks_a_part(folder: Path, key: str) -> None:
    edit_manifest(folder, lambda m: m.pop(key))
    assert "manifest.json lacks `sequences`, `nodes` or `files`" in refusal(folder)


@pytest.mark.parametrize("key", ["bit_depth", "frames", "height", "width"])
@pytest.mark.parametrize("value", [None, "8", 8.0])
def test_manifest_lacks_a_fact(folder: Path, key: str, value: object) -> None:
    edit_manifest(folder, lambda m: m["sequences"]["cat"].update({key: value}))
    assert "manifest.json lacks bit_depth, frames, height, width of sequence cat" in refusal(folder)


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"protocols": ["by_magic"]}, "offers protocols ['by_magic']; known are by_sequence"),
        ({"protocols": "given"}, "offers protocols 'given'"),
        ({"protocols": [["given"]]}, "offers protocols [['given']]"),
        ({"given_split": {"cat": "training"}}, "has a given_split with other values than train"),
        ({"given_split": ["cat"]}, "has a given_split"),
        ({"left_out": {"not_intra": "many"}}, "has a left_out that is not of counts"),
        ({"left_out": [1]}, "has a left_out"),
    ],
)
def test_manifest_of_an_import_that_says_nonsense(
    folder: Path, facts: dict[str, Any], said: str
) -> None:
    edit_manifest(folder, lambda m: m.update(facts))
    assert f"manifest.json {said}" in refusal(folder)


def test_groups_are_the_sequences_unless_the_manifest_says_more(folder: Path) -> None:
    assert Store.open(folder).groups == {"cat": "cat", "dog_10": "dog_10"}
    edit_manifest(folder, lambda m: m["sequences"]["cat"].update(group="pets"))
    assert Store.open(folder).groups == {"cat": "pets", "dog_10": "dog_10"}


@pytest.mark.parametrize("bits", [-1, 7, 17])
def test_manifest_with_an_impossible_bit_depth(folder: Path, bits: int) -> None:
    edit_manifest(folder, lambda m: m["sequences"]["cat"].update(bit_depth=bits))
    assert f"manifest.json says {bits} bits of cat" in refusal(folder)


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a b", "", "cat\n"])
def test_sequence_name_that_could_leave_the_folder(folder: Path, name: str) -> None:
    edit_manifest(folder, lambda m: m["sequences"].update({name: m["sequences"]["cat"]}))
    assert f"names a sequence {name!r}" in refusal(folder)


@pytest.mark.parametrize("name", ["../secret", "planes/other.npy"])
def test_manifest_listing_other_files(folder: Path, name: str) -> None:
    edit_manifest(folder, lambda m: m["files"].update({name: "0" * 64}))
    assert "manifest.json lists other files" in refusal(folder)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (planes()["cat"].astype(np.float32) / 255, "holds float32"),
        (planes()["cat"].astype(np.uint16), "holds uint16"),
        (planes()["cat"][:, :32], "(1, 32, 96)"),
        (planes()["cat"][0], "(64, 96)"),
    ],
)
def test_plane_that_is_not_as_the_manifest_says(folder: Path, array: np.ndarray, said: str) -> None:
    plant(folder, "planes/cat.npy", lambda file: np.save(file, array))
    line = refusal(folder)
    assert str(folder / "planes/cat.npy") in line
    assert said in line
    assert "unscaled integers" in line


def test_big_endian_plane(folder: Path) -> None:
    swapped = planes()["dog_10"].astype(">u2")
    plant(folder, "planes/dog_10.npy", lambda file: np.save(file, swapped))
    assert "holds >u2" in refusal(folder)


@pytest.mark.parametrize("keep", [0, 5, 60, 130, -1])
def test_truncated_plane(folder: Path, keep: int) -> None:
    file = folder / "planes/cat.npy"
    file.write_bytes(file.read_bytes()[:keep])
    assert f"{file} is not a complete .npy array" in refusal(folder)


def test_plane_of_another_kind_of_file(folder: Path) -> None:
    file = folder / "planes/cat.npy"
    with file.open("wb") as handle:
        np.savez(handle, planes()["cat"])
    assert f"{file} is not a complete .npy array" in refusal(folder)


def test_flipped_pixel_is_found_by_full_verification(folder: Path) -> None:
    file = folder / "planes/dog_10.npy"
    flip(file, -7)
    Store.open(folder)
    assert f"{file} does not have the SHA-256" in refusal(folder, "full")


def test_flipped_byte_of_the_nodes_is_found_always(folder: Path) -> None:
    flip(folder / "nodes.parquet", 40)
    assert f"{folder / 'nodes.parquet'} does not have the SHA-256" in refusal(folder)


def test_any_damage_to_small_files_is_one_line_or_harmless(folder: Path) -> None:
    chance = random.Random(3)
    for name, extent in (("nodes.parquet", None), ("planes/cat.npy", 128), ("manifest.json", None)):
        file = folder / name
        whole = file.read_bytes()
        for _ in range(60):
            data = bytearray(whole)
            data[chance.randrange(extent or len(data))] ^= 1 << chance.randrange(8)
            file.write_bytes(data)
            try:
                Store.open(folder)
            except StoreError as error:
                assert "\n" not in str(error)  # noqa: PT017 - most damage raises, not all
        file.write_bytes(whole)


@pytest.mark.parametrize("keep", [0, 4, 200, -1])
def test_truncated_nodes(folder: Path, keep: int) -> None:
    cut = (folder / "nodes.parquet").read_bytes()[:keep]
    plant(folder, "nodes.parquet", lambda file: file.write_bytes(cut))
    assert f"{folder / 'nodes.parquet'} is not a readable Parquet file" in refusal(folder)


@pytest.mark.parametrize(
    "nodes",
    [
        NODES.drop("qindex"),
        NODES.with_columns(extra=1),
        NODES.with_columns(pl.col("partition").cast(pl.Int64)),
        NODES.select(reversed(NODES.columns)).rename({"row": "y"}),
    ],
)
def test_nodes_with_other_columns(folder: Path, nodes: pl.DataFrame) -> None:
    plant_nodes(folder, nodes)
    line = refusal(folder)
    assert f"{folder / 'nodes.parquet'} has columns" in line


@pytest.mark.parametrize("column", NODES.columns)
def test_nodes_with_an_empty_cell(folder: Path, column: str) -> None:
    first = pl.int_range(pl.len()) == 0
    plant_nodes(folder, NODES.with_columns(pl.when(~first).then(pl.col(column)).alias(column)))
    assert f"{folder / 'nodes.parquet'} has empty cells" in refusal(folder)


BAD_NODES = [
    (("cat", 1, 0, 0, 8, 80, 0), "outside its plane"),
    (("cat", -1, 0, 0, 8, 80, 0), "outside its plane"),
    (("cat", 0, -8, 0, 8, 80, 0), "outside its plane"),
    (("cat", 0, 0, -8, 8, 80, 0), "outside its plane"),
    (("cat", 0, 60, 0, 8, 80, 0), "outside its plane"),
    (("cat", 0, 0, 90, 8, 80, 0), "outside its plane"),
    (("dog_10", 0, 0, 64, 8, 80, 0), "outside its plane"),
    # Added to the size in 32 bits, these wrap round to a negative number.
    (("cat", 0, 2**31 - 8, 0, 64, 80, 0), "outside its plane"),
    (("cat", 0, 0, 2**31 - 8, 64, 80, 0), "outside its plane"),
    (("cat", 0, 0, 0, 8, 80, 4), "type its size forbids"),
    (("cat", 0, 0, 0, 8, 80, 8), "type its size forbids"),
    (("cat", 0, 0, 0, 16, 80, 10), "type its size forbids"),
    (("cat", 0, 0, 0, 16, 80, -1), "type its size forbids"),
    (("cat", 0, 0, 0, 12, 80, 0), "type its size forbids"),
    (("cat", 0, 0, 0, 4, 80, 0), "type its size forbids"),
    (("cat", 0, 0, 0, 8, 256, 0), "qindex outside 0..255"),
    (("cat", 0, 0, 0, 8, -1, 0), "qindex outside 0..255"),
    (("cow", 0, 0, 0, 8, 80, 0), "sequences without a plane: ['cow']"),
]


@pytest.mark.parametrize(("row", "said"), BAD_NODES)
def test_nodes_that_cannot_be_are_refused_on_opening(
    folder: Path, row: tuple[str, int, int, int, int, int, int], said: str
) -> None:
    plant_nodes(folder, pl.concat([NODES, table(row)]))
    line = refusal(folder)
    assert str(folder / "nodes.parquet") in line
    assert said in line


@pytest.mark.parametrize(("row", "said"), BAD_NODES)
def test_nodes_that_cannot_be_are_refused_on_writing(
    tmp_path: Path, row: tuple[str, int, int, int, int, int, int], said: str
) -> None:
    with pytest.raises(StoreError, match=r"nodes\.parquet") as caught:
        build(tmp_path / "set", pl.concat([NODES, table(row)]))
    assert said in str(caught.value)
    assert not (tmp_path / "set").exists()


def test_offending_node_is_named(folder: Path) -> None:
    plant_nodes(folder, pl.concat([NODES, table(("cat", 0, 60, 16, 8, 80, 0))]))
    line = refusal(folder)
    assert "1 nodes" in line
    assert "'row': 60, 'col': 16, 'size': 8" in line


def test_duplicate_nodes(folder: Path, tmp_path: Path) -> None:
    twice = pl.concat([NODES, NODES[:1].with_columns(partition=pl.lit(0, pl.Int8))])
    with pytest.raises(StoreError, match="more than once"):
        build(tmp_path / "other", twice)
    plant_nodes(folder, twice)
    edit_manifest(folder, lambda m: m.update(nodes=node_counts(twice)))
    Store.open(folder)
    assert f"{folder / 'nodes.parquet'} holds a node more than once" in refusal(folder, "full")


def test_counts_that_differ(folder: Path) -> None:
    edit_manifest(folder, lambda m: m["nodes"]["16"].update(NONE=2))
    assert f"{folder / 'nodes.parquet'} does not have the node counts" in refusal(folder)
    plant_nodes(folder, NODES[1:])
    assert f"{folder / 'nodes.parquet'} does not have the node counts" in refusal(folder)


# Writing


def test_folder_appears_only_when_complete(tmp_path: Path) -> None:
    out, partial = tmp_path / "deep" / "set", tmp_path / "deep" / "set.partial"
    writer = StoreWriter(out, RECIPE)
    for sequence, luma in planes().items():
        writer.add_plane(sequence, luma, int(SEQUENCES[sequence]["bit_depth"]))
        assert partial.is_dir()
        assert not out.exists()
    writer.finish(NODES, SEQUENCES, {})
    assert out.is_dir()
    assert not partial.exists()


def test_existing_folder_is_left_alone(folder: Path) -> None:
    before = sha256_file(folder / "manifest.json")
    with pytest.raises(StoreError, match=r"set exists: choose another out=DIR"):
        StoreWriter(folder, RECIPE)
    assert sha256_file(folder / "manifest.json") == before
    assert not folder.with_name("set.partial").exists()


def test_killed_build_goes_on(tmp_path: Path) -> None:
    first = StoreWriter(tmp_path / "set", RECIPE)
    first.add_plane("cat", planes()["cat"], 8)
    (first.work / "cat_q20.json").write_text("half done")
    (first.partial / "planes" / "dog_10.npy.123.part").write_bytes(b"half a plane")
    second = StoreWriter(tmp_path / "set", json.loads(json.dumps(RECIPE)))
    assert second.has_plane("cat")
    assert not second.has_plane("dog_10")
    assert (second.work / "cat_q20.json").read_text() == "half done"
    second.add_plane("dog_10", planes()["dog_10"], 10)
    store = second.finish(NODES, SEQUENCES, {"made_by": {"av1part": "0.1.0"}})
    assert store.manifest_sha256 == build(tmp_path / "straight").manifest_sha256
    names = sorted(p.relative_to(store.path).as_posix() for p in store.path.rglob("*.*"))
    assert names == ["manifest.json", "nodes.parquet", "planes/cat.npy", "planes/dog_10.npy"]
    assert not (store.path / "work").exists()


def test_build_killed_before_the_rename_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def power_cut(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", power_cut)
        with pytest.raises(KeyboardInterrupt):
            build(tmp_path / "set")
    assert not (tmp_path / "set").exists()
    assert build(tmp_path / "set").nodes.height == NODES.height


def test_recipe_with_tuples_goes_on(tmp_path: Path) -> None:
    StoreWriter(tmp_path / "set", {"cq_levels": (20, 32)})
    StoreWriter(tmp_path / "set", {"cq_levels": (20, 32)})


def test_build_killed_at_once_goes_on(tmp_path: Path) -> None:
    (tmp_path / "set.partial").mkdir()
    build(tmp_path / "set")


@pytest.mark.parametrize("name", ["recipe.json", "manifest.json", "planes/a.npy"])
def test_what_a_killed_build_was_writing_goes(tmp_path: Path, name: str) -> None:
    part = tmp_path / "set.partial" / f"{name}.99999.part"
    if name == "recipe.json":
        part.parent.mkdir()
    else:
        StoreWriter(tmp_path / "set", RECIPE)
    part.write_text("{")
    build(tmp_path / "set")
    assert not list((tmp_path / "set").rglob("*.part"))


@pytest.mark.parametrize("recipe", ['{"sources": ["b.y4m"]}', "{", ""])
def test_foreign_partial_is_left_alone(tmp_path: Path, recipe: str) -> None:
    partial = tmp_path / "set.partial"
    partial.mkdir()
    (partial / "recipe.json").write_text(recipe)
    with pytest.raises(StoreError, match=r"set.partial is left from another build"):
        StoreWriter(tmp_path / "set", RECIPE)
    assert (partial / "recipe.json").read_text() == recipe


def test_partial_without_a_recipe_is_left_alone(tmp_path: Path) -> None:
    partial = tmp_path / "set.partial"
    partial.mkdir()
    (partial / "thesis.txt").write_text("mine")
    with pytest.raises(StoreError, match="left from another build"):
        StoreWriter(tmp_path / "set", RECIPE)
    assert (partial / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("recipe", [RECIPE, {"sources": ["b.y4m"]}], ids=["same", "other"])
def test_two_builds_of_one_folder_are_kept_apart(tmp_path: Path, recipe: dict[str, Any]) -> None:
    """The second would go on with what the first has not finished, and remove it."""
    first = StoreWriter(tmp_path / "set", RECIPE)
    with first.alone():
        for sequence, luma in planes().items():
            first.add_plane(sequence, luma, int(SEQUENCES[sequence]["bit_depth"]))
        before = sorted(first.partial.rglob("*"))
        with pytest.raises(
            ConfigError, match=r"set\.partial is in use by process \d+ on .*out=DIR"
        ):
            StoreWriter(tmp_path / "set", recipe).alone().__enter__()
        assert sorted(first.partial.rglob("*")) == before
        store = first.finish(NODES, SEQUENCES, {})
    assert {file.name for file in store.path.iterdir()} == {
        "manifest.json",
        "nodes.parquet",
        "planes",
    }
    assert not first.partial.exists()


def test_what_a_killed_build_left_of_its_lock_goes(tmp_path: Path) -> None:
    for name in (LOCK, HOLDER):
        (tmp_path / "set.partial").mkdir(exist_ok=True)
        (tmp_path / "set.partial" / name).write_text("{}")
    assert not list(build(tmp_path / "set").path.glob(".*"))


def test_discard_leaves_nothing(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path / "set", RECIPE)
    writer.add_plane("cat", planes()["cat"], 8)
    writer.discard()
    assert list(tmp_path.iterdir()) == []


def test_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"set.partial cannot be written"):
        StoreWriter(tmp_path / "file" / "set", RECIPE)


def test_current_folder_exists(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match="exists"):
        StoreWriter(".", RECIPE)


@pytest.mark.parametrize(
    ("luma", "bits", "said"),
    [
        (np.zeros((1, 8, 8), np.float32), 8, "must be integers"),
        (np.zeros((1, 8, 8), bool), 8, "must be integers"),
        (np.zeros((8, 8), np.uint8), 8, "must be integers"),
        (np.zeros((0, 8, 8), np.uint8), 8, "must be integers"),
        (np.full((1, 8, 8), 256, np.uint16), 8, "outside 8 bits"),
        (np.full((1, 8, 8), 1024, np.uint16), 10, "outside 10 bits"),
        (np.full((1, 8, 8), -1, np.int16), 10, "outside 10 bits"),
        (np.zeros((1, 8, 8), np.uint32), 17, "17 bits"),
        (np.zeros((1, 8, 8), np.uint8), 7, "7 bits"),
    ],
)
def test_luma_that_is_refused(tmp_path: Path, luma: np.ndarray, bits: int, said: str) -> None:
    writer = StoreWriter(tmp_path / "set", RECIPE)
    with pytest.raises(StoreError, match=said):
        writer.add_plane("cat", luma, bits)
    assert not writer.has_plane("cat")


@pytest.mark.parametrize("name", ["../x", "a/b", "", "a b"])
def test_plane_cannot_leave_the_folder(tmp_path: Path, name: str) -> None:
    writer = StoreWriter(tmp_path / "set", RECIPE)
    with pytest.raises(StoreError, match="no sequence can be named"):
        writer.add_plane(name, planes()["cat"], 8)


def test_plane_in_another_memory_order_comes_back(tmp_path: Path) -> None:
    luma = np.asfortranarray(planes()["cat"].astype(">i4"))
    writer = StoreWriter(tmp_path / "set", RECIPE)
    writer.add_plane("cat", luma, 8)
    store = writer.finish(NODES.clear(), {"cat": SEQUENCES["cat"]}, {})
    np.testing.assert_array_equal(store.plane("cat"), planes()["cat"])
    assert store.plane("cat").flags.c_contiguous


def test_moved_folder_opens(folder: Path, tmp_path: Path) -> None:
    shutil.move(folder, tmp_path / "elsewhere")
    Store.open(tmp_path / "elsewhere", verify="full")
