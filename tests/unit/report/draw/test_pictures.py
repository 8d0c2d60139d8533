from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.colors import same_color
from matplotlib.patches import PathPatch

from av1part.partition import RECTANGLES, Partition, partition_from_rects
from av1part.report.draw.pictures import (
    CUT_COLOUR,
    WRONG_COLOUR,
    class_figure,
    crop_window,
    cuts_path,
    gallery_figure,
    nodes_in,
    partition_figure,
    unit_square_cuts,
)
from av1part.runs.samples import FrameNodes, Samples, read_samples

SIDE = 16


def nodes(places: list[tuple[int, int, int]]) -> FrameNodes:
    """Nodes of 16x16 at (row, col) with a partition type that is also label and prediction."""
    table = np.array(places, dtype=np.int64).reshape(-1, 3)
    types = table[:, 2]
    return FrameNodes(table[:, 0], table[:, 1], np.full(len(table), SIDE), types, types, types)


def samples(found: FrameNodes, shape: tuple[int, int] = (64, 64)) -> Samples:
    block = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    one = np.array([int(Partition.HORZ)])
    return Samples(
        *(block, 0, one, one, one, one),
        *(np.zeros(shape, dtype=np.uint8), "seq", 80, found),
    )


@given(st.sampled_from(list(Partition)))
def test_cut_lines_are_the_borders_inside_the_painted_square(type_: Partition) -> None:
    painted = np.zeros((SIDE, SIDE), dtype=int)
    for index, (row, col, height, width) in enumerate(RECTANGLES[type_]):
        painted[4 * row : 4 * (row + height), 4 * col : 4 * (col + width)] = index
    expected = {("h", y, x) for y in range(1, SIDE) for x in range(SIDE)
                if painted[y, x] != painted[y - 1, x]}  # fmt: skip
    expected |= {("v", y, x) for y in range(SIDE) for x in range(1, SIDE)
                 if painted[y, x] != painted[y, x - 1]}  # fmt: skip
    drawn = set()
    for x0, y0, x1, y1 in (np.array(line) * SIDE for line in unit_square_cuts(type_)):
        if y0 == y1:
            drawn |= {("h", int(y0), x) for x in range(int(x0), int(x1))}
        else:
            drawn |= {("v", y, int(x0)) for y in range(int(y0), int(y1))}
    assert drawn == expected


def test_no_type_draws_what_another_draws() -> None:
    drawn = {frozenset(unit_square_cuts(type_)) for type_ in Partition}
    assert len(drawn) == len(Partition)
    assert partition_from_rects(frozenset(RECTANGLES[Partition.VERT_A])) is Partition.VERT_A


def test_cuts_lie_in_their_node() -> None:
    path = cuts_path(nodes([(32, 16, Partition.VERT), (0, 0, Partition.NONE)]), np.array([2, 0]))
    np.testing.assert_array_equal(path.vertices, [(24, 32), (24, 48)])


def test_crop_holds_the_most_cut_nodes_and_lies_on_the_grid() -> None:
    shape = (16 * 40, 16 * 40)
    cut = [(16 * r, 16 * c, Partition.SPLIT) for r in range(20, 30) for c in range(5, 12)]
    whole = [(16 * r, 16 * c, Partition.NONE) for r in range(20) for c in range(40)]
    row, col, height, width = crop_window(shape, nodes(cut + whole))
    assert (height, width) == (256, 256)
    assert row % 16 == col % 16 == 0
    assert len(nodes_in(nodes(cut), (row, col, height, width))) == len(cut)


def test_crop_of_a_small_frame_is_the_frame() -> None:
    assert crop_window((40, 72), nodes([(0, 0, 0)])) == (0, 0, 32, 64)
    assert crop_window((40, 72), nodes([])) == (0, 0, 40, 72)


def test_nodes_in_a_window_are_whole_and_moved() -> None:
    found = nodes_in(nodes([(0, 0, 1), (16, 32, 2), (48, 48, 3)]), (16, 16, 32, 40))
    assert found.row.tolist() == [0]
    assert found.col.tolist() == [16]
    assert found.partition.tolist() == [2]


def drawn(axes: Axes, colour: str) -> list[PathPatch]:
    return [
        patch
        for patch in axes.patches
        if same_color(patch.get_edgecolor()[:3], colour)
        or same_color(patch.get_facecolor()[:3], colour)
    ]


def test_left_shows_the_truth_right_the_prediction_and_marks_what_differs() -> None:
    true = nodes([(0, 0, Partition.HORZ), (0, 16, Partition.VERT_A), (16, 0, Partition.SPLIT)])
    said = np.array([Partition.HORZ, Partition.VERT_B, -1])
    found = dataclasses.replace(true, prediction=said)
    left, right = partition_figure(samples(found), (0, 0, 64, 64)).axes
    expected = cuts_path(true, true.partition).vertices
    np.testing.assert_array_equal(drawn(left, CUT_COLOUR)[-1].get_path().vertices, expected)
    expected = cuts_path(true, np.array([Partition.HORZ, Partition.VERT_B, 0])).vertices
    np.testing.assert_array_equal(drawn(right, CUT_COLOUR)[-1].get_path().vertices, expected)
    assert not drawn(left, WRONG_COLOUR)
    outline = drawn(right, WRONG_COLOUR)[0].get_path().vertices
    assert outline.min(0).tolist() == [16, 0]  # one node differs: (x, y) = (16, 0)
    assert outline.max(0).tolist() == [32, 16]


def test_class_figure_leaves_out_nodes_that_do_not_reach_the_stage() -> None:
    found = nodes([(0, 0, 3), (0, 16, 1), (16, 16, 0)])
    found = dataclasses.replace(found, label=np.array([0, 1, -1]), prediction=np.array([0, 0, 1]))
    _, right = class_figure(samples(found), (0, 0, 64, 64), ["SPLIT", "RECT"]).axes
    dimmed = right.patches[0].get_path()
    assert len(dimmed.vertices) == 5 * (16 - 2)  # closed squares: the cells but for two nodes
    outline = drawn(right, WRONG_COLOUR)[0].get_path().vertices
    assert outline.min(0).tolist() == [16, 0]
    assert outline.max(0).tolist() == [32, 16]


def test_gallery_puts_right_and_wrong_apart_and_names_the_prediction() -> None:
    block = np.zeros((3, 16, 16), dtype=np.uint8)
    label, said = np.array([0, 0, 1]), np.array([0, 1, 1])
    few = dataclasses.replace(
        samples(nodes([])), block=block, partition=np.array([3, 3, 1]), label=label, prediction=said
    )
    axes = gallery_figure(few, ["SPLIT", "RECT"], np.array([0, 1])).axes[0]
    assert len(axes.images) == 3
    texts = [text.get_text() for text in axes.texts]
    assert texts.count("RECT") == 2  # the row's name, and what the wrong SPLIT was taken for
    assert texts.count("none") == 1  # no wrong RECT


def test_ten_bit_luma_is_shown_with_its_upper_bits(stage_folder: Path, tmp_path: Path) -> None:
    with np.load(stage_folder / "samples.npz") as archive:
        data = {key: archive[key] for key in archive.files}
    eight = read_samples(stage_folder / "samples.npz")
    data |= {"bit_depth": np.int64(10)}
    data |= {key: data[key].astype(np.int16) * 4 + 3 for key in ("block", "frame")}
    np.savez(tmp_path / "ten.npz", **data)
    ten = read_samples(tmp_path / "ten.npz")
    np.testing.assert_array_equal(ten.frame, eight.frame)
    np.testing.assert_array_equal(ten.block, eight.block)


@pytest.mark.parametrize("margin", [0, 4])
def test_margin_around_blocks_is_found(stage_folder: Path, tmp_path: Path, margin: int) -> None:
    with np.load(stage_folder / "samples.npz") as archive:
        data = {key: archive[key] for key in archive.files}
    pad = [(0, 0), (0, 0), (margin, margin), (margin, margin)]
    np.savez(tmp_path / "m.npz", **(data | {"block": np.pad(data["block"], pad)}))
    assert read_samples(tmp_path / "m.npz").margin == margin
