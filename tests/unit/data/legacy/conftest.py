"""A 10-bit store of real decisions, and folders of each layout made from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from av1part import embedded
from av1part.data.store.store import Store

from .writers import cut, ten_bit, v6_tensors, write_raw_blocks


@pytest.fixture(scope="session")
def ten_bit_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Corners of three pictures, all sizes, all qindexes; 160 is no multiple of 64."""
    out = tmp_path_factory.mktemp("legacy") / "ten"
    return ten_bit(Store.open(embedded.STORE), out, side=160, most=3)


@pytest.fixture
def raw_folder(ten_bit_store: Store, tmp_path: Path) -> Path:
    """Six 16x16 blocks of one clip, `a clip_2x`, as raw blocks."""
    nodes = ten_bit_store.nodes.filter(size=16)[:6]
    folder = tmp_path / "raw"
    write_raw_blocks(
        folder, "a clip_2x", cut(ten_bit_store, nodes), nodes["partition"], nodes["qindex"]
    )
    return folder


@pytest.fixture
def tensors(ten_bit_store: Store) -> dict:
    """What a file of v6-pt holds: 40 blocks of all types."""
    nodes = ten_bit_store.nodes.filter(size=16).group_by("partition", maintain_order=True).head(5)
    return v6_tensors(cut(ten_bit_store, nodes), nodes["partition"], nodes["qindex"])
