"""Rules for all tests."""

from __future__ import annotations

import os

# Before torch is imported: networks this small are fastest, and the same, on one thread, and
# waiting threads must not spin on a machine that does other things.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from functools import cache
from pathlib import Path

import polars as pl
import pytest

from av1part import embedded
from av1part.data.libaom import find_aomenc, find_inspect
from av1part.data.store import Store, StoreWriter
from av1part.errors import EncoderError

CORNER = 160
"""Luma samples a side of the pictures in `small_store`."""


@cache
def _missing_tool() -> str:
    """Why libaom cannot be used here, or nothing."""
    try:
        find_aomenc()
        find_inspect()
    except EncoderError as error:
        return str(error)
    return ""


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test marked `libaom` where its programs cannot be found, with the reason."""
    if item.get_closest_marker("libaom") and _missing_tool():
        pytest.skip(_missing_tool())


@pytest.fixture(scope="session")
def small_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of real decisions: a corner of each embedded picture, nodes of 16x16."""
    out, side = tmp_path_factory.mktemp("data") / "small", CORNER
    whole, writer = Store.open(embedded.STORE), StoreWriter(out, {"made": "by the tests"})
    for sequence in whole.sequences:
        writer.add_plane(sequence, whole.plane(sequence)[:, :side, :side], 8)
    inside = (pl.col("row") + 16 <= side) & (pl.col("col") + 16 <= side)
    nodes = whole.nodes.filter(inside & (pl.col("size") == 16))
    return writer.finish(nodes, {s: {"bit_depth": 8} for s in whole.sequences}, {}).path
