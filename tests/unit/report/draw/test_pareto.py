"""The Pareto plot: every point is drawn once and named, no name covers another."""

from __future__ import annotations

from types import ModuleType

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text

from av1part.report.draw.pareto import MARKERS, outside, pareto_figure
from av1part.report.encodes import AnchorComparison
from av1part.report.savings import compare
from av1part.runs.encodes import read_encodes


@pytest.fixture(scope="module")
def comparison(
    encodes_examples: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> AnchorComparison:
    points, clips = encodes_examples.CLAIM, encodes_examples.clips(4)
    rows = list(encodes_examples.rows(points, list(clips), noise=0.05))
    folder = tmp_path_factory.mktemp("pareto")
    return compare(
        read_encodes(
            encodes_examples.write_encodes(folder, points, clips, rows, anchors=("cpu1_sb64",))
        )
    )[0]


@pytest.fixture(scope="module")
def figure(comparison: AnchorComparison) -> Figure:
    return pareto_figure(comparison)


def labels(figure: Figure) -> list[Annotation]:
    return [text for text in figure.axes[0].texts if isinstance(text, Annotation)]


def test_every_point_is_named_but_those_too_far(
    comparison: AnchorComparison, figure: Figure
) -> None:
    far = {change.point.name for change in outside(comparison)}
    assert far == {"cpu0", "cpu0_sb64"}  # twice as slow as the anchor
    names = {change.point.name for change in comparison.points} - far
    assert {label.get_text() for label in labels(figure)} == names | {"cpu1_sb64 (anchor)"}


def test_labels_and_markers_do_not_overlap(comparison: AnchorComparison, figure: Figure) -> None:
    figure.draw_without_rendering()
    texts = [Text.get_window_extent(label) for label in labels(figure)]  # without its line
    for i, one in enumerate(texts):
        assert not any(one.overlaps(other) for other in texts[i + 1 :])
    axes = figure.axes[0]
    for change in comparison.points:
        x, y = axes.transData.transform([100 * v for v in comparison.place(change.point)])
        assert not any(text.contains(x, y) for text in texts)


def test_kinds_differ_in_colour_and_marker(comparison: AnchorComparison, figure: Figure) -> None:
    assert len({marker for marker, _, _ in MARKERS.values()}) == len(MARKERS)
    assert len({colour for _, colour, _ in MARKERS.values()}) == len(MARKERS)
    for change in comparison.points:
        if change in outside(comparison):
            continue
        saved, loss = (100 * value for value in comparison.place(change.point))
        drawn = [
            line
            for line in figure.axes[0].lines
            if line.get_marker() != "None"
            and list(line.get_xdata()) == [saved]
            and list(line.get_ydata()) == [loss]
        ]
        assert [line.get_marker() for line in drawn] == [MARKERS[change.point.kind][0]]
        filled = drawn[0].get_markerfacecolor() == drawn[0].get_color()
        assert filled == change.same_size


def test_preset_lines_go_from_slow_to_fast(comparison: AnchorComparison, figure: Figure) -> None:
    lines = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 4]
    assert len(lines) == 2  # a line a superblock size
    for line in lines:
        assert list(line.get_xdata()) == sorted(line.get_xdata())
    assert [0.0 in list(line.get_xdata()) for line in lines].count(True) == 1  # the anchor
