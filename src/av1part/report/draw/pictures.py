"""Partitions drawn over luma: a frame's true against its predicted cuts, and sample blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, PathPatch
from matplotlib.path import Path
from numpy.typing import NDArray

from av1part.partition import RECTANGLES, Partition
from av1part.report.draw.svg import CLASS_COLOURS, MUTED, new_figure, paper_style
from av1part.runs.samples import FrameNodes, Samples

CUT_COLOUR = "#ffe14d"
"""A cut within a node: yellow over a dark casing, seen on any luma."""
GRID_COLOUR = "#ffffff"
_DIM = "#3c3c3c"
"""Key of what is dimmed; framed, so that it shows on a dark page."""
WRONG_COLOUR = "#ff5a1f"
"""Tint and corner flag of a wrong node; the flag marks it for readers who do not see colour."""

_LARGE = 10.5
"""Text beside a frame, in points: a page shows the frame as narrow as a phone."""

_LINE = (int(Path.MOVETO), int(Path.LINETO))

Window = tuple[int, int, int, int]
"""(row, col, height, width) of a crop in luma samples."""


def crop_window(shape: tuple[int, int], nodes: FrameNodes) -> Window:
    """Choose the crop of a frame that holds the most nodes that are cut, the first of equals.

    The crop is 16 nodes a side (at most 512 samples, at least 8 nodes), so that cuts stay
    legible, and lies on the nodes' grid.

    Args:
        shape: Height and width of the frame.
        nodes: Nodes of one size.

    Returns:
        Row, column, height and width in luma samples.
    """
    if not len(nodes):
        return 0, 0, min(256, shape[0]), min(256, shape[1])
    size = int(nodes.size[0])
    cells = max(8, min(16, 512 // size))
    grid = np.zeros((shape[0] // size, shape[1] // size), dtype=np.int64)
    np.add.at(grid, (nodes.row // size, nodes.col // size), nodes.partition != Partition.NONE)
    rows, cols = min(cells, grid.shape[0]), min(cells, grid.shape[1])
    total = np.pad(grid.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    inside = total[rows:, cols:] - total[:-rows, cols:] - total[rows:, :-cols]
    inside = inside + total[:-rows, :-cols]
    row, col = np.unravel_index(int(inside.argmax()), inside.shape)
    return int(row) * size, int(col) * size, rows * size, cols * size


def nodes_in(nodes: FrameNodes, window: Window) -> FrameNodes:
    """Return the nodes that lie wholly in a window, in the window's coordinates."""
    row, col, height, width = window
    mask = (nodes.row >= row) & (nodes.row + nodes.size <= row + height)
    mask &= (nodes.col >= col) & (nodes.col + nodes.size <= col + width)
    kept = nodes.where(mask)
    return replace(kept, row=kept.row - row, col=kept.col - col)


def unit_square_cuts(partition: int) -> list[tuple[float, float, float, float]]:
    """Return the lines a type draws inside a unit square, as (x0, y0, x1, y1).

    They are the upper and left sides of its rectangles, where those are not the square's own.
    """
    lines = []
    for row, col, height, width in RECTANGLES[Partition(partition)]:
        y, x, h, w = row / 4, col / 4, height / 4, width / 4
        if row:
            lines.append((x, y, x + w, y))
        if col:
            lines.append((x, y, x, y + h))
    return lines


def cuts_path(nodes: FrameNodes, partitions: NDArray[np.int64]) -> Path:
    """Return all cuts of all nodes as one path, each node cut according to `partitions`."""
    vertices = [
        (col + size * x, row + size * y)
        for row, col, size, type_ in zip(
            nodes.row.tolist(), nodes.col.tolist(), nodes.size.tolist(), partitions, strict=True
        )
        for x0, y0, x1, y1 in unit_square_cuts(int(type_))
        for x, y in ((x0, y0), (x1, y1))
    ]
    return _segments(vertices, _LINE)


def _segments(vertices: Sequence[tuple[float, float]], codes: Sequence[int]) -> Path:
    points = np.asarray(vertices, dtype=np.float64).reshape(-1, 2)
    repeated = np.tile(np.asarray(codes, dtype=np.uint8), len(points) // len(codes))
    return Path(points, repeated)


def _polygons(nodes: FrameNodes, corners: Callable[[int], list[tuple[float, float]]]) -> Path:
    """Return a closed polygon a node; `corners` gives its corners for a node of that size."""
    vertices = []
    sides = 4
    for row, col, size in zip(
        nodes.row.tolist(), nodes.col.tolist(), nodes.size.tolist(), strict=True
    ):
        points = corners(size)
        sides = len(points)
        vertices += [(col + x, row + y) for x, y in (*points, points[0])]
    return _segments(vertices, (_LINE[0], *[_LINE[1]] * (sides - 1), int(Path.CLOSEPOLY)))


def _square(inset: float) -> Callable[[int], list[tuple[float, float]]]:
    return lambda s: [
        (inset, inset),
        (s - inset, inset),
        (s - inset, s - inset),
        (inset, s - inset),
    ]


def _flag(size: int) -> list[tuple[float, float]]:
    return [(size, 0), (size - 0.3 * size, 0), (size, 0.3 * size)]


def partition_figure(samples: Samples, window: Window) -> Figure:
    """Draw a frame's true partitions (left) and predicted ones (right).

    Args:
        samples: With `nodes.prediction` as partition ids.
        window: The crop to show.

    Returns:
        Two panels side by side.
    """
    nodes = nodes_in(samples.nodes, window)
    known = nodes.prediction >= 0
    wrong = nodes.where(known & (nodes.prediction != nodes.partition))
    with paper_style():
        figure, axes = _two_crops(samples, window, nodes)
        for panel, title, types in zip(
            axes,
            ("True: what the encoder chose", "Predicted"),
            (nodes.partition, np.where(known, nodes.prediction, Partition.NONE)),
            strict=True,
        ):
            panel.set_title(title, fontsize=_LARGE)
            if panel is axes[1]:
                _draw_wrong(panel, wrong)  # below the cuts, which stay legible
            _draw_cuts(panel, cuts_path(nodes, types))
        keys: list[Patch | Line2D] = [
            Line2D([], [], color=CUT_COLOUR, linewidth=2.2, label="cut within a node"),
            _wrong_key("wrong node"),
            Patch(facecolor=_DIM, edgecolor=MUTED, label="no node of this size"),
        ]
        _keys_below(figure, keys)
    return figure


def class_figure(samples: Samples, window: Window, class_names: Sequence[str]) -> Figure:
    """Draw a frame's true stage classes over its true cuts (left) and predicted ones (right).

    Args:
        samples: With `nodes.label` and `nodes.prediction` as class indices, -1 for a node that
            does not reach the stage.
        window: The crop to show.
        class_names: Names in class-index order.

    Returns:
        Two panels side by side.
    """
    nodes = nodes_in(samples.nodes, window)
    nodes = nodes.where(nodes.label >= 0)
    colours = [CLASS_COLOURS[i % len(CLASS_COLOURS)] for i in range(len(class_names))]
    with paper_style():
        figure, axes = _two_crops(samples, window, nodes)
        for panel, title, classes in zip(
            axes, ("True class", "Predicted class"), (nodes.label, nodes.prediction), strict=True
        ):
            panel.set_title(title, fontsize=_LARGE)
            for index, colour in enumerate(colours):
                filled = _polygons(nodes.where(classes == index), _square(0))
                panel.add_patch(PathPatch(filled, facecolor=colour, alpha=0.42, linewidth=0))
        _draw_cuts(axes[0], cuts_path(nodes, nodes.partition))
        _draw_wrong(axes[1], nodes.where(nodes.prediction != nodes.label), tint=0.0)
        keys: list[Patch | Line2D] = [
            *(
                Patch(facecolor=c, alpha=0.7, label=n)
                for c, n in zip(colours, class_names, strict=True)
            ),
            Line2D([], [], color=CUT_COLOUR, linewidth=2.2, label="true cut"),
            _wrong_key("wrong"),
            Patch(facecolor=_DIM, edgecolor=MUTED, label="does not reach the stage"),
        ]
        _keys_below(figure, keys)
    return figure


def _two_crops(
    samples: Samples, window: Window, nodes: FrameNodes
) -> tuple[Figure, tuple[Axes, Axes]]:
    """Return two axes that show the crop, dimmed where there is no node."""
    row, col, height, width = window
    figure = new_figure(min(9.0, 4.4 * height / width) + 0.62)
    left, right = figure.subplots(1, 2)
    crop = samples.frame[row : row + height, col : col + width]
    size = int(nodes.size[0]) if len(nodes) else height
    for axes in (left, right):
        axes.imshow(
            np.repeat(crop[..., None], 3, axis=2),
            extent=(0, width, height, 0),
            interpolation="none",
        )
        axes.add_patch(
            PathPatch(
                _bare(nodes, size, height, width), facecolor="#000000", alpha=0.6, linewidth=0
            )
        )
        outline = PathPatch(
            _polygons(nodes, _square(0)),
            fill=False,
            edgecolor=GRID_COLOUR,
            linewidth=0.35,
            alpha=0.55,
        )
        axes.add_patch(outline)
        axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    return figure, (left, right)


def _bare(nodes: FrameNodes, size: int, height: int, width: int) -> Path:
    """Return the cells of the nodes' grid that hold no node."""
    covered = np.zeros((-(-height // size), -(-width // size)), dtype=np.bool_)
    covered[nodes.row // size, nodes.col // size] = True
    rows, cols = np.nonzero(~covered)
    none = np.zeros_like(rows)
    cells = FrameNodes(rows * size, cols * size, np.full_like(rows, size), none, none, none)
    return _polygons(cells, _square(0))


def _draw_cuts(axes: Axes, path: Path) -> None:
    axes.add_patch(PathPatch(path, fill=False, edgecolor="#000000", linewidth=1.9, alpha=0.5))
    axes.add_patch(PathPatch(path, fill=False, edgecolor=CUT_COLOUR, linewidth=0.95))


def _draw_wrong(axes: Axes, nodes: FrameNodes, tint: float = 0.3) -> None:
    square = _polygons(nodes, _square(0))
    axes.add_patch(PathPatch(square, facecolor=WRONG_COLOUR, alpha=tint, linewidth=0))
    axes.add_patch(PathPatch(square, fill=False, edgecolor=WRONG_COLOUR, linewidth=0.9))
    axes.add_patch(
        PathPatch(_polygons(nodes, _flag), facecolor=WRONG_COLOUR, linewidth=0, zorder=3)
    )


def _wrong_key(label: str) -> Line2D:
    return Line2D(
        [], [], linestyle="none", marker="$◥$", color=WRONG_COLOUR, markersize=7, label=label
    )


def _keys_below(figure: Figure, keys: Sequence[Patch | Line2D]) -> None:
    figure.legend(
        handles=list(keys),
        loc="outside lower left",
        ncols=len(keys),
        frameon=False,
        handlelength=1.4,
        fontsize=_LARGE,
        columnspacing=1.6,
    )


def gallery_figure(
    samples: Samples, class_names: Sequence[str], labels: NDArray[np.int64]
) -> Figure:
    """Draw sample blocks with their true cut: a row a class, right ones left, wrong ones right.

    The first blocks in the file's order are taken, none chosen by hand. Each is stretched to its
    own range of luma (at least 32 levels), since cuts follow contrast, not brightness.

    Args:
        samples: The blocks; `label` and `prediction` in the same numbering as `labels`.
        class_names: Names of the classes.
        labels: Number of each class, shape (k,).

    Returns:
        One panel of 8 columns, or 5 of blocks above 32 samples, on either side.
    """
    names = dict(zip(labels.tolist(), class_names, strict=True))
    columns = 8 if samples.block.shape[-1] <= 32 else 5
    right = samples.label == samples.prediction
    pitch_x, pitch_y, gap = 1.1, 1.42, 0.55
    half = columns * pitch_x + gap
    with paper_style():
        width = 2 * columns * pitch_x + gap
        figure = new_figure(0.35 + 8.3 * len(names) * pitch_y / width)
        axes = figure.subplots()
        cuts: list[tuple[float, float]] = []
        for i, (label, name) in enumerate(names.items()):
            axes.text(-0.15, i * pitch_y + 0.5, name, ha="right", va="center")
            for good, x in ((True, 0.0), (False, half)):
                chosen = np.flatnonzero((samples.label == label) & (right == good))[:columns]
                if not len(chosen):
                    axes.text(x, i * pitch_y + 0.5, "none", va="center", color=MUTED)
                for j, block in enumerate(chosen.tolist()):
                    prediction = "" if good else names.get(int(samples.prediction[block]), "?")
                    left, top = x + j * pitch_x, i * pitch_y
                    cuts += _tile(axes, samples, block, left, top)
                    axes.text(
                        left + 0.5, top + 1.06, prediction, ha="center", va="top", fontsize=6.2
                    )
        _draw_cuts(axes, _segments(cuts, _LINE))
        for x, title in ((0.0, "Right"), (half, "Wrong, with what was predicted")):
            axes.text(x, -0.2, title, va="bottom")
        axes.set(xlim=(-0.1, width), ylim=(len(names) * pitch_y, -0.5), aspect="equal")
        axes.set_axis_off()
    return figure


def _tile(
    axes: Axes, samples: Samples, index: int, left: float, top: float
) -> list[tuple[float, float]]:
    """Draw a block stretched to its range; return the ends of its cuts."""
    block = samples.block[index]
    low, high = float(block.min()), float(block.max())
    middle, reach = (low + high) / 2, max(high - low, 32) / 2
    grey = ((block - middle + reach) * (255 / (2 * reach))).clip(0, 255).astype(np.uint8)
    axes.imshow(
        np.repeat(grey[..., None], 3, axis=2),
        extent=(left, left + 1, top + 1, top),
        interpolation="none",
        zorder=1,
    )
    return _tile_cuts(samples, index, left, top)


def _tile_cuts(samples: Samples, index: int, left: float, top: float) -> list[tuple[float, float]]:
    """Return the ends of a block's cuts, and of the node's outline if there is a margin."""
    inset = samples.margin / samples.block.shape[-1]
    side = 1 - 2 * inset
    lines = unit_square_cuts(int(samples.partition[index]))
    if samples.margin:
        lines = [(0, 0, 1, 0), (1, 0, 1, 1), (1, 1, 0, 1), (0, 1, 0, 0), *lines]
    return [
        (left + inset + side * u, top + inset + side * v)
        for x0, y0, x1, y1 in lines
        for u, v in ((x0, y0), (x1, y1))
    ]
