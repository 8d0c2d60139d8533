"""The frame viewer: the tree of a hand-made table, what the page holds, and which frames."""

from __future__ import annotations

import base64
import io
import json
import re
import zlib

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from PIL import Image

from av1part.partition import RECTANGLES, Partition
from av1part.report.draw.packed import (
    ABSENT,
    DIFFERS,
    DRAWN,
    PROBABILITIES,
    PackedFrame,
    pack_frame,
)
from av1part.report.render.viewer import FrameChoice, predictions_page

HEIGHT, WIDTH = 40, 72
"""One 64x64 node does not fit, two at 32, eight at 16; column 64 has nodes of 8 alone."""
Node = tuple[int, int, int]


def table(types: dict[Node, Partition], seed: int = 0) -> pl.DataFrame:
    """Return predictions whose most probable types are given, by (row, col, size)."""
    shares = np.random.default_rng(seed).dirichlet(np.ones(10), len(types)).astype(np.float32) / 2
    shares[np.arange(len(types)), [int(t) for t in types.values()]] += 0.5
    nodes = pl.DataFrame(list(types), schema=["row", "col", "size"], orient="row")
    return nodes.hstack(pl.DataFrame(shares, schema=list(PROBABILITIES)))


def planes(frame: PackedFrame, qindex: int, size: int) -> NDArray[np.uint8]:
    """Return a layer as the page's script reads it: [3 + classes, rows, cols]."""
    raw = zlib.decompress(base64.b64decode(frame.layers[qindex][size]))
    shape = (-1, frame.height // size, frame.width // size)
    return np.frombuffer(raw, np.uint8).reshape(shape)


def luma(shape: tuple[int, int] = (HEIGHT, WIDTH)) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, shape, np.uint8)


TREE: dict[Node, Partition] = {
    (0, 0, 32): Partition.SPLIT,
    (0, 32, 32): Partition.HORZ_A,
    **{(r, c, 16): Partition.VERT for r in (0, 16) for c in (0, 16, 32, 48)},
    (16, 16, 16): Partition.SPLIT,
    (0, 48, 16): Partition.SPLIT,  # below HORZ_A: not of the tree, nor are its quarters
    **{(r, c, 8): Partition.NONE for r in range(0, 40, 8) for c in range(0, 72, 8)},
    (24, 24, 8): Partition.SPLIT,
}


def drawn(frame: PackedFrame, size: int) -> set[tuple[int, int]]:
    code = planes(frame, 80, size)[0]
    rows, cols = np.nonzero((code != ABSENT) & (code & DRAWN > 0))
    return {(int(r) * size, int(c) * size) for r, c in zip(rows, cols, strict=True)}


def test_the_tree_follows_the_most_probable_types() -> None:
    frame = pack_frame(0, luma(), {80: table(TREE)})
    assert list(frame.layers[80]) == [32, 16, 8]
    assert drawn(frame, 32) == {(0, 0), (0, 32)}
    assert drawn(frame, 16) == {(0, 0), (0, 16), (16, 0), (16, 16)}
    inside = {(16, 16), (16, 24), (24, 16), (24, 24)}
    edge = {(32, c) for c in range(0, 72, 8)} | {(r, 64) for r in range(0, 40, 8)}
    assert drawn(frame, 8) == inside | edge
    for (row, col, size), type_ in TREE.items():
        code = int(planes(frame, 80, size)[0, row // size, col // size])
        assert code & (DRAWN - 1) == type_
        assert not code & DIFFERS


def test_a_missing_size_ends_the_tree() -> None:
    types = {node: type_ for node, type_ in TREE.items() if node[2] != 16}
    frame = pack_frame(0, luma(), {80: table(types)})
    assert drawn(frame, 32) == {(0, 0), (0, 32)}
    assert drawn(frame, 8) == set()
    smallest = {node: type_ for node, type_ in TREE.items() if node[2] == 8}
    assert len(drawn(pack_frame(0, luma(), {80: table(smallest)}), 8)) == 45


def test_numbers_decode_to_what_went_in() -> None:
    plane, own = luma(), table(TREE)
    frame = pack_frame(3, plane, {80: own, 128: table(TREE, seed=1)})
    assert list(frame.layers) == [80, 128]
    with Image.open(io.BytesIO(base64.b64decode(frame.png))) as image:
        assert image.mode == "L"
        assert (np.asarray(image) == plane).all()
    for row, col, size, *shares in own.iter_rows():
        read = planes(frame, 80, size)[3:, row // size, col // size]
        assert np.abs(read / 255 - shares).max() <= 0.5 / 255 + 1e-6
    assert (planes(frame, 128, 8)[3:] != planes(frame, 80, 8)[3:]).any()


def test_differing_nodes_of_the_true_tree_are_marked() -> None:
    true = {(0, 0, 32): Partition.SPLIT, (0, 32, 32): Partition.NONE, (0, 0, 16): Partition.HORZ}
    true[0, 16, 16] = Partition.VERT
    true[0, 48, 16] = Partition.NONE  # another than predicted, but not in the predicted tree
    rows = [(*node, int(type_)) for node, type_ in true.items()]
    labels = pl.DataFrame(rows, schema=["row", "col", "size", "partition"], orient="row")
    frame = pack_frame(0, luma(), {80: table(TREE)}, {80: labels})
    marked = set()
    for size in (32, 16, 8):
        code, label, type_plane = planes(frame, 80, size)[:3]
        assert (type_plane == label).all()
        for row, col in np.ndindex(code.shape):
            node = (row * size, col * size, size)
            assert label[row, col] == true.get(node, ABSENT)
            if code[row, col] != ABSENT and code[row, col] & DIFFERS:
                marked.add(node)
    assert marked == {(0, 32, 32), (0, 0, 16)}


def test_classes_of_several_types_are_packed_with_the_given_predictions() -> None:
    nodes = {"row": [0, 0, 16], "col": [0, 32, 16], "size": [16] * 3}
    shares = {"p0": [0.6, 0.2, 0.0], "p1": [0.4, 0.8, 1.0]}
    predicted = pl.DataFrame({**nodes, "prediction": [1, 1, 0], **shares})
    true = pl.DataFrame({**nodes, "label": [0, 1, 1], "partition": [0, 3, 7]})
    frame = pack_frame(None, luma(), {80: predicted}, {80: true}, classes=2)
    layer = planes(frame, 80, 16)
    assert layer.shape == (5, 2, 4)
    places = ((0, 0), (0, 2), (1, 1))
    assert [layer[:3, row, col].tolist() for row, col in places] == [
        [1 + DRAWN + DIFFERS, 0, 0],
        [1 + DRAWN, 1, 3],
        [0 + DRAWN + DIFFERS, 1, 7],
    ]
    assert [layer[3:, row, col].tolist() for row, col in places] == [
        [153, 102],
        [51, 204],
        [0, 255],
    ]
    assert (layer[:3] == ABSENT).sum() == 3 * 5


@pytest.mark.parametrize(("total", "kept"), [(1, 1), (8, 8), (9, 5), (100, 7)])
def test_frames_are_spread_over_the_source(total: int, kept: int) -> None:
    choice = FrameChoice()
    choice.start("clip")
    for number in range(total):
        if choice.wants(number):
            choice.add(PackedFrame(number, 8, 8, "x" * 100, {}))
            assert choice.page_bytes <= 800
    (own,) = choice.sequences
    numbers = [frame.number for frame in own.frames]
    assert (len(numbers), own.total) == (kept, total)
    assert numbers == list(range(0, total, own.stride))


def test_bytes_are_bounded_and_left_out_sequences_named() -> None:
    choice = FrameChoice(limit=1000)
    for name in ("a", "b", "c"):
        choice.start(name)
        for number in range(8):
            if choice.wants(number):
                choice.add(PackedFrame(number, 8, 8, "x" * 400, {80: {8: ""}}))
                assert choice.page_bytes <= 1000
    assert [len(s.frames) for s in choice.sequences] == [1, 1, 0]
    assert choice.left_out == ["c"]
    page = predictions_page(choice, "a predictor")
    assert "1 of 8 frames of a, 1 of 8 frames of b" in page
    assert "Left out, as the page would be too large: c." in page
    large = FrameChoice(limit=10)
    large.start("a")
    assert large.wants(0)
    large.add(PackedFrame(0, 8, 8, "x" * 400, {}))
    assert large.sequences[0].frames


def test_the_page_holds_the_geometry_and_nothing_foreign() -> None:
    choice = FrameChoice()
    choice.start("a</script><b>")
    assert choice.wants(0)
    choice.add(pack_frame(0, luma(), {80: table(TREE)}))
    page = predictions_page(choice, "cascade <1>")
    (text,) = re.findall(r'<script type="application/json">(.*?)</script>', page)
    data = json.loads(text)
    assert data["sequences"][0]["name"] == "a</script><b>"
    assert "a</script>" not in page
    assert "cascade <1>" not in page
    for type_ in Partition:
        assert data["classes"][type_] == f"PARTITION_{type_.name}"
        assert tuple(map(tuple, data["rectangles"][type_])) == RECTANGLES[type_]
        assert data["cuts"][type_] == data["rectangles"][type_]
    assert not re.search(r"https?://|@import|url\(", page)


def test_a_source_without_frames_has_a_page() -> None:
    choice = FrameChoice()
    choice.start("empty")
    assert "The sources had no frame." in predictions_page(choice, "prior")
