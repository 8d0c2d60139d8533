"""Datasets made to harm whoever opens them: each is one clear line, and nothing outside is read."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from av1part.data.store.schema import NODE_SCHEMA, most_nodes
from av1part.data.store.store import Store
from av1part.data.store.writer import StoreWriter
from av1part.system.errors import StoreError
from av1part.system.files import sha256_file

NODES = pl.DataFrame([("cat", 0, 0, 0, 16, 80, 3)], schema=dict(NODE_SCHEMA), orient="row")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    writer = StoreWriter(tmp_path / "set", {"made": "by the tests"})
    writer.add_plane("cat", np.zeros((1, 16, 16), np.uint8), 8)
    return writer.finish(NODES, {"cat": {"bit_depth": 8}}, {}).path


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest, its hashes made to fit what is there."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in manifest["files"]:
        manifest["files"][name] = sha256_file(folder / name)
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def refusal(folder: Path) -> str:
    """The one line with which a folder is refused."""
    with pytest.raises(StoreError) as caught:
        Store.open(folder)
    said = str(caught.value)
    assert len(said.splitlines()) == 1
    assert len(said) < 1000
    assert str(folder) in said
    return said


OUTSIDE = ("../x", "..", "../../etc/passwd", "/etc/passwd", "a/b", "a\\b", "a\0b", "~/x", "")


@pytest.mark.parametrize("name", [n for n in OUTSIDE if n != ".."])
def test_a_manifest_cannot_name_a_sequence_outside(folder: Path, name: str) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["sequences"] = {name: manifest["sequences"]["cat"]}
        manifest["files"][f"planes/{name}.npy"] = manifest["files"].pop("planes/cat.npy")

    edit(folder, change)
    assert "names are [A-Za-z0-9_.-] only" in refusal(folder)


@pytest.mark.parametrize("name", [*OUTSIDE, "nobody", "x" * 5000, "a\nb"])
def test_nodes_cannot_name_a_sequence_outside(folder: Path, name: str) -> None:
    NODES.with_columns(sequence=pl.lit(name)).write_parquet(folder / "nodes.parquet")
    edit(folder, lambda m: None)
    assert "has nodes of sequences without a plane" in refusal(folder)


@pytest.mark.parametrize("name", ["planes/cat.npy", "planes", "nodes.parquet", "manifest.json"])
def test_what_is_linked_in_from_elsewhere_is_refused(
    folder: Path, tmp_path: Path, name: str
) -> None:
    shutil.copytree(folder, tmp_path / "other")
    place = folder / name
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    place.symlink_to(tmp_path / "other" / name)
    said = refusal(folder)
    assert str(place) in said
    assert "is a link that leads out of its dataset: copy the file there" in said


def test_links_inside_a_dataset_and_to_all_of_it_are_fine(folder: Path, tmp_path: Path) -> None:
    (folder / "planes" / "cat.npy").rename(folder / "planes" / "real.npy")
    (folder / "planes" / "cat.npy").symlink_to("real.npy")
    (tmp_path / "link").symlink_to(folder)
    for path in (folder, tmp_path / "link"):
        assert Store.open(path, verify="full").plane("cat").shape == (1, 16, 16)


def test_links_in_a_circle(folder: Path) -> None:
    plane = folder / "planes" / "cat.npy"
    plane.unlink()
    plane.symlink_to(plane)
    assert str(plane) in refusal(folder)


def test_a_name_too_long_for_a_file(folder: Path) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["sequences"] = {"x" * 300: manifest["sequences"]["cat"]}
        manifest["files"][f"planes/{'x' * 300}.npy"] = manifest["files"].pop("planes/cat.npy")

    edit(folder, change)
    assert "cannot be read" in refusal(folder)


@pytest.mark.parametrize("name", ["x" * 5000, "/" * 5000])
def test_a_name_of_thousands_of_characters_is_cut_in_the_line(folder: Path, name: str) -> None:
    file = folder / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "sequences": {name: {}}}))
    with pytest.raises(StoreError) as caught:
        Store.open(folder)
    assert str(file) in str(caught.value)
    assert len(str(caught.value)) < 2100


def test_more_nodes_than_the_planes_have_room_for_are_not_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few kilobytes of Parquet can stand for as many equal rows as fill any memory."""
    most = most_nodes(16 * 16)
    assert most == (4 + 1) * 256
    pl.concat([NODES] * (most + 1)).write_parquet(folder / "nodes.parquet")
    edit(folder, lambda m: None)
    monkeypatch.setattr(pl, "read_parquet", None)
    assert f"has {most + 1} nodes, its planes have room for {most}" in refusal(folder)


def test_a_panic_of_polars_is_an_error_like_any_other(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def panic(*args: object) -> None:
        raise pl.exceptions.PanicException("index out of bounds\nsomewhere")

    monkeypatch.setattr(pl, "read_parquet", panic)
    assert "is not a readable Parquet file (index out of bounds)" in refusal(folder)


@pytest.mark.parametrize("claim", [f"({2**40}, {2**40}, 4)", "(-1, 4)", "1" * 9000])
def test_a_plane_whose_header_claims_anything(folder: Path, claim: str) -> None:
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {claim}, }}\n".encode()
    head = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text
    (folder / "planes" / "cat.npy").write_bytes(head + bytes(256))
    edit(folder, lambda m: None)
    with warnings.catch_warnings(action="error"):  # numpy's would be a second line
        assert "cat.npy is not a complete .npy array" in refusal(folder)
